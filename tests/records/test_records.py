import csv
import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvit_search.architecture import PRESETS
from mvit_search.errors import InputError, UnknownNameError
from mvit_search.profile import cost
from mvit_search.records import (
    Evaluated,
    LatencyFact,
    Record,
    RunFolder,
    best,
    best_within,
    find_run,
    hypervolume,
    knee,
    pareto_front,
    resolve,
)


def make_record(number: int, latency_ms: float, *top1: float, name: str | None = None) -> Record:
    config = PRESETS["mobilevit-xs"].with_image_size(64 + number)
    costs = cost(config)
    return Record(
        number=number,
        name=name,
        origin="sampler",
        outcome="trained" if top1 else "failed",
        digest=config.digest(),
        config=config,
        params=costs.params,
        macs=costs.macs,
        weight_bytes=costs.weight_bytes,
        peak_activation_bytes=costs.peak_activation_bytes,
        latency=LatencyFact(
            ms=latency_ms,
            low_ms=0.9 * latency_ms,
            high_ms=1.1 * latency_ms,
            source="predicted: x",
            target="x",
            protocol="p",
        ),
        top1_by_seed=dict(enumerate(top1)),
        error=None if top1 else 'loss, "nan"\n',
    )


points = st.lists(st.tuples(st.integers(1, 20), st.integers(0, 20)), max_size=25)


@given(points)
def test_the_front_is_what_no_other_dominates(raw):
    records = [make_record(i, float(ms), top1 / 20) for i, (ms, top1) in enumerate(raw)]
    front = pareto_front(records)
    values = {(r.latency_ms, r.top1) for r in records}
    wanted = {
        (ms, top1)
        for ms, top1 in values
        if not any((m <= ms and t >= top1) and (m, t) != (ms, top1) for m, t in values)
    }
    assert [(r.latency_ms, r.top1) for r in front] == sorted(wanted)


@given(points)
def test_hypervolume_equals_counting_cells(raw):
    dominated = sum(any(ms <= x and top1 > y for ms, top1 in raw if ms < 20) for x in range(20) for y in range(20))
    found = hypervolume([(float(ms), top1 / 20) for ms, top1 in raw], 20.0)
    assert found == pytest.approx(dominated / 400)


def test_failed_records_are_not_on_the_front():
    assert pareto_front([make_record(0, 1.0), make_record(1, 2.0, 0.5)])[0].number == 1


def test_mean_and_spread_over_seeds():
    record = make_record(0, 1.0, 0.5, 0.7)
    assert record.top1 == pytest.approx(0.6)
    assert record.top1_std == pytest.approx(0.1414, abs=1e-4)
    assert make_record(0, 1.0, 0.5).top1_std is None


def test_best_knee_and_limit():
    front = [make_record(0, 1.0, 0.2), make_record(1, 2.0, 0.8), make_record(2, 9.0, 0.9)]
    assert best(front).number == 2
    assert knee(front).number == 1
    assert knee(front[:2]).number == 1
    assert best_within(front, 3).number == 1
    assert best_within(front, 0.5) is None


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path / "results" / "demo")
    folder.path.mkdir(parents=True)
    records = [
        make_record(0, 4.0, 0.5, 0.6, name="mobilevit-xs"), make_record(1, 3.0, 0.4), make_record(2, 2.0),
        make_record(3, 8.0, 0.9),
    ]  # fmt: skip
    folder.write_run({"settings": {}})
    folder.write_results({"front": []}, records)
    folder.kept = records
    return folder


def test_candidates_survive_the_file(folder):
    assert list(folder.records()) == [r.model_copy(update={"error": r.error}) for r in folder.kept]


def test_selectors(folder):
    assert folder.select("2").number == 2
    assert folder.select("best").number == 3
    assert folder.select("@5ms").number == 0
    assert folder.select("@3.5").number == 1
    for selector, message in (
        ("9", "the run has the numbers 0 to 3"),
        ("@1ms", "the fastest on the front takes 3.00 ms"),
        ("@0ms", "must be above zero"),
        ("bset", "did you mean 'best'"),
        ("²", "unknown candidate"),
    ):
        with pytest.raises(InputError, match=message):
            folder.select(selector)


