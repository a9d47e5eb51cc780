import itertools
import json
import re
from contextlib import suppress

import pytest

from mvit_search.architecture import PRESETS
from mvit_search.errors import TargetUnavailable, WorkError
from mvit_search.latency import Latency, PredictedTarget
from mvit_search.profile.cost import params_of
from mvit_search.records import RunFolder
from mvit_search.search import Store
from mvit_search.search.run import describe
from mvit_search.search.samplers import SAMPLERS
from tests.search.fakes import AtOnce, FormulaEvaluator, Killed, make_plan, search

TINY_SPACE = """
description: four candidates
image_size: [64, 64]
stem_channels: 16
head_expansion: 2
activation: silu
stages:
  - {kind: conv, out_channels: {choices: [16, 24]}, num_blocks: {low: 1, high: 2}, stride: 2, expand_ratio: 2}
"""


WIDE = [name for name in SAMPLERS if name not in ("grid", "gp")]
"""Samplers of any space, in time for tests; the others are held to theirs in test_samplers.py."""


@pytest.mark.parametrize("sampler", WIDE)
def test_contract_of_every_sampler(tmp_path, sampler):
    """Trains what was asked, never over budget, nothing twice, presets first, and the same again with the same seed."""
    evaluator, again = FormulaEvaluator(), FormulaEvaluator()
    document = search(tmp_path / "a", evaluator, sampler=sampler, trials=16, budget=4_000_000)
    records = RunFolder(tmp_path / "a").records()
    assert document["trained"] == len(records) == 16
    assert all(params_of(record.config) <= 4_000_000 for record in records)
    assert [record.name for record in records[:3]] == ["mobilevit-xxs", "mobilevit-xs", None]
    assert len(set(evaluator.done)) == len(evaluator.done)
    search(tmp_path / "b", again, sampler=sampler, trials=16, budget=4_000_000)
    assert again.done == evaluator.done


def test_the_front_has_every_seed_and_the_presets_stand_beside_it(tmp_path):
    document = search(tmp_path / "run", trials=12, budget=3_000_000, final_seeds=3)
    assert document["state"] == "finished"
    assert document["ended_by"] == "trials"
    assert all(len(row["top1_by_seed"]) == 3 and row["top1_std"] > 0 for row in document["front"])
    outcomes = {row["name"]: row["outcome"] for row in document["baselines"]}
    assert outcomes == {"mobilevit-xxs": "trained", "mobilevit-xs": "trained", "mobilevit-s": "over budget"}
    trained = [row for row in document["baselines"] if row["outcome"] == "trained"]
    assert all(len(row["top1_by_seed"]) == 3 for row in trained)
    over = document["baselines"][2]
    assert over["top1"] is None
    assert over["latency_ms"] > 0
    latencies = [row["latency_ms"] for row in document["front"]]
    accuracies = [row["top1"] for row in document["front"]]
    assert latencies == sorted(latencies)
    assert accuracies == sorted(accuracies)
    assert json.loads((tmp_path / "run" / "front.json").read_text()) == document
    assert 0 < document["hypervolume"] < 1


def test_the_first_generation_spreads_over_the_budget(tmp_path):
    search(tmp_path / "run", trials=40, final_seeds=1)
    sizes = sorted(r.params for r in RunFolder(tmp_path / "run").records() if r.origin == "initial")
    assert len(sizes) == 20 - 3
    assert sizes[0] < 1_000_000
    assert sizes[-1] > 5_000_000


def test_rejected_proposals_cost_no_training_and_leave_a_count(tmp_path):
    evaluator = FormulaEvaluator()
    document = search(tmp_path / "run", evaluator, trials=12, budget=2_500_000, final_seeds=1, sampler="random")
    assert document["rejected"] > 20
    assert len(evaluator.done) == 12
    with Store.open(RunFolder(tmp_path / "run"), make_plan().shape) as store:
        assert len(store.trials) == 12
        assert sum(trial.user_attrs.get("rejected", 0) for trial in store.trials) == document["rejected"]


