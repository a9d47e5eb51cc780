"""A search over a recorded table: what it answers, what it may propose, and tables that it cannot be run on."""

import random
from dataclasses import replace

import pytest

from mvit_search.architecture import PRESETS
from mvit_search.errors import ConflictError, InputError
from mvit_search.latency import load_target
from mvit_search.profile import cost
from mvit_search.records import RunFolder
from mvit_search.records.table import TableRow, write_table
from mvit_search.search import RunSettings, Store, prepare, run_search
from mvit_search.search.ladder import Rung, parse_rungs
from mvit_search.search.limits import Limits
from mvit_search.search.proposals import draw_evenly
from mvit_search.search.replay import Replay, Step, load_replay
from mvit_search.search.task import Task
from mvit_search.space import load_space
from tests.search.fakes import make_plan, search

SPACE = load_space("mobilevit")
LIMITS = Limits(6_000_000, 1000)


def row(config, *, name="", seed=0, epoch=4, epochs=4, fidelity="long", error="", **changes) -> TableRow:
    costs = cost(config)
    noise = random.Random(f"{config.digest()} {seed}").gauss(0, 0.01)
    found = (0.5 + 0.4 * costs.params / (costs.params + 2e6) + noise) * epoch / epochs
    made = TableRow(
        name=name, digest=config.digest(), seed=seed, recipe="r", data="d", fidelity=fidelity, epoch=epoch,
        epochs=epochs, top1=None if error else found, loss=None if error else 1.0, image_steps=100 * epoch,
        cpu_seconds=1000.0 * epoch, params=costs.params, macs=costs.macs, latency_ms=None, error=error, config=config,
    )  # fmt: skip
    return replace(made, **changes)


def drawn(count: int, seed: int = 0):
    rng = random.Random(seed)
    return [SPACE.config(draw_evenly(SPACE, LIMITS, rng.random(), rng)) for _ in range(count)]


CONFIGS = drawn(12)


def table() -> list[TableRow]:
    """Twelve candidates and MobileViT-XS at two rungs, some with three seeds; one that failed, one left half-way."""
    xs = PRESETS["mobilevit-xs"]
    rows = [row(xs, name="mobilevit-xs", seed=seed, epoch=epoch) for seed in range(3) for epoch in (2, 4)]
    for index, config in enumerate(CONFIGS[:10]):
        rows += [row(config, seed=seed, epoch=e) for seed in range(3 if index < 5 else 1) for e in (2, 4)]
    rows.append(row(CONFIGS[10], error="loss is nan", epoch=0))
    rows.append(row(CONFIGS[11], epoch=2))
    return rows


WHOLE = (Step("long", 4),)


def replay(rows=None, *, seed=0, seeds=3, steps=WHOLE, space=SPACE, limits=LIMITS) -> Replay:
    return Replay("t.csv", table() if rows is None else rows, steps, space, limits, seed=seed, seeds=seeds)


def answer(known: Replay, config, seed=0, rung=None, start_rung=-1):
    return known.evaluate(Task(config, seed, known.ladder.top if rung is None else rung, start_rung))


def test_the_last_rung_is_what_is_answered():
    found = replay()
    for config in CONFIGS[:10]:
        expected = row(config)
        given = answer(found, config)
        assert given[:3] == (expected.top1, expected.cpu_seconds, None)
        assert given.image_steps == expected.image_steps
    assert answer(found, CONFIGS[10])[:3] == (None, 0.0, "loss is nan")
    assert answer(found, CONFIGS[10]).failure
    assert not found.knows(CONFIGS[11])
    assert answer(found, CONFIGS[0], 7).error == "the table has no training of it with seed 7"
    assert found.ladder.rungs == (Rung(4),)


def test_trainings_that_were_all_left_half_way_answer_nothing():
    rows = [row(config, epoch=2) for config in CONFIGS[:5]]
    with pytest.raises(InputError, match="no training of long reached its last epoch"):
        replay([*rows, row(CONFIGS[5], error="loss is nan", epoch=1)])


def test_of_a_seed_that_was_trained_twice_the_last_row_counts():
    rows = [row(CONFIGS[0], error="out of memory", epoch=0), row(CONFIGS[0]), row(CONFIGS[1])]
    assert answer(replay(rows), CONFIGS[0]).value == row(CONFIGS[0]).top1


@pytest.mark.parametrize(
    ("seed", "seeds", "found"),
    [(0, 3, (0, 1, 2)), (0, 2, (0, 1)), (1, 3, (1, 2)), (5, 2, (0, 1))],
)
def test_seeds_are_those_asked_for_that_are_recorded(seed, seeds, found):
    known = replay(seed=seed, seeds=seeds)
    assert known.seeds(CONFIGS[0]) == found
    assert known.seeds(CONFIGS[7]) == (0,)