def test_references(folder, tmp_path):
    results = folder.path.parent
    assert resolve("mobilevit-s", results).config == PRESETS["mobilevit-s"]
    assert resolve("demo/3", results).record.number == 3
    assert resolve("demo/0", results).name == "demo/0"
    assert resolve(f"{folder.path}/best", tmp_path / "elsewhere").record.number == 3
    document = tmp_path / "mine.json"
    document.write_text(json.dumps(PRESETS["mobilevit-xxs"].model_dump(mode="json")))
    assert resolve(str(document), results).config == PRESETS["mobilevit-xxs"]
    yaml_file = tmp_path / "mine.yaml"
    yaml_file.write_text(document.read_text())
    assert resolve(str(yaml_file), results).name == "mine"
    capitals = document.rename(tmp_path / "MINE.JSON")
    assert resolve(str(capitals), results).config == PRESETS["mobilevit-xxs"]


@pytest.mark.parametrize(
    ("reference", "error", "message"),
    [
        ("mobilevit-m", UnknownNameError, "did you mean 'mobilevit-"),
        ("demo", InputError, "say which candidate: demo/best"),
        ("dmo/1", UnknownNameError, "did you mean 'demo'"),
        ("nothing.json", InputError, "there is no such file"),
    ],
)
def test_bad_references(folder, reference, error, message):
    with pytest.raises(error, match=message):
        resolve(reference, folder.path.parent)


@pytest.mark.parametrize("name", ["base", "base.toml"])
def test_a_config_file_of_another_suffix_is_told_so(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"must end in \.yaml, \.yml or \.json"):
        resolve(str(tmp_path / name), tmp_path)


@pytest.mark.parametrize("reference", ["locked/best", "locked/foo/best", "locked"])
def test_a_folder_that_may_not_be_entered_is_one_line(tmp_path, monkeypatch, reference):
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(InputError, match=r"cannot be read \(Permission denied\)$"):
        resolve(reference, tmp_path)


@pytest.mark.parametrize("name", ["mine.yaml", "mine.json"])
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"num_heads": 4', '"num_head": 4', r"31: stages.2.num_head: unknown key; did you mean 'num_heads'\?"),
        (
            '"num_heads": 4',
            '"num_heads": 5',
            r"31: stages.2.num_heads: transformer_dim 64 must be divisible by num_heads 5",
        ),
        ('"activation": "silu"', '"activation": "gelu"', r"8: activation 'gelu': input should be"),
    ],
)
def test_a_mistake_in_a_config_file_has_its_line(tmp_path, name, old, new, message):
    text = json.dumps(PRESETS["mobilevit-xxs"].model_dump(mode="json"), indent=2)
    path = tmp_path / name
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=rf"^config {name}:{message}"):
        resolve(str(path), tmp_path)
    path.write_text(text.replace(old, new, 1).replace("  ", "\t"))
    if name == "mine.json":
        # YAML knows no tabs, so such a file has no lines to tell.
        with pytest.raises(InputError, match=rf"^config mine.json: {message.partition(' ')[2]}"):
            resolve(str(path), tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '"x"', "[" * 5000])
def test_a_broken_config_file_is_one_line(tmp_path, text):
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        resolve(str(path), tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "ref\nx/1\n", "ref,config\nx/1,{}\n"], ids=("empty", "column", "columns"))
def test_a_broken_candidates_file_is_one_line(folder, text):
    (folder.path / "candidates.csv").write_text(text)
    with pytest.raises(InputError, match="cannot be read"):
        folder.records()


def test_a_candidates_file_cut_anywhere_is_whole_rows_or_one_line(folder):
    path = folder.path / "candidates.csv"
    whole = path.read_text()
    for end in range(len(whole)):
        path.write_text(whole[:end])
        with suppress(InputError):
            found = list(folder.records())
            assert found == folder.kept[: len(found)]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"front": NaN}', "[" * 100_000])
def test_a_broken_front_file_is_one_line(folder, text):
    (folder.path / "front.json").write_text(text)
    with pytest.raises(InputError) as caught:
        folder.read_front()
    assert "\n" not in str(caught.value)


def test_a_record_without_a_latency_survives_the_file(folder):
    failed = folder.kept[2].model_copy(update={"latency": None})
    folder.write_results({"front": []}, [failed])
    assert list(folder.records()) == [failed]


def test_what_halving_knows_survives_the_file(folder):
    rungs = [Evaluated(seed=0, rung=n, epochs=3**n, value=0.1 * n, seconds=1.5, begun=n, ended=9 - n) for n in range(2)]
    stopped = folder.kept[1].model_copy(update={"outcome": "stopped", "top1_by_seed": {}, "evaluations": tuple(rungs)})
    over = folder.kept[3].model_copy(update={"within": False})
    failed = folder.kept[2].model_copy(update={"failure": "out of memory"})
    folder.write_results({"front": []}, [stopped, over, failed])
    assert list(folder.records()) == [stopped, over, failed]
    assert (folder.path / "front.csv").read_text().count("\n") == 1