def test_presets_outside_the_space_are_trained_at_its_resolution(tmp_path):
    document = search(tmp_path / "run", space="mobilevit-mini", trials=8)
    assert [row["name"] for row in document["baselines"]] == ["mobilevit-xxs", "mobilevit-xs", "mobilevit-s"]
    assert all(row["config"]["image_size"] == [64, 64] and row["top1"] for row in document["baselines"])
    assert document["trained"] == 8


def test_a_space_of_tiny_images_has_no_preset_beside_it(tmp_path):
    space = tmp_path / "tiny.yaml"
    space.write_text(
        "description: tiny\nimage_size: 16\nstem_channels: 8\nhead_expansion: 2\nactivation: silu\nstages:\n"
        "  - {kind: conv, out_channels: {choices: [8, 16]}, num_blocks: 1, stride: 2, expand_ratio: 2}\n"
    )
    document = search(tmp_path / "run", space=str(space), trials=2, final_seeds=1)
    assert document["trained"] == 2
    assert document["baselines"] == []


def test_presets_of_the_other_family_are_trained_where_they_lie_inside():
    names = make_plan(space="mobilevit-v2").presets()
    assert set(names) == set(PRESETS)
    assert "mobilevitv2-1.0" not in make_plan(space="mobilevit-compound").presets()


CONDITIONAL_SPACE = """
description: softmax or separable attention, at two resolutions
knobs: {side: {choices: [64, 96]}, width: {choices: [0.5, 0.75, 1.0]}}
image_size: {knob: side}
stem_channels: 16
head_expansion: 2
activation: silu
stages:
  - {kind: conv, out_channels: {knob: width, times: 32, divisor: 8}, num_blocks: 1, stride: 2, expand_ratio: 2}
  - kind: mobilevit
    out_channels: 48
    stride: 2
    expand_ratio: 2
    attention: {choices: [softmax, separable]}
    transformer_dim: {choices: [32, 48, 64]}
    num_layers: {low: 1, high: 3}
    num_heads: {choices: [2, 4, 8], when: {attention: softmax}, otherwise: 1}
    ffn_ratio: 2
    patch_h: {choices: [2, 4]}
    patch_w: {field: patch_h}
    conv_kernel_size: 3
"""


@pytest.mark.parametrize("sampler", [*WIDE, "grid"])
def test_knobs_and_conditions_in_a_run_that_is_killed(tmp_path, sampler):
    """Every sampler learns a space with conditions, proposes each network once, and carries on after a kill."""
    path = tmp_path / "conditional.yaml"
    path.write_text(CONDITIONAL_SPACE)
    wanted = {"space": str(path), "sampler": sampler, "trials": 16, "final_seeds": 1, "budget": 6_000_000}
    whole, killed, resumed = FormulaEvaluator(), FormulaEvaluator(kill_at=12), FormulaEvaluator()
    document = search(tmp_path / "whole", whole, **wanted)
    records = RunFolder(tmp_path / "whole").records()
    proposed = [record.config for record in records if record.trial is not None]
    assert {config.image_size for config in proposed} == {(64, 64), (96, 96)}
    assert {config.stages[1].attention for config in proposed} == {"softmax", "separable"}
    assert len(set(whole.done)) == len(whole.done) == document["trained"] == 16
    with suppress(Killed):
        search(tmp_path / "run", killed, **wanted)
    again = search(tmp_path / "run", resumed, **wanted)
    assert killed.done + resumed.done == whole.done
    assert _without_place(again) == _without_place(document)


def test_a_space_that_is_used_up_ends_the_run(tmp_path):
    space = tmp_path / "tiny.yaml"
    space.write_text(TINY_SPACE)
    evaluator = FormulaEvaluator()
    document = search(tmp_path / "run", evaluator, space=str(space), trials=50, final_seeds=1)
    assert document["ended_by"] == "space exhausted"
    assert document["trained"] == 3 + 4
    assert document["duplicates"] > 0
    assert len(set(evaluator.done)) == len(evaluator.done) == 7