def test_a_proposal_goes_to_the_nearest_recorded_candidate():
    known = replay()
    recorded = [*CONFIGS[:11], PRESETS["mobilevit-xs"]]
    for config in recorded:
        assert known.nearest(config, ()) == config
    used = set()
    while (nearest := known.nearest(CONFIGS[0], used)) is not None:
        assert nearest.digest() not in used
        used.add(nearest.digest())
    assert used == {config.digest() for config in recorded}
    assert known.used_up(used)
    assert not known.used_up(used - {CONFIGS[3].digest()})


def test_nearest_counts_each_parameter_by_its_range_and_categories_alike():
    """One step in a two-valued parameter is farther than one step in a long range; the sum is over squares."""
    base = SPACE.params(CONFIGS[0])

    def moved(key, to):
        return SPACE.config({**base, key: to})

    key, values = max(SPACE.dimensions.items(), key=lambda item: len(item[1]))
    near = moved(key, values[1] if base[key] == values[0] else values[values.index(base[key]) - 1])
    short, ends = min(SPACE.dimensions.items(), key=lambda item: len(item[1]))
    far = moved(short, ends[-1] if base[short] == ends[0] else ends[0])
    known = replay([row(far), row(near)], limits=Limits(10**9, 1000))
    assert known.nearest(CONFIGS[0], ()) == near
    assert known.nearest(CONFIGS[0], {near.digest()}) == far


def test_candidates_over_the_budget_are_not_proposed():
    tight = Limits(1_500_000, 1000)
    known = replay(limits=tight)
    assert known.knows(PRESETS["mobilevit-xs"])
    used = set()
    while (nearest := known.nearest(CONFIGS[0], used)) is not None:
        assert not tight.excess(nearest)
        used.add(nearest.digest())
    assert 0 < len(used) < 11


# Rungs.

SHORT = (Step("one", 1), Step("two", 2), Step("long", 4))


def rungs_table() -> list[TableRow]:
    """One long schedule scored at 1, 2, 4; complete ones of 1 and 2 for all but the last two of six candidates."""
    rows = [row(c, seed=seed, epoch=e) for c in CONFIGS[:6] for seed in (0, 1) for e in (1, 2, 4)]
    rows += [row(c, fidelity="one", epochs=1, epoch=1, top1=0.1 + i / 100) for i, c in enumerate(CONFIGS[:4])]
    return rows + [row(c, fidelity="two", epochs=2, epoch=2, top1=0.2 + i / 100) for i, c in enumerate(CONFIGS[:4])]


def on_its_way(*epochs, **changes) -> Replay:
    return replay(changes.pop("rows", rungs_table()), steps=tuple(Step("long", e) for e in epochs), **changes)


def test_rungs_of_one_schedule_are_its_rows_on_the_way():
    known = on_its_way(1, 2, 4)
    assert known.ladder.rungs == (Rung(1), Rung(2), Rung(4))
    for config in CONFIGS[:6]:
        for rung, epoch in enumerate((1, 2, 4)):
            expected = row(config, seed=1, epoch=epoch)
            given = answer(known, config, 1, rung)
            assert (given.value, given.image_steps, given.seconds) == (
                expected.top1, expected.image_steps, expected.cpu_seconds,
            )  # fmt: skip


def test_rungs_of_complete_schedules_are_a_fidelity_each():
    known = replay(rungs_table(), steps=SHORT)
    for index, config in enumerate(CONFIGS[:4]):
        values = [answer(known, config, 0, rung).value for rung in range(3)]
        assert values == [0.1 + index / 100, 0.2 + index / 100, row(config).top1]
    assert not known.knows(CONFIGS[4])  # it lacks the short ones


@pytest.mark.parametrize("steps", [SHORT, tuple(Step("long", e) for e in (1, 2, 4))])
def test_climbing_costs_what_training_to_the_top_at_once_costs(steps):
    known = replay(rungs_table(), steps=steps)
    whole = answer(known, CONFIGS[0])
    climbed = [answer(known, CONFIGS[0], 0, rung, rung - 1) for rung in range(3)]
    assert [given.image_steps for given in climbed] == [100, 100, 200]
    assert sum(given.image_steps for given in climbed) == whole.image_steps
    assert sum(given.seconds for given in climbed) == whole.seconds
    assert answer(known, CONFIGS[0], 0, 2, 0).image_steps == 300
    assert climbed[2].value == whole.value


