"""The estimate of the time left, against what the simulated clock then says."""

import pytest

from mvit_search.search import Evaluation
from mvit_search.search.engines import Finished
from tests.search.fakes import FormulaEvaluator, search


class SimulatedEngine:
    """Mirrors an engine with workers, on a clock that goes on only while it is waited for."""

    def __init__(self, workers: int, seconds, evaluator) -> None:
        self.now, self.capacity = 0.0, workers
        self._seconds, self._evaluator = seconds, evaluator
        self._running: list[tuple[float, int, object]] = []
        self._count = 0

    def clock(self) -> float:
        return self.now

    @property
    def running(self) -> int:
        return len(self._running)

    def submit(self, task) -> None:
        self._count += 1
        self._running.append((self.now + self._seconds(task), self._count, task))

    def wait(self, timeout_s):
        if not self._running:
            return []
        end, _, task = first = min(self._running)
        if end > self.now + timeout_s:
            self.now += timeout_s
            return []
        self._running.remove(first)
        self.now = end
        done = self._evaluator.evaluate(task)
        assert isinstance(done, Evaluation)
        return [Finished(task, done._replace(seconds=self._seconds(task)))]

    def stop(self) -> None:
        self._running.clear()

    def close(self) -> None:
        self._running.clear()


class Estimates:
    """Keeps (elapsed, estimate, phase) of each update."""

    def __init__(self) -> None:
        self.told = []
        self.last = None

    def update(self, progress, record) -> None:
        self.told.append((progress.elapsed_s, progress.remaining_s, progress.phase))
        self.last = progress

    def notice(self, words) -> None:
        return None


def estimates(path, *, workers=1, seconds=lambda task: 10.0, top=0, **settings) -> Estimates:
    engine = SimulatedEngine(workers, seconds, FormulaEvaluator(top=top))
    seen = Estimates()
    search(path, engine=engine, observer=seen, clock=engine.clock, **settings)
    return seen


def ratios(seen: Estimates, begin: float, end: float = 0.98) -> list[float]:
    """Estimated over true time left, in that part of the run."""
    whole = seen.told[-1][0]
    return [left / (whole - at) for at, left, _ in seen.told if left is not None and begin * whole <= at <= end * whole]


@pytest.mark.parametrize("workers", [1, 3])
def test_without_finals_equal_trainings_are_foretold(tmp_path, workers):
    seen = estimates(tmp_path / "run", workers=workers, trials=21, final_seeds=1)
    assert seen.told[0][1] is None
    assert seen.told[-1][0] == pytest.approx(10 * -(-21 // workers))
    assert all(left == 0 for _, left, phase in seen.told if phase == "done")
    assert all(0.85 <= ratio <= 1.15 for ratio in ratios(seen, 0.1))


def test_finals_are_foretold_to_the_second_once_they_have_begun(tmp_path):
    seen = estimates(tmp_path / "run", trials=12, final_seeds=3)
    whole = seen.told[-1][0]
    finals = [(whole - at, left) for at, left, phase in seen.told if phase == "finals"][2:]
    assert len(finals) > 10
    # The front grows and shrinks as seeds come in, by a member at a time.
    assert all(abs(left - true) <= 25 for true, left in finals)
    assert abs(finals[-1][0] - finals[-1][1]) <= 10


@pytest.mark.parametrize(("workers", "final_seeds"), [(1, 1), (1, 3), (4, 3)])
def test_halving_is_foretold_within_a_factor_that_shrinks(tmp_path, workers, final_seeds):
    epochs = (1, 2, 6)
    seen = estimates(
        tmp_path / "run", workers=workers, top=2, trials=27, fidelity="halving", epochs=9, rungs="1,3,9",
        final_seeds=final_seeds, seconds=lambda task: 2.0 * sum(epochs[task.start_rung + 1 : task.rung + 1]),
    )  # fmt: skip
    assert all(1 / 2.5 <= ratio <= 2.5 for ratio in ratios(seen, 0.05, 0.9))
    assert all(1 / 2.2 <= ratio <= 2.2 for ratio in ratios(seen, 0.5, 0.9))


def test_a_run_is_never_said_to_last_beyond_its_time(tmp_path):
    seen = estimates(tmp_path / "run", trials=1000, time_s=300.0, final_seeds=3)
    assert all(at + left <= 300.0 + 1e-6 for at, left, _ in seen.told if left is not None)
    early = [at + left for at, left, _ in seen.told if left is not None and at < 100]
    assert min(early) > 200


def test_a_small_space_is_not_said_to_take_all_the_trials(tmp_path):
    space = tmp_path / "tiny.yaml"
    space.write_text(
        "description: tiny\nimage_size: 64\nstem_channels: 16\nhead_expansion: 2\nactivation: silu\nstages:\n"
        "  - {kind: conv, out_channels: {choices: [16, 24]}, num_blocks: {low: 1, high: 2}, stride: 2,"
        " expand_ratio: 2}\n"
    )
    seen = estimates(tmp_path / "run", space=str(space), trials=1000, final_seeds=1)
    assert max(left for _, left, _ in seen.told if left is not None) <= 70


def test_what_is_under_way_is_told_as_it_begins(tmp_path):
    seen = estimates(tmp_path / "run", workers=3, trials=6, final_seeds=1)
    assert seen.last.begun == 6
    assert seen.last.workers == (0, 3)
    assert [rung.under_way for rung in seen.last.rungs] == [0]
    assert seen.last.rungs[0].valued == 6


def test_the_history_begins_with_the_first_point_and_ends_with_now(tmp_path):
    seen = estimates(tmp_path / "run", trials=12, final_seeds=1)
    assert len(seen.last.history) == 40
    assert all(value > 0 for value in seen.last.history)
    assert seen.last.history[-1] == seen.last.hypervolume
    assert sorted(seen.last.history) == list(seen.last.history)