def test_a_failing_candidate_is_recorded_and_the_run_goes_on(tmp_path):
    bad = PRESETS["mobilevit-xs"].digest()
    evaluator = FormulaEvaluator(fails=lambda config, seed: config.digest() == bad)
    document = search(tmp_path / "run", evaluator, trials=10, final_seeds=2)
    records = RunFolder(tmp_path / "run").records()
    assert document["failed"] == 1
    assert document["trained"] == 9
    assert (records[1].outcome, records[1].error) == ("failed", "loss is nan in epoch 1")
    assert sum(digest == bad for digest, _ in evaluator.done) == 1
    assert document["baselines"][1]["outcome"] == "failed"


def test_a_candidate_that_fails_with_a_later_seed_leaves_the_front(tmp_path):
    document = search(tmp_path / "run", FormulaEvaluator(fails=lambda config, seed: seed == 1), trials=6, final_seeds=2)
    assert document["front"] == []
    assert document["failed"] == 6


def test_who_fails_with_one_seed_stays_failed_when_others_come_back_later(tmp_path):
    engine = AtOnce(FormulaEvaluator(fails=lambda c, s: s == 2), capacity=20)
    search(tmp_path / "run", engine=engine, trials=6, final_seeds=3)
    records = RunFolder(tmp_path / "run").records()
    failed = [record for record in records if any(e.value is None for e in record.evaluations)]
    assert any(record.evaluations[-1].value is not None for record in failed)
    for record in failed:
        assert record.outcome == "failed"
        assert record.error == "seed 2: loss is nan in epoch 1"
        assert sorted(e.seed for e in record.evaluations) == [0, 1, 2]


class Vanishing:
    """A measured target that answers so many times."""

    name, measured, calibration = "a phone", True, "one"

    def __init__(self, answers):
        self.answers = answers

    def latency(self, config, num_classes=1000):
        self.answers -= 1
        if self.answers < 0:
            raise TargetUnavailable("gone")
        return Latency(3.0, 3.0, 3.0, "measured: a phone", self.name, "by hand")


def test_with_workers_the_finals_are_trained_when_nothing_measures_any_more(tmp_path):
    plan = make_plan(engine="pool", trials=20, final_seeds=2)._replace(target=Vanishing(12))
    document = search(tmp_path / "run", engine=AtOnce(FormulaEvaluator(), capacity=3), plan=plan)
    assert document["ended_by"] == "target unavailable"
    assert document["front"]
    assert all(len(row["top1_by_seed"]) == 2 for row in document["front"])
    plan = plan._replace(target=Vanishing(30))
    assert search(tmp_path / "run", engine=AtOnce(FormulaEvaluator(), capacity=3), plan=plan)["trained"] == 20


def test_finals_are_carried_on_when_nothing_measures_any_more(tmp_path):
    plan = make_plan(trials=8, final_seeds=2)._replace(target=Vanishing(50))
    with suppress(Killed):
        search(tmp_path / "run", FormulaEvaluator(kill_at=8), plan=plan)
    document = search(tmp_path / "run", plan=plan._replace(target=Vanishing(0)))
    assert document["ended_by"] == "trials"
    assert {row["latency_ms"] for row in document["baselines"]} == {3.0}
    assert all(len(row["top1_by_seed"]) == 2 for row in document["front"])


def test_the_least_batch_of_all_seeds_is_told(tmp_path):
    class Short(FormulaEvaluator):
        def evaluate(self, task):
            return super().evaluate(task)._replace(largest_batch={0: 16, 1: 8, 2: None}[task.seed])

    document = search(tmp_path / "run", Short(), trials=6, final_seeds=3)
    assert document["front"]
    assert {row["largest_batch"] for row in document["front"]} == {8}


def test_a_run_in_which_all_fail_says_why(tmp_path):
    with pytest.raises(WorkError, match="none of 4 candidates could be trained: loss is nan in epoch 1"):
        search(tmp_path / "run", FormulaEvaluator(fails=lambda config, seed: True), trials=4)

    folder = RunFolder(tmp_path / "run")
    assert folder.read_front()["state"] == "failed"
    assert folder.read_front()["failed"] == 4