def test_finals_need_the_top_alone():
    known = replay(rungs_table(), steps=SHORT)
    assert known.seeds(CONFIGS[0]) == (0, 1)
    assert answer(known, CONFIGS[0], 1).value == row(CONFIGS[0], seed=1).top1
    assert answer(known, CONFIGS[0], 1, 0).error == "the table has no training of it with seed 1 at 1 epochs"
    other = replay(rungs_table(), steps=SHORT, seed=1, seeds=2)
    assert other.seeds(CONFIGS[0]) == (0, 1)  # the first must have every rung, whatever was asked for


@pytest.mark.parametrize(("reached", "failing"), [(0, 0), (1, 1), (2, 2), (3, 2)])
def test_a_training_that_fails_answers_the_rungs_before_it(reached, failing):
    scored = [row(CONFIGS[0], epoch=epoch) for epoch in (1, 2) if epoch <= reached]
    rows = [*scored, row(CONFIGS[0], epoch=reached, error="loss is nan"), *rungs_table()[6:]]
    known = on_its_way(1, 2, 4, rows=rows)
    given = [answer(known, CONFIGS[0], 0, rung) for rung in range(3)]
    assert [one.value is None for one in given] == [rung >= failing for rung in range(3)]
    assert all(one.error == "loss is nan" and one.failure for one in given[failing:])


def test_a_candidate_without_every_rung_is_not_proposed():
    rows = [one for one in rungs_table() if (one.digest, one.epoch) != (CONFIGS[0].digest(), 2)]
    known = on_its_way(1, 2, 4, rows=rows)
    assert not known.knows(CONFIGS[0])
    assert known.nearest(CONFIGS[0], ()) != CONFIGS[0]
    with pytest.raises(InputError, match=r"no candidate was trained at every rung \(long after 1, long after 3, long"):
        on_its_way(1, 3, 4)


def test_other_rungs_are_another_table():
    digests = {on_its_way(*epochs).digest for epochs in ((1, 2, 4), (1, 4), (2, 4), (4,))}
    assert len({*digests, replay(rungs_table(), steps=SHORT).digest}) == 5


@pytest.fixture
def rungs_file(tmp_path):
    write_table(tmp_path / "t.csv", rungs_table())
    return tmp_path / "t.csv"


def load_rungs(path, argument="", rungs=None, eta=3, **changes):
    asked = parse_rungs(rungs, eta) if rungs else None
    settings = {"seed": 0, "seeds": 1, "halving": True, **changes}
    return load_replay(f"{path}{argument}", SPACE, LIMITS, eta=eta, rungs=asked, **settings)


@pytest.mark.parametrize(
    ("argument", "rungs", "eta", "found"),
    [
        ("", None, 3, (1, 4)),
        ("", None, 2, (1, 2, 4)),
        ("#long", "2,4", 3, (2, 4)),
        ("#one+two+long", None, 3, (1, 2, 4)),
        ("#one+long", "1,4", 2, (1, 4)),
    ],
)
def test_which_rungs_a_table_gives(rungs_file, argument, rungs, eta, found):
    ladder = load_rungs(rungs_file, argument, rungs, eta).ladder
    assert tuple(rung.epochs for rung in ladder.rungs) == found
    assert ladder.eta == eta


def test_without_halving_a_table_has_one_rung(rungs_file):
    assert load_rungs(rungs_file, halving=False).ladder.rungs == (Rung(4),)


@pytest.mark.parametrize(
    ("argument", "rungs", "changes", "message"),
    [
        ("#one+two", None, {"halving": False}, "names several fidelities: they are rungs; add --fidelity halving"),
        ("#two+one", None, {}, "its schedules are of 2, 1 epochs; name up to 6, each longer"),
        ("#one+nine", None, {}, r"has no fidelity 'nine'; it has long, one, two"),
        ("#one+two+long", "1,4", {}, "the schedules named have 1,2,4 epochs; leave --rungs out"),
        ("#long", "1,3,4", {}, r"has long after 1, 2, 4 epochs; name some of these, 4 the last"),
        ("#long", "1,2", {}, r"name some of these, 4 the last"),
        ("#long", "1@16,4", {}, "a table answers epochs alone; leave sides and shares out"),
        ("#long", "1:0.5,4", {}, "a table answers epochs alone"),
        ("#two", None, {}, r"has no epoch of two that could be a rung below 2 with eta 3; name complete schedules as"),
        ("#long", None, {"eta": 5}, r"has no epoch of long that could be a rung below 4 with eta 5"),
    ],
)
def test_rungs_that_a_table_does_not_hold(rungs_file, argument, rungs, changes, message):
    with pytest.raises(InputError, match=message):
        load_rungs(rungs_file, argument, rungs, **changes)


