"""Beginning with another run's records or candidates, taking trainings from memory, and repeating a run's events."""

import json
import shutil

import pytest

from mvit_search.architecture import PRESETS
from mvit_search.errors import ConflictError, InputError
from mvit_search.records import RunFolder
from mvit_search.search import Evaluation, RunSettings, prepare, run_search
from mvit_search.search.earlier import load_earlier
from mvit_search.search.following import Script
from tests.search.fakes import AtOnce, FormulaEvaluator, make_plan, search

SMALL = {"target": "iphone12", "budget": 3_000_000, "images": 100, "trials": 8, "epochs": 1, "final_seeds": 2}


class Recorded:
    """Mirrors `Recall`: answers from what it was given, and writes down what it is told."""

    def __init__(self, known=()):
        self.known, self.asked = dict(known), []

    def get(self, task):
        self.asked.append((task.config.digest(), task.seed, task.rung))
        found = self.known.get(self.asked[-1])
        return None if found is None else found._replace(remembered=True)

    def put(self, task, evaluation):
        key = task.config.digest(), task.seed, task.rung
        assert key not in self.known
        self.known[key] = evaluation


@pytest.mark.parametrize("settings", [{}, {"fidelity": "halving", "rungs": "1,3,9"}], ids=["full", "halving"])
def test_what_is_known_is_not_trained_again_and_the_front_is_the_same(tmp_path, settings):
    top = 2 if settings else 0
    memory, first, second = Recorded(), FormulaEvaluator(top=top), FormulaEvaluator(top=top)
    wanted = search(tmp_path / "a", first, memory=memory, trials=14, **settings)
    assert set(memory.known) == set(first.climbed)
    found = search(tmp_path / "b", second, memory=Recorded(memory.known), trials=14, **settings)
    assert second.climbed == []
    assert found["remembered"] == wanted["trainings"] == len(first.climbed)
    assert found["trainings"] == 0
    assert [row["digest"] for row in found["front"]] == [row["digest"] for row in wanted["front"]]
    assert all(e["remembered"] for row in found["front"] for e in row["evaluations"])


def test_failures_are_not_kept_for_others(tmp_path):
    memory = Recorded()
    search(tmp_path / "a", FormulaEvaluator(fails=lambda c, s: int(c.digest(), 16) % 3 == 0), memory=memory, trials=12)
    assert memory.known
    assert all(evaluation.value is not None for evaluation in memory.known.values())


def run(path, evaluator=None, **settings):
    return run_search(RunSettings(**{**SMALL, **settings}), RunFolder(path), evaluator=evaluator or FormulaEvaluator())


@pytest.fixture(scope="module")
def older(tmp_path_factory):
    path = tmp_path_factory.mktemp("results") / "older"
    run(path)
    return path


def test_candidates_of_another_run_come_first_and_are_trained_anew(older, tmp_path):
    evaluator = FormulaEvaluator()
    document = run(older.parent / "configs", evaluator, configs_from="older", seed=1)
    records = RunFolder(older.parent / "configs").records()
    taken = [record for record in records if record.origin == "earlier"]
    best = json.loads((older / "front.json").read_text())["front"]
    assert taken
    assert {record.digest for record in taken} <= {record.digest for record in RunFolder(older).records()}
    assert {row["digest"] for row in best if row["name"] is None} & {record.digest for record in taken}
    assert all((record.digest, 1) in evaluator.done for record in taken)
    assert document["remembered"] == 0


def test_records_of_another_run_are_taken_with_their_values(older):
    plan = make_plan(budget=3_000_000)
    run_pins = RunFolder(older).read_run()["pins"]
    assert load_earlier(RunFolder(older), plan, with_values=False).values == {}
    with pytest.raises(InputError, match=r"--from 'older': was trained with another (data|recipe).*--configs-from"):
        load_earlier(RunFolder(older), plan, with_values=True)
    same = plan._replace(data=plan.data)
    pins = {**same.pins(), **{key: run_pins[key] for key in ("data", "recipe", "fidelity")}}

    class Alike:
        def __getattr__(self, name):
            return getattr(plan, name)

        def pins(self):
            return pins

    found = load_earlier(RunFolder(older), Alike(), with_values=True)
    records = RunFolder(older).records()
    assert len(found.configs) == len(records)
    for record in records:
        for evaluated in record.evaluations:
            key = record.digest, evaluated.seed, evaluated.rung
            assert found.values[key] == Evaluation(
                evaluated.value, evaluated.seconds, image_steps=evaluated.image_steps, remembered=True
            )


def test_another_run_without_a_candidate_that_fits(older):
    plan = make_plan(budget=450_000)
    with pytest.raises(InputError, match="has no candidate inside space mobilevit and the limits"):
        load_earlier(RunFolder(older), plan, with_values=False)


def test_a_run_is_repeated_from_its_events(older):
    evaluator = FormulaEvaluator()
    document = run(older.parent / "older-replay", evaluator, replay_run="older")
    assert document["replay"] == {"of": "older", "valuations": len(evaluator.done), "same": len(evaluator.done)}
    first, second = (RunFolder(older.parent / name).records() for name in ("older", "older-replay"))
    assert [r.digest for r in first] == [r.digest for r in second]
    assert [r.top1_by_seed for r in first] == [r.top1_by_seed for r in second]


