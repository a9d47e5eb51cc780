"""Latencies beside workers: one at a time, in a thread of their own, without holding anybody up."""

import random
import threading
import time

import pytest

from mvit_search.architecture import PRESETS
from mvit_search.errors import TargetUnavailable, WorkError
from mvit_search.latency import Latency
from mvit_search.records import RunFolder
from mvit_search.search.engines import EngineSettings, open_engine
from mvit_search.search.measuring import Candidate, LatencyQueue
from mvit_search.search.proposals import draw_evenly
from tests.search.fakes import AtOnce, FormulaEvaluator, make_plan, search

CANDIDATES = [Candidate(config, None, name, "preset", 0) for name, config in PRESETS.items()]


class Device:
    """A measured target; notes how many ask it at once, and from which thread."""

    name, measured, calibration = "a phone", True, "one"

    def __init__(self, seconds=0.0, error=None, ms=3.0):
        self.seconds, self.error, self.ms = seconds, error, ms
        self.at_once = self.most = 0
        self.threads = set()

    def latency(self, config, num_classes=1000):
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        self.threads.add(threading.current_thread().name)
        time.sleep(self.seconds)
        self.at_once -= 1
        if self.error is not None:
            raise self.error
        return Latency(self.ms, self.ms, self.ms, "measured: a phone", self.name, "by hand")


def taken(queue, count):
    found = []
    while len(found) < count:
        timed = queue.take()
        if timed is None:
            time.sleep(0.005)
        else:
            found.append(timed)
    return found


def test_beside_workers_it_measures_in_a_thread_one_at_a_time_and_in_order():
    device = Device(seconds=0.01)
    queue = LatencyQueue(device, 1000, aside=True)
    for candidate in CANDIDATES:
        queue.submit(candidate)
    assert [candidate for candidate, _ in taken(queue, len(CANDIDATES))] == CANDIDATES
    queue.close()
    assert device.most == 1
    assert threading.current_thread().name not in device.threads
    assert len(queue) == 0


@pytest.mark.parametrize("measured", [True, False])
def test_in_this_process_and_where_it_is_predicted_it_is_known_at_once(measured):
    device = Device()
    device.measured = measured
    queue = LatencyQueue(device, 1000, aside=not measured)
    queue.submit(CANDIDATES[0])
    candidate, latency = queue.take()
    assert (candidate, latency.ms) == (CANDIDATES[0], 3.0)
    assert device.threads == {threading.current_thread().name}


def test_what_one_candidate_cannot_have_is_its_own_and_what_nobody_can_have_is_raised():
    failing = LatencyQueue(Device(error=WorkError("it does not convert")), 1000, aside=True)
    failing.submit(CANDIDATES[0])
    [(_, error)] = taken(failing, 1)
    assert str(error) == "it does not convert"
    gone = LatencyQueue(Device(error=TargetUnavailable("gone")), 1000, aside=True)
    gone.submit(CANDIDATES[0])
    with pytest.raises(TargetUnavailable):
        taken(gone, 1)
    for queue in (failing, gone):
        queue.close()


def test_a_run_with_workers_measures_beside_them(tmp_path):
    device = Device(seconds=0.02)
    settings = EngineSettings(FormulaEvaluator, tmp_path, workers=2, notice=lambda words: None)
    engine = open_engine("pool", settings)
    plan = make_plan(engine="pool", trials=6, final_seeds=1)._replace(target=device)
    try:
        document = search(tmp_path / "run", engine=engine, plan=plan)
    finally:
        engine.close()
    assert document["trained"] == 6
    assert device.most == 1
    assert all(record.latency.how == "measured" for record in RunFolder(tmp_path / "run").records())


def test_an_earlier_runs_candidates_that_wait_for_a_latency_count_against_no_trials(tmp_path):
    plan = make_plan(engine="pool", trials=4, final_seeds=1)
    rng = random.Random(0)
    earlier = tuple(draw_evenly(plan.space, plan.limits, 0.5, rng) for _ in range(4))
    known = [plan.space.config(params) for params in earlier]
    plan = plan._replace(target=Device(seconds=0.05))
    search(tmp_path / "run", engine=AtOnce(FormulaEvaluator(), 9), plan=plan, earlier=known)
    records = RunFolder(tmp_path / "run").records()
    assert [record.origin for record in records].count("earlier") == 4
    assert sum(record.origin != "earlier" for record in records) == 4


def test_who_is_measured_over_the_limit_is_not_trained(tmp_path):
    plan = make_plan(trials=6, final_seeds=1, max_latency_ms=2.0)._replace(target=Device(ms=3.0))
    evaluator = FormulaEvaluator()
    with pytest.raises(WorkError, match=r"latency measured 3\.00 ms, over --max-latency 2 ms"):
        search(tmp_path / "run", evaluator, plan=plan)
    assert evaluator.done == []
    records = RunFolder(tmp_path / "run").records()
    assert {record.failure for record in records} == {"over a limit"}
    assert len(records) == 6