def test_a_fidelity_may_have_a_plus_sign_in_its_name(tmp_path):
    write_table(tmp_path / "t.csv", [row(CONFIGS[0], fidelity="a+b")])
    assert load_rungs(tmp_path / "t.csv", "#a+b", halving=False).knows(CONFIGS[0])


# Whole runs.

SETTINGS = {"trials": 13, "final_seeds": 3, "proxy": "table:t.csv#long"}


def run(path, evaluator=None, rows=None, **settings):
    chosen = {**SETTINGS, **settings}

    def made(space, limits, parsed):
        return replay(rows, seed=parsed.seed, seeds=parsed.final_seeds, space=space, limits=limits)

    return search(path, evaluator, replay=made, **chosen)


def test_a_replay_uses_the_table_up_and_repeats_nothing(tmp_path):
    document = run(tmp_path / "run")
    records = RunFolder(tmp_path / "run").records()
    assert document["ended_by"] == "space exhausted"
    assert document["proxy"] == "table:t.csv#long"
    assert (document["trained"], document["failed"]) == (11, 1)
    assert {r.digest for r in records} == {c.digest() for c in [*CONFIGS[:11], PRESETS["mobilevit-xs"]]}
    names = {row["name"]: row["outcome"] for row in document["baselines"]}
    assert names == {"mobilevit-xxs": "not trained", "mobilevit-xs": "trained", "mobilevit-s": "not trained"}
    for record in records:
        assert record.trial is not None
        for seed, top1 in record.top1_by_seed.items():
            assert top1 == row(record.config, seed=seed).top1
    front = {row["digest"] for row in document["front"]}
    seeds = {c.digest(): 3 if i < 5 else 1 for i, c in enumerate(CONFIGS[:10])} | {PRESETS["mobilevit-xs"].digest(): 3}
    assert all(len(r.top1_by_seed) == seeds[r.digest] for r in records if r.digest in front)


def test_each_value_is_told_for_the_parameters_that_it_was_measured_at(tmp_path):
    run(tmp_path / "run", trials=9)
    with Store.open(RunFolder(tmp_path / "run"), make_plan().shape) as store:
        trials = {t.number: t for t in store.trials}
        for record in store.records():
            trial = trials[record.trial]
            assert SPACE.config(trial.params) == record.config
            if record.outcome == "trained":
                assert trial.values[0] == record.top1_by_seed[0]


@pytest.mark.parametrize("share", [0.63, 0.8, 0.94])
def test_a_replay_that_is_cut_anywhere_carries_on_alike(tmp_path, share):
    wanted = run(tmp_path / "whole")
    journal = (tmp_path / "whole" / "study.journal").read_bytes().splitlines(keepends=True)
    cut = tmp_path / "run"
    cut.mkdir()
    (cut / "study.journal").write_bytes(b"".join(journal[: int(share * len(journal))]))
    found = run(cut)
    order = [[r.digest for r in RunFolder(tmp_path / name).records()] for name in ("whole", "run")]
    assert order[0] == order[1]
    assert [p["top1"] for p in found["front"]] == [p["top1"] for p in wanted["front"]]


def test_recorded_seconds_do_not_count_against_the_time_limit(tmp_path):
    """Each training took 4000 s; looking it up takes none, so the finals go through."""
    document = run(tmp_path / "run", trials=8, time_s=60)
    assert document["ended_by"] == "trials"
    assert all(p["train_seconds"] == 4000 * len(p["top1_by_seed"]) for p in document["front"])
    assert any(len(p["top1_by_seed"]) == 3 for p in [*document["front"], *document["baselines"]])


def test_a_search_with_rungs_reads_them_from_the_table(tmp_path):
    """Nine candidates, eta 3: whoever is promoted is read at the next rung, and the front is of the top alone."""
    rows = [row(config, epoch=epoch) for config in CONFIGS for epoch in (1, 2, 4)]
    steps = tuple(Step("long", epoch) for epoch in (1, 2, 4))

    def made(space, limits, parsed):
        return replay(rows, seeds=1, steps=steps, space=space, limits=limits)

    document = search(tmp_path / "run", replay=made, trials=9, final_seeds=1, proxy="table:t.csv#long")
    records = RunFolder(tmp_path / "run").records()
    climbed = {r.digest: tuple((1, 2, 4)[one.rung] for one in r.evaluations) for r in records}
    assert sorted(climbed.values()) == [(1,)] * 6 + [(1, 2)] * 2 + [(1, 2, 4)]
    for record in records:
        reached = climbed[record.digest]
        assert [one.value for one in record.evaluations] == [row(record.config, epoch=e).top1 for e in reached]
        assert sum(one.image_steps for one in record.evaluations) == 100 * max(reached)
    assert [climbed[point["digest"]] for point in document["front"]] == [(1, 2, 4)]


