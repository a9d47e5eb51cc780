"""Whole runs with successive halving: who climbs, what is trained, what enters the front, when a kill comes."""

import json
from collections import Counter
from contextlib import suppress

import pytest

from mvit_search.records import RunFolder
from mvit_search.search import Store
from mvit_search.search.events import read_events
from tests.search.fakes import FormulaEvaluator, Killed, make_plan, search

SETTINGS = {"trials": 24, "budget": 6_000_000, "fidelity": "halving", "rungs": "1,3,9", "eta": 3, "final_seeds": 2}


def evaluator(**settings):
    return FormulaEvaluator(top=2, **settings)


@pytest.fixture(scope="module")
def climbed(tmp_path_factory):
    """(folder, evaluator, document) of a run that nothing disturbed."""
    path = tmp_path_factory.mktemp("climbed") / "run"
    worker = evaluator()
    document = search(path, worker, **SETTINGS)
    return RunFolder(path), worker, document


def test_of_eta_candidates_one_goes_on(climbed):
    folder, worker, document = climbed
    records = folder.records()
    searched = Counter(rung for _, seed, rung in worker.climbed if seed == 0)
    presets = 3
    assert len(records) == searched[0] == 24
    assert searched[1] == presets + 7  # a third of the other 21
    assert searched[2] == presets + 3
    assert (document["trained"], document["stopped"], document["failed"]) == (6, 18, 0)
    assert document["ladder"] == ["1", "3", "9"]
    assert document["eta"] == 3


def test_nothing_is_trained_twice_and_rungs_begin_with_the_weights_below(tmp_path):
    starts = []

    class Noting(FormulaEvaluator):
        def evaluate(self, task):
            starts.append((task.rung, task.start_rung, task.start is not None and task.start.exists(), task.seed))
            return super().evaluate(task)

    worker = Noting(top=2)
    search(tmp_path / "run", worker, **SETTINGS)
    assert len(set(worker.climbed)) == len(worker.climbed)
    for rung, start_rung, there, seed in starts:
        assert start_rung == (rung - 1 if seed == 0 else -1)
        assert there == (seed == 0 and rung > 0)
    assert not list((tmp_path / "run" / "checkpoints").glob("**/*.safetensors"))


def test_only_the_full_fidelity_enters_the_front(climbed):
    folder, _, document = climbed
    by_number = {record.number: record for record in folder.records()}
    for row in document["front"]:
        record = by_number[int(row["ref"].rpartition("/")[2])]
        assert record.outcome == "trained"
        assert [e.rung for e in record.evaluations if e.seed == 0] == [0, 1, 2]
        assert set(record.top1_by_seed) == {0, 1}
        assert record.top1_by_seed[0] == next(e.value for e in record.evaluations if e.rung == 2 and e.seed == 0)
    stopped = [record for record in by_number.values() if record.outcome == "stopped"]
    assert all(record.evaluations and not record.top1_by_seed for record in stopped)
    with Store.open(folder, make_plan().shape) as store:
        states = Counter(trial.state.name for trial in store.trials)
    assert states == {"COMPLETE": 6, "PRUNED": 18}


def test_the_log_of_events_is_whole_and_in_order(climbed):
    folder, worker, _ = climbed
    events = read_events(folder.path / "events.jsonl")
    assert [event["event"] for event in events] == list(range(len(events)))
    kinds = Counter(event["kind"] for event in events)
    assert kinds["ask"] == 24
    assert kinds["end"] == kinds["begin"] + kinds["promote"] == len(worker.climbed)
    assert kinds["promote"] == 7 + 3
    ends = [(event["digest"], event["seed"], event["rung"]) for event in events if event["kind"] == "end"]
    assert ends == worker.climbed