def test_a_run_in_which_nobody_reaches_the_least_top1_says_so(tmp_path):
    with pytest.raises(
        WorkError, match=r"none of 8 candidates reaches --min-top1 0\.97: the most accurate has 0\.\d{3}"
    ):
        search(tmp_path / "run", trials=8, min_top1=0.97)
    assert RunFolder(tmp_path / "run").read_front()["trained"] == 8


def test_a_latency_that_cannot_be_had_is_a_failed_candidate(tmp_path, monkeypatch):
    real = PredictedTarget.latency

    def latency(self, config, num_classes=1000):
        if config == PRESETS["mobilevit-xs"] and len(evaluator.done) == 1:
            raise WorkError("the device went away")
        return real(self, config, num_classes)

    evaluator = FormulaEvaluator()
    monkeypatch.setattr(PredictedTarget, "latency", latency)
    document = search(tmp_path / "run", evaluator, trials=8, final_seeds=1)
    failed = RunFolder(tmp_path / "run").records()[1]
    assert (document["trained"], document["failed"]) == (7, 1)
    assert (failed.outcome, failed.latency, failed.error) == ("failed", None, "the device went away")


def test_how_a_run_was_begun_stays_written(tmp_path):
    search(tmp_path / "run", trials=4, final_seeds=1)
    folder = RunFolder(tmp_path / "run")
    begun = folder.read_run()
    plan = make_plan(trials=6, final_seeds=1)
    describe(folder, plan)
    carried_on = folder.read_run()
    assert carried_on["settings"] == {**begun["settings"], "trials": 6}
    assert len(carried_on["carried_on"]) == 1
    assert {key: carried_on[key] for key in ("versions", "machine", "pins")} == {
        key: begun[key] for key in ("versions", "machine", "pins")
    }


def test_the_time_limit_keeps_a_third_for_the_finals(tmp_path):
    evaluator = FormulaEvaluator()
    document = search(tmp_path / "run", evaluator, trials=1000, time_s=30, clock=lambda: float(len(evaluator.done)))
    assert document["ended_by"] == "time"
    assert document["state"] == "finished"
    searched = sum(seed == 0 for _, seed in evaluator.done)
    assert 20 <= searched <= 22
    assert 28 <= len(evaluator.done) <= 30


def test_a_run_whose_last_trainings_are_cut_off_ended_by_time(tmp_path):
    class Cut(AtOnce):
        def wait(self, timeout_s):
            return super().wait(timeout_s) if len(worker.done) < 8 or self.running == 1 else []

    worker, asked = FormulaEvaluator(), itertools.count()
    clock = lambda: float(next(asked)) / 1000 if len(worker.done) < 8 else 1e6  # noqa: E731
    document = search(tmp_path / "run", clock=clock, engine=Cut(worker, 3), trials=10, time_s=1000, final_seeds=1)
    assert document["trained"] == 8
    assert document["ended_by"] == "time"
    assert search(tmp_path / "run", trials=10, time_s=1000, final_seeds=1)["ended_by"] == "trials"


def test_an_interrupt_keeps_everything_and_the_run_carries_on(tmp_path):
    first = FormulaEvaluator(interrupt_at=7)
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "run", first, trials=12)
    stopped = json.loads((tmp_path / "run" / "front.json").read_text())
    assert (stopped["state"], stopped["ended_by"], stopped["trained"]) == ("stopped", "interrupt", 7)
    second = FormulaEvaluator()
    document = search(tmp_path / "run", second, trials=12)
    assert document["trained"] == 12
    assert not set(first.done) & set(second.done)


def test_a_finished_run_again_trains_nothing_and_more_trials_go_on(tmp_path):
    first = search(tmp_path / "run", trials=10)
    idle = FormulaEvaluator()
    assert search(tmp_path / "run", idle, trials=10) == first
    assert idle.done == []
    assert search(tmp_path / "run", FormulaEvaluator(), trials=14)["trained"] == 14