def test_a_repetition_that_comes_to_something_else_says_how_much(older):
    class Other(FormulaEvaluator):
        def evaluate(self, task):
            found = super().evaluate(task)
            return found._replace(value=found.value + 0.01) if task.seed else found

    document = run(older.parent / "other-replay", Other(), replay_run="older")
    replay = document["replay"]
    assert 0 < replay["same"] < replay["valuations"]


def test_a_repetition_that_is_interrupted_goes_on(older):
    with pytest.raises(KeyboardInterrupt):
        run(older.parent / "cut-replay", FormulaEvaluator(interrupt_at=5), replay_run="older")
    resumed = FormulaEvaluator()
    document = run(older.parent / "cut-replay", resumed, replay_run="older")
    assert document["replay"]["same"] == document["replay"]["valuations"]
    assert len(resumed.done) == document["replay"]["valuations"] - 5


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"replay_run": "older", "seed": 1}, r"--replay 'older': was made with another (data|seed)"),
        ({"replay_run": "none"}, "unknown run"),
        ({"replay_run": "older", "budget": 4_000_000}, r"was made with another budget \(3000000, not 4000000\)"),
    ],
)
def test_repetitions_that_cannot_be(older, settings, words):
    with pytest.raises(InputError, match=words):
        run(older.parent / "refused", **settings)
    assert not (older.parent / "refused").exists()


def test_results_are_not_overwritten_with_those_of_another_storage(older, tmp_path):
    before = (older / "front.json").read_bytes()
    url, other = f"sqlite:///{tmp_path}/a.db", f"sqlite:///{tmp_path}/b.db"
    with pytest.raises(ConflictError, match=r"kept in a file in the folder, and sqlite.*/a\.db has none of it"):
        run(older, storage=url, budget=4_000_000)
    assert (older / "front.json").read_bytes() == before
    stored = tmp_path / "stored"
    run(stored, storage=url)
    for storage in (None, other):
        with pytest.raises(ConflictError, match=r"belongs to a run whose study is kept in sqlite.*/a\.db"):
            run(stored, storage=storage)
    assert not (stored / "study.journal").exists()
    evaluator = FormulaEvaluator()
    run(stored, evaluator, storage=url)
    assert evaluator.done == []


@pytest.mark.parametrize("settings", [{"from_run": "older"}, {"configs_from": "older"}])
def test_a_run_does_not_begin_with_itself(older, settings):
    with pytest.raises(InputError, match=r"-from 'older': is the run that would be written; give another --name"):
        run(older, **settings)


def test_values_of_another_seed_are_none_of_this_run(older, tmp_path):
    plan = make_plan(budget=3_000_000, seed=1)
    other = RunFolder(tmp_path / "other")
    shutil.copytree(older, other.path)
    other.write_run({**other.read_run(), "pins": {**plan.pins(), "seed": 0}})
    with pytest.raises(InputError, match=r"with another seed \(0, not 1\); give --configs-from other"):
        load_earlier(other, plan, with_values=True)


def test_a_repetition_in_which_others_fail_goes_on(tmp_path):
    settings = {"fidelity": "halving", "rungs": "1,2,3", "epochs": 3}
    run(tmp_path / "older", FormulaEvaluator(top=2), **settings)
    steps = Script.of(RunFolder(tmp_path / "older")).steps
    climbed = next(step.digest for step in steps if step.rung == 1)
    failing = FormulaEvaluator(top=2, fails=lambda config, seed: config.digest() == climbed)
    document = run(tmp_path / "replayed", failing, replay_run="older", **settings)
    assert document["failed"] == 1
    lost = sum(step.digest == climbed for step in steps)
    assert document["replay"] == {"of": "older", "valuations": len(steps), "same": len(steps) - lost}


def test_a_repetition_of_trainings_at_once_that_failed_with_one_seed(tmp_path):
    def fails(config, seed):
        return seed == 2 and config != PRESETS["mobilevit-xxs"]

    settings = {"trials": 4, "final_seeds": 3}
    plan = prepare(RunSettings(**{**SMALL, **settings}))
    search(tmp_path / "older", engine=AtOnce(FormulaEvaluator(fails=fails), capacity=20), plan=plan)
    replay = run(tmp_path / "replayed", FormulaEvaluator(fails=fails), replay_run="older", **settings)["replay"]
    assert replay["same"] == replay["valuations"]
    older, newer = (RunFolder(tmp_path / name).records() for name in ("older", "replayed"))
    assert any(r.outcome == "failed" and r.evaluations[-1].value is not None for r in older)
    assert [(r.digest, r.outcome, r.top1_by_seed) for r in older] == [
        (r.digest, r.outcome, r.top1_by_seed) for r in newer
    ]


@pytest.mark.parametrize("content", ["", "garbage\n", "[1]\n", '{"kind": "ask"}\n'])
def test_logs_that_are_none(tmp_path, content):
    (tmp_path / "events.jsonl").write_text(content)
    with pytest.raises(InputError):
        Script.of(RunFolder(tmp_path))