@pytest.mark.parametrize("sampler", ["nsga2", "tpe"])
@pytest.mark.parametrize("kill_at", [0, 3, 9, 17, 26, 33, 41, 46])
def test_killed_then_resumed_equals_uninterrupted(tmp_path, climbed, sampler, kill_at):
    _, whole, wanted = climbed
    settings = {**SETTINGS, "sampler": sampler}
    if sampler != "nsga2":
        whole = evaluator()
        wanted = search(tmp_path / "whole", whole, **settings)
    killed, resumed = evaluator(kill_at=kill_at), evaluator()
    with suppress(Killed):
        search(tmp_path / "run", killed, **settings)
    found = search(tmp_path / "run", resumed, **settings)
    assert killed.climbed + resumed.climbed == whole.climbed
    assert _without_place(found) == _without_place(wanted)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.7, 0.83, 0.97])
def test_a_journal_cut_anywhere_carries_on_alike(tmp_path, climbed, share):
    folder, whole, wanted = climbed
    journal = folder.study_file.read_bytes().splitlines(keepends=True)
    line = int(share * len(journal))
    run = tmp_path / "run"
    run.mkdir()
    (run / "study.journal").write_bytes(b"".join(journal[:line]) + journal[line][:15])
    resumed = evaluator()
    found = search(run, resumed, **SETTINGS)
    assert _without_place(found) == _without_place(wanted)
    known = sum(b'"candidate:' in entry for entry in journal[:line])
    assert resumed.climbed == whole.climbed[known:]


def test_a_small_run_ends_with_somebody_at_the_top(tmp_path):
    document = search(tmp_path / "run", evaluator(), **{**SETTINGS, "trials": 4, "budget": 1_000_000})
    assert document["trained"] >= 1
    assert document["front"]


def test_a_longer_run_goes_on_and_may_promote_who_was_stopped(tmp_path):
    first = search(tmp_path / "run", evaluator(), **{**SETTINGS, "trials": 12})
    more = evaluator()
    second = search(tmp_path / "run", more, **SETTINGS)
    assert second["trained"] + second["stopped"] == 24
    assert second["trained"] >= first["trained"]
    assert len(set(more.climbed)) == len(more.climbed)


def test_who_fails_on_the_way_is_a_failed_candidate_and_is_not_promoted(tmp_path):
    class Failing(FormulaEvaluator):
        def evaluate(self, task):
            found = super().evaluate(task)
            if task.rung == 1 and int(task.config.digest(), 16) % 2:
                return found._replace(value=None, error="loss is nan in epoch 2")
            return found

    worker = Failing(top=2)
    document = search(tmp_path / "run", worker, **SETTINGS)
    failed = [record for record in RunFolder(tmp_path / "run").records() if record.outcome == "failed"]
    assert document["failed"] == len(failed) > 0
    assert document["failures"] == {"error": len(failed)}
    assert all(record.evaluations[0].value is not None and record.evaluations[-1].value is None for record in failed)
    assert len(set(worker.climbed)) == len(worker.climbed)


def test_time_that_runs_out_leaves_somebody_at_the_top(tmp_path):
    worker = evaluator()
    settings = {**SETTINGS, "trials": 1000, "time_s": 60}
    document = search(tmp_path / "run", worker, clock=lambda: float(len(worker.done)), **settings)
    assert document["ended_by"] == "time"
    assert document["trained"] >= 4
    assert len(worker.done) <= 61


def test_a_run_without_time_for_all_promotions_ended_by_time(tmp_path):
    worker = evaluator()
    settings = {**SETTINGS, "trials": 30, "time_s": 1000, "final_seeds": 1}

    def clock():  # late once all candidates are begun
        return 900.0 if sum(rung == 0 for _, _, rung in worker.climbed) == 30 else 0.0

    document = search(tmp_path / "run", worker, clock=clock, **settings)
    assert document["trained"] + document["stopped"] == 30
    assert document["ended_by"] == "time"
    longer = search(tmp_path / "run", evaluator(), **{**settings, "time_s": 1e6})
    assert longer["ended_by"] == "trials"
    assert longer["trained"] > document["trained"]


def _without_place(document):
    text = json.dumps({k: v for k, v in document.items() if k not in ("run", "directory")})
    return json.loads(text.replace('"whole/', '"run/').replace('["whole', '["run'))