SETTINGS = {"trials": 12, "budget": 2_500_000}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """(trainings, document, journal lines) of a run that nothing disturbed."""
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    evaluator = FormulaEvaluator()
    document = search(run, evaluator, **SETTINGS)
    return evaluator.done, document, (run / "study.journal").read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize("kill_at", [0, 1, 6, 9, 13, 15])
def test_killed_in_training_then_resumed_equals_uninterrupted(tmp_path, uninterrupted, kill_at):
    done, wanted, _ = uninterrupted
    killed, resumed = FormulaEvaluator(kill_at=kill_at), FormulaEvaluator()
    with pytest.raises(Killed):
        search(tmp_path / "run", killed, **SETTINGS)
    found = search(tmp_path / "run", resumed, **SETTINGS)
    assert killed.done + resumed.done == done
    assert _without_place(found) == _without_place(wanted)


@pytest.mark.parametrize("share", [0.004, 0.02, 0.1, 0.33, 0.5, 0.62, 0.8, 0.9, 0.96, 0.99])
@pytest.mark.parametrize("torn", [False, True], ids=["whole line", "torn line"])
def test_killed_while_writing_then_resumed_equals_uninterrupted(tmp_path, uninterrupted, share, torn):
    """The journal as any kill can leave it: cut after a line, or within one."""
    done, wanted, journal = uninterrupted
    line = int(share * len(journal))
    run = tmp_path / "run"
    run.mkdir()
    (run / "study.journal").write_bytes(b"".join(journal[:line]) + (journal[line][:15] if torn else b""))
    (run / "study.journal.lock").touch()
    resumed = FormulaEvaluator()
    found = search(run, resumed, **SETTINGS)
    assert _without_place(found) == _without_place(wanted)
    known = sum(b'"candidate:' in entry for entry in journal[:line])
    assert len(resumed.done) == len(done) - known


def test_killed_between_a_record_and_its_trial_trains_nothing_twice(tmp_path, uninterrupted):
    done, wanted, journal = uninterrupted
    after_record = next(i for i, entry in enumerate(journal) if b'"candidate:3"' in entry) + 1
    run = tmp_path / "run"
    run.mkdir()
    (run / "study.journal").write_bytes(b"".join(journal[:after_record]))
    resumed = FormulaEvaluator()
    assert _without_place(search(run, resumed, **SETTINGS)) == _without_place(wanted)
    assert resumed.done == done[4:]


@pytest.mark.parametrize("kill_at", [1, 4, 8, 11, 14])
def test_killed_before_writing_then_resumed_equals_uninterrupted(tmp_path, monkeypatch, kill_at):
    """Also where proposals were fruitless: the limit is low here, so that it is reached."""
    monkeypatch.setattr("mvit_search.search.proposer._FRUITLESS_LIMIT", 2)
    settings = {"trials": 12, "budget": 2_000_000, "sampler": "random", "final_seeds": 1}
    whole = FormulaEvaluator()
    wanted = search(tmp_path / "whole", whole, **settings)
    real, told = Store.save, []

    def save(self, *arguments):
        told.append(None)
        if len(told) == kill_at:
            raise Killed
        real(self, *arguments)

    killed, resumed = FormulaEvaluator(), FormulaEvaluator()
    with monkeypatch.context() as patch:
        patch.setattr(Store, "save", save)
        with suppress(Killed):
            search(tmp_path / "run", killed, **settings)
    found = search(tmp_path / "run", resumed, **settings)
    lost = killed.done[kill_at - 1 : kill_at]  # valued, and not written
    assert killed.done + resumed.done == [*whole.done[: len(killed.done)], *lost, *whole.done[len(killed.done) :]]
    assert _without_place(found) == _without_place(wanted)


def _without_place(document):
    """The document without what says where, and without trial numbers: a kill may leave a discarded trial behind."""
    text = json.dumps({k: v for k, v in document.items() if k not in ("run", "directory")})
    return json.loads(re.sub(r'"trial": \d+', '"trial": 0', text.replace('"whole/', '"run/')))