def test_another_table_is_another_run(tmp_path):
    run(tmp_path / "run", trials=5)
    with pytest.raises(ConflictError, match="belongs to a run with proxy 'table "):
        run(tmp_path / "run", trials=5, rows=table()[:-10])


def test_from_a_file_to_a_front(tmp_path):
    path = tmp_path / "trainings.csv"
    write_table(path, table())
    settings = RunSettings(target="iphone12", budget=6_000_000, proxy=f"table:{path}", trials=6, final_seeds=1)
    plan = prepare(settings)
    assert (plan.data, plan.recipe) == (None, None)
    assert plan.pins()["data"] is None
    document = run_search(settings, RunFolder(tmp_path / "run"))
    assert document["trained"] + document["failed"] == 6
    assert RunFolder(tmp_path / "run").read_run()["data"] is None


def test_what_is_predicted_over_the_limit_is_no_candidate_of_the_table(tmp_path):
    write_table(tmp_path / "t.csv", table())
    target = load_target("iphone12")
    fitting = [c for c in (*CONFIGS[:11], PRESETS["mobilevit-xs"]) if not LIMITS.excess(c)]
    latencies = sorted(target.latency(config).ms for config in fitting)
    settings = RunSettings(
        target="iphone12", budget=6_000_000, proxy=f"table:{tmp_path}/t.csv", trials=30, final_seeds=1,
        max_latency_ms=latencies[5],
    )  # fmt: skip
    document = run_search(settings, RunFolder(tmp_path / "run"))
    assert document["ended_by"] == "space exhausted"
    assert "over a limit" not in document["failures"]
    assert {record.latency_ms for record in RunFolder(tmp_path / "run").records()} == {*latencies[:6]}


def load(path, argument="", space=SPACE, limits=LIMITS):
    return load_replay(f"{path}{argument}", space, limits, seed=0, seeds=3)


def test_a_fidelity_is_named_or_the_longest(tmp_path):
    path = tmp_path / "t.csv"
    short = [row(config, fidelity="short", epochs=2, epoch=2) for config in CONFIGS[:3]]
    scores = [
        row(CONFIGS[0], fidelity="zero-cost:zen", epoch=0, epochs=9, top1=None, loss=None, score=3.0)
    ]  # fmt: skip
    write_table(path, [*short, *table(), *scores])
    assert load(path).digest == load(path, "#long").digest != load(path, "#short").digest
    assert not load(path, "#short").knows(CONFIGS[5])
    with pytest.raises(InputError, match=r"has no fidelity 'middle'; it has long, short"):
        load(path, "#middle")
    write_table(path, [*table(), *(row(config, fidelity="other") for config in CONFIGS[:3])])
    with pytest.raises(InputError, match=r"has 2 fidelities of 4 epochs: long, other; say which, for example .*#long"):
        load(path)


def test_tables_that_no_search_can_be_run_on(tmp_path):
    path = tmp_path / "t.csv"
    write_table(path, table())
    outside = r"candidate [0-9a-f]{12} lies outside space mobilevit-mini \(.*; name the --space"
    with pytest.raises(InputError, match=outside):
        load(path, space=load_space("mobilevit-mini"))
    with pytest.raises(InputError, match=r"none of its 12 candidates inside space mobilevit is within the limits"):
        load(path, limits=Limits(1000, 1000))
    write_table(path, [row(CONFIGS[0], epoch=0, top1=None, loss=None, score=1.0, fidelity="zero-cost:zen")])
    with pytest.raises(InputError, match="holds no training"):
        load(path)
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path / "none.csv", "#long")


def test_a_preset_outside_the_space_stands_beside_the_front(tmp_path):
    mini = load_space("mobilevit-mini")
    rng = random.Random(0)
    inside = [mini.config(mini.draw(rng)) for _ in range(5)]
    size = mini.image_size_max
    xs = PRESETS["mobilevit-xs"].with_image_size(*size)
    rows = [row(xs, name="mobilevit-xs"), *map(row, inside)]
    document = run(tmp_path / "run", rows=rows, space="mobilevit-mini", final_seeds=1)
    assert document["trained"] == 1 + len({config.digest() for config in inside})
    assert [b["outcome"] for b in document["baselines"]] == ["not trained", "trained", "not trained"]