@pytest.mark.parametrize(
    "lacking", [("failure", "within", "evaluations"), ("failure", "within", "evaluations", "largest_batch")]
)
def test_files_of_older_runs_are_read(folder, lacking):
    path = folder.path / "candidates.csv"
    with path.open(newline="") as stream:
        rows = [{key: cell for key, cell in row.items() if key not in lacking} for row in csv.DictReader(stream)]
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert list(folder.records()) == folder.kept


def test_the_reference_run_is_read():
    records = RunFolder(Path(__file__).parents[2] / "results/reference/cifar10-first-run").records()
    assert len(records) == 14
    assert all(record.within and not record.evaluations for record in records)


def test_selectors_go_by_what_the_run_optimised(folder):
    # In latency number 0 is not on the front (2 is as accurate and faster); in parameters alone it is.
    records = [make_record(0, 5.0, 0.6), make_record(1, 4.0, 0.9), make_record(2, 3.0, 0.8), make_record(3, 9.0, 0.95)]
    params = dict(enumerate((1_000_000, 2_000_000, 3_000_000, 9_000_000)))
    records = [record.model_copy(update={"params": params[record.number]}) for record in records]
    folder.write_results({"objectives": ["top1", "params"]}, records)
    assert folder.objectives() == ("top1", "params")
    assert folder.select("knee").number == 1
    assert "demo/0," in (folder.path / "front.csv").read_text()
    assert folder.select("@3ms").number == 2
    folder.write_results({}, records)
    assert folder.objectives() == ("top1", "latency_ms")
    assert "demo/0," not in (folder.path / "front.csv").read_text()


@pytest.mark.parametrize("objectives", [["top1", "speed"], "top1", [1, 2], ["top1"], None])
def test_a_front_file_of_odd_objectives_is_one_line(folder, objectives):
    (folder.path / "front.json").write_text(json.dumps({"objectives": objectives}))
    with pytest.raises(InputError) as told:
        folder.select("best")
    assert "\n" not in str(told.value)


def test_a_front_at_hand_is_not_looked_up_again(folder):
    folder.write_results({"front": []}, folder.kept, folder.kept[:1])
    assert (folder.path / "front.csv").read_text().count("demo/") == 1


def test_an_interrupted_write_leaves_the_old_file(folder, monkeypatch):
    before = (folder.path / "front.json").read_text()
    monkeypatch.setattr("mvit_search._files.os.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        folder.write_results({"front": [1]}, folder.kept)
    assert (folder.path / "front.json").read_text() == before
    assert not list(folder.path.glob(".*.json*"))


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(UnknownNameError):
        find_run("nothing", tmp_path)
    with pytest.raises(InputError, match="is it the folder of a run"):
        RunFolder(tmp_path).read_run()


def scored(number: int, latency_ms: float, *scores: float) -> Record:
    plain = make_record(number, latency_ms, 0.5)
    values = {"outcome": "scored", "top1_by_seed": {}, "score_by_seed": dict(enumerate(scores))}
    return Record.model_validate({**plain.model_dump(), **values})


def test_a_score_takes_the_place_of_top1_and_is_never_called_so(tmp_path):
    records = [scored(0, 5.0, -70.5, -71.5), scored(1, 4.0, -80.0), make_record(2, 3.0)]
    front = pareto_front(records)
    assert [r.number for r in front] == [1, 0]
    assert best(front) is records[0]
    row = records[0].row("run")
    assert (row["top1"], row["top1_std"], row["top1_by_seed"]) == (None, None, {})
    assert (row["score"], row["score_by_seed"]) == (-71.0, {"0": -70.5, "1": -71.5})
    assert row["score_std"] == pytest.approx(0.5**0.5)
    assert "score" not in make_record(0, 1.0, 0.5).row("run")
    folder = RunFolder(tmp_path)
    folder.write_results({}, records)
    assert folder.records() == tuple(records)
    folder.write_results({}, [make_record(0, 1.0, 0.5)])
    assert "score" not in (tmp_path / "candidates.csv").read_text().partition("\n")[0].split(",")


@pytest.mark.parametrize("change", [{"score_by_seed": {}}, {"top1_by_seed": {0: 0.5}}, {"latency": None}])
def test_a_scored_record_is_whole(change):
    with pytest.raises(ValueError, match="record has"):
        Record.model_validate({**scored(0, 1.0, 3.0).model_dump(), **change})
