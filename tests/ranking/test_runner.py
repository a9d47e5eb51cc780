"""Trainings in worker processes: resumable, chunked, and no failure costs more than its own row."""

import gc
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import weakref
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from mvit_search.architecture import MobileViTConfig
from mvit_search.data import load_data
from mvit_search.errors import ConflictError, InputError
from mvit_search.latency import load_target
from mvit_search.profile import cost
from mvit_search.proxy import Rung, default_recipe, train
from mvit_search.ranking.candidates import Candidate, choose_candidates
from mvit_search.ranking.check import CheckSettings, plan_check, run_check
from mvit_search.ranking.fidelity import Fidelity, fidelity, ladders, subset
from mvit_search.ranking.runner import Progress, _alone, _Book, _submit_next, default_workers, jobs, run_jobs
from mvit_search.ranking.worker import Job, Outcome, WorkerSettings, _trained, _Worker, prepare_worker, work
from mvit_search.records.table import TableRow, read_table
from mvit_search.space import load_space
from tests.proxy.test_training import TINY

RECIPE = default_recipe("digits").changed(image_size=16, epochs=3)
LONG = fidelity(RECIPE, 128, (1, 2))
SHORT = fidelity(RECIPE.changed(epochs=1, warmup_epochs=0.2), 128)
DIGITS = WorkerSettings("digits", images=200, held_out=100)


def candidate(config: MobileViTConfig, name: str = "") -> Candidate:
    costs = cost(config)
    return Candidate(name, config, costs.params, costs.macs, 1.0)


OTHER = TINY.model_copy(update={"stem_channels": 12})
BOTH = (candidate(TINY), candidate(OTHER))


@pytest.fixture(autouse=True)
def few_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    from mvit_search.ranking import candidates

    monkeypatch.setattr(candidates, "_POOL", 400)


def facts(rows: tuple[TableRow, ...]) -> set[tuple[object, ...]]:
    return {(r.digest, r.seed, r.fidelity, r.epoch, r.top1, r.loss, r.image_steps, r.error, r.score) for r in rows}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All trainings in one go."""
    return run_jobs(jobs(BOTH, (LONG, SHORT), seeds=2, seeded=1), DIGITS, tmp_path_factory.mktemp("whole"), workers=2)


@pytest.mark.slow
def test_every_training_has_a_row_a_rung(whole: Path) -> None:
    rows = read_table(whole)
    assert {(r.digest, r.seed, r.fidelity, r.epoch) for r in rows} == {
        (c.config.digest(), seed, way.name, epoch)
        for c, seed in ((BOTH[0], 0), (BOTH[1], 0), (BOTH[0], 1))
        for way in (LONG, SHORT)
        for epoch in way.rungs
    }
    assert all(r.image_steps == r.epoch * 128 and r.cpu_seconds > 0 and not r.error for r in rows)
    assert {r.recipe for r in rows if r.fidelity == LONG.name} == {RECIPE.digest()[:12]}
    assert not list((whole.parent / "checkpoints").iterdir())
    assert not (whole.parent / "stop").exists()


@pytest.mark.slow
def test_a_row_is_what_training_gives(whole: Path) -> None:
    data = subset(load_data("digits", image_size=16, max_images=200), 128, 100)
    result = train(TINY, data, RECIPE, seed=1, threads=1)
    (row,) = [r for r in read_table(whole) if r.seed == 1 and r.fidelity == LONG.name and r.epoch == 3]
    assert (row.top1, row.loss) == (result.top1, round(result.loss, 6))
    assert row.data == data.digest[:12]


@pytest.mark.slow
def test_chunks_of_no_length_add_up_to_the_whole(whole: Path, tmp_path: Path) -> None:
    """Every chunk ends after an epoch at the latest; what it saved is carried on to the same bits."""
    wanted = jobs(BOTH[:1], (LONG,))
    told: list[Progress] = []
    for _ in range(10):
        table = run_jobs(wanted, DIGITS, tmp_path, workers=1, seconds=0.01, watch=told.append)
        if told[-1].done == told[-1].total:
            break
    assert len([p for p in told if p.row is None]) > 2
    own = {fact for fact in facts(read_table(whole)) if fact[0] == TINY.digest() and fact[1:3] == (0, LONG.name)}
    assert facts(read_table(table)) == own
    before = table.read_bytes()
    run_jobs(wanted, DIGITS, tmp_path, workers=1)
    assert table.read_bytes() == before


def working_in(group: int) -> list[str]:
    """States of the living processes of a process group, as Linux lists them."""
    states = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended meanwhile
            state, _, own, *_ = path.read_text().rpartition(")")[2].split()
            states += [state] if int(own) == group and state != "Z" else []
    return states


@pytest.mark.slow
def test_a_killed_check_carries_on_to_the_same_table(whole: Path, tmp_path: Path) -> None:
    code = (
        "from tests.ranking.test_runner import *\n"
        "if __name__ == '__main__':\n"
        "    run_jobs(jobs(BOTH, (LONG, SHORT), seeds=2, seeded=1), DIGITS, Path(sys.argv[1]), workers=2)\n"
    )
    script = tmp_path / "check.py"
    script.write_text(code)
    out = tmp_path / "out"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    process = subprocess.Popen([sys.executable, script, out], env=environment, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (out / "table.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()  # the driver alone: its workers have to see for themselves that nobody waits for them
    process.wait()
    while working_in(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not working_in(process.pid)
    held = read_table(out / "table.csv")
    assert len(held) > 0
    table = run_jobs(jobs(BOTH, (LONG, SHORT), seeds=2, seeded=1), DIGITS, out, workers=2)
    assert facts(read_table(table)) == facts(read_table(whole))
    assert len(read_table(table)) == len(read_table(whole))


@dataclass(frozen=True)
class Deadly(Fidelity):
    """Kills the worker process that opens it."""

    @property
    def image_steps(self) -> int:
        return 0

    def __setstate__(self, state: dict[str, object]) -> None:
        if multiprocessing.parent_process() is not None:
            os._exit(9)
        self.__dict__.update(state)


@pytest.mark.slow
def test_a_dying_worker_and_a_diverging_candidate_are_rows(tmp_path: Path) -> None:
    deadly = Deadly("deadly", RECIPE, 128, (3,))
    diverging = Fidelity("diverging", RECIPE.changed(learning_rate=1e38), 128, (3,))
    wanted = [Job(BOTH[0], 0, deadly), Job(BOTH[0], 0, diverging), Job(BOTH[1], 0, SHORT)]
    rows = read_table(run_jobs(wanted, DIGITS, tmp_path, workers=1))
    by_name = {row.fidelity: row for row in rows}
    assert by_name["deadly"].error == "the worker process died twice"
    assert "loss" in by_name["diverging"].error
    assert by_name["diverging"].top1 is None
    assert by_name[SHORT.name].top1 is not None
    told: list[Progress] = []
    run_jobs(wanted, DIGITS, tmp_path, workers=1, watch=told.append)
    assert [(p.done, p.total) for p in told] == [(3, 3)]  # none is tried again


@pytest.mark.slow
def test_data_that_cannot_be_loaded_ends_it_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no-such"):
        run_jobs(jobs(BOTH[:1], (SHORT,)), WorkerSettings("no-such"), tmp_path, workers=1)


def rung(epoch: int, top1: float = 0.5) -> Rung:
    return Rung(epoch, top1, 1.0, 128 * epoch, 1.0, 1.0)


def test_a_training_that_fails_after_rows_were_written_is_a_row_too(tmp_path: Path) -> None:
    job = Job(BOTH[0], 0, LONG)
    _Book(tmp_path, [job], None).add(job, Outcome((rung(1),)))
    book = _Book(tmp_path, [job], None)  # a later chunk
    assert not book.finished(job)
    book.add(job, Outcome((), "training loss is nan"))
    assert _Book(tmp_path, [job], None).finished(job)  # and nobody tries again
    rows = read_table(book.table)
    assert [(row.epoch, row.top1, row.error) for row in rows] == [(1, 0.5, ""), (1, None, "training loss is nan")]


def test_rows_that_come_out_the_same_are_not_written_twice_and_others_are(tmp_path: Path) -> None:
    job = Job(BOTH[0], 0, LONG)
    book = _Book(tmp_path, [job], None)
    book.add(job, Outcome((rung(1), rung(2))))
    _Book(tmp_path, [job], None).add(job, Outcome((rung(1), rung(2, 0.6))))
    assert [(row.epoch, row.top1) for row in read_table(book.table)] == [(1, 0.5), (2, 0.5), (2, 0.6)]


def test_a_checkpoint_goes_once_its_rows_are_on_the_disk(tmp_path: Path) -> None:
    job = Job(BOTH[0], 0, LONG)
    checkpoint = job.checkpoint(tmp_path)
    checkpoint.parent.mkdir()
    checkpoint.touch()
    book = _Book(tmp_path, [job], None)
    book.add(job, Outcome((rung(1),)))
    assert checkpoint.exists()
    book.add(job, Outcome((rung(1), rung(2), rung(3))))
    assert not checkpoint.exists()
    checkpoint.touch()  # a kill came between the rows and the checkpoint
    _Book(tmp_path, [job], None)
    assert not checkpoint.exists()


def test_a_finished_training_leaves_its_checkpoint_to_the_driver(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    job = Job(BOTH[0], 0, SHORT)
    outcome = _trained(job, _Worker(DIGITS, tmp_path).data(16, 128), _Worker(DIGITS, tmp_path))
    assert outcome.rungs[-1].epoch == 1
    assert job.checkpoint(tmp_path).exists()


def test_a_checkpoint_that_does_not_fit_costs_time_and_not_the_candidate(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    worker = _Worker(DIGITS, tmp_path)
    first, other = Job(BOTH[0], 0, SHORT), Job(BOTH[0], 1, SHORT)
    data = worker.data(16, 128)
    wanted = _trained(first, data, worker).rungs[-1]
    _trained(other, data, worker)
    for content in (b"hello", other.checkpoint(tmp_path).read_bytes()):
        first.checkpoint(tmp_path).write_bytes(content)
        found = _trained(first, data, worker).rungs[-1]
        assert (found.top1, found.loss) == (wanted.top1, wanted.loss)


def test_a_worker_that_lost_its_gpu_makes_way_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would turn every later job into a row with an error; a dead worker's job is tried again elsewhere."""
    from mvit_search.ranking import worker

    def failing(words: str) -> None:
        def scored(*arguments: object) -> None:
            raise RuntimeError(words)

        monkeypatch.setattr(worker, "_scored", scored)

    def left(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(worker, "_worker", _Worker(DIGITS, tmp_path))
    monkeypatch.setattr(os, "_exit", left)
    job = Job(BOTH[0], 0, SHORT, "naswot")
    failing("CUDA error: an illegal memory access was encountered")
    with pytest.raises(SystemExit):
        work(job)
    failing("operator does not exist")
    assert work(job).error == "operator does not exist"


def test_workers_and_their_threads_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert [default_workers("cpu", threads) for threads in (1, 2, 4, 8)] == [6, 3, 1, 1]
    assert default_workers("cuda:1", 2) == 4


def test_a_label_names_a_file_on_every_system() -> None:
    job = Job(BOTH[0], 3, fidelity(RECIPE, 128, label='a/b:c"?'))
    assert job.checkpoint(Path("x")).name == f"{TINY.digest()[:16]}-3-16px-128img-3ep-a_b_c__.safetensors"
    assert Job(BOTH[0], 3, LONG).checkpoint(Path("x")).name.endswith(f"-3-{LONG.name}.safetensors")


def test_a_worker_holds_the_images_of_one_fidelity(tmp_path: Path) -> None:
    worker = _Worker(DIGITS, tmp_path)
    first = worker.data(16, 128)
    assert worker.data(16, 128) is first
    digest, gone = first.digest, weakref.ref(first)
    del first
    assert len(worker.data(16, 64).train_labels) == 64
    gc.collect()
    assert gone() is None
    assert worker.data(16, 128).digest == digest


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    with _alone(tmp_path), pytest.raises(ConflictError, match="in use by another process"):
        run_jobs([], DIGITS, tmp_path)
    run_jobs([], DIGITS, tmp_path)


def test_half_a_checkpoint_is_swept_away(tmp_path: Path) -> None:
    torn = tmp_path / "checkpoints" / ".a.safetensors.x1y2"
    torn.parent.mkdir()
    torn.touch()
    run_jobs([], DIGITS, tmp_path)
    assert not torn.exists()


@pytest.mark.slow
def test_a_pool_that_broke_costs_no_job_and_workers_leave_ctrl_c_to_the_driver(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer=prepare_worker, initargs=(DIGITS, tmp_path)) as pool:
        assert pool.submit(signal.getsignal, signal.SIGINT).result() == signal.SIG_IGN
        with pytest.raises(BrokenProcessPool):
            pool.submit(os._exit, 9).result()
        waiting = deque([Job(BOTH[0], 0, SHORT)])
        assert not _submit_next(pool, waiting, {})
        assert len(waiting) == 1


@pytest.mark.slow
def test_workers_that_cannot_start_are_no_failure_of_the_candidates(tmp_path: Path) -> None:
    """A script without its `__main__` guard: each worker would run the script again, and dies of it."""
    script = tmp_path / "check.py"
    script.write_text(
        "from tests.ranking.test_runner import *\n"
        "run_jobs(jobs(BOTH, (SHORT,)), DIGITS, Path(sys.argv[1]), workers=1)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run(
        [sys.executable, script, tmp_path / "out"], env=environment, capture_output=True, text=True, check=False
    )
    assert "WorkError: worker processes die as they start" in done.stderr
    assert not (tmp_path / "out" / "table.csv").exists()


# Who, how, and in which order.


def test_candidates_cover_sizes_and_latencies_and_grow_by_adding() -> None:
    space, target = load_space("mobilevit"), load_target("iphone12")
    many = choose_candidates(space, target, 3_000_000, 30, smallest=500_000)
    assert choose_candidates(space, target, 3_000_000, 12, smallest=500_000) == many[:12]
    assert [c.name for c in many[:3]] == ["mobilevit-xxs", "mobilevit-xs", ""]
    drawn = many[2:]
    assert len({c.config.digest() for c in many}) == 30
    assert all(500_000 <= c.params <= 3_000_000 for c in drawn)
    thirds = [0.5e6, 0.91e6, 1.65e6, 3.0e6]  # equal shares of the logarithm
    counts = [sum(low <= c.params < high for c in drawn) for low, high in itertools.pairwise(thirds)]
    assert min(counts) >= 6
    latencies = [c.latency_ms for c in drawn if c.params < 0.91e6]
    assert max(latencies) / min(latencies) > 1.5


def test_an_empty_band_is_refused() -> None:
    with pytest.raises(InputError, match="no candidate"):
        choose_candidates(load_space("mobilevit"), load_target("iphone12"), 400_000, 5, smallest=399_999)


def test_ladders_hold_rungs_and_complete_schedules_and_cheaper_images() -> None:
    long, *others = ladders(RECIPE.changed(epochs=16, image_size=32), 400, 10)
    assert long.name == "32px-400img-16ep"
    assert long.rungs == (1, 2, 3, 4, 6, 8, 12, 16)
    names = [way.name for way in others]
    assert names == ["32px-400img-1ep", "32px-400img-2ep", "32px-400img-4ep", "32px-400img-8ep", "16px-400img-4ep",
                     "32px-100img-16ep"]  # fmt: skip
    assert all(way.image_steps < long.image_steps for way in others)
    assert others[-1].recipe == long.recipe
    assert len({way.recipe.digest() for way in (long, *others)}) == 6
    assert all(way.images == 400 for way in ladders(RECIPE, 400, 101))  # 100 would not show every class


def test_subsets_keep_the_held_out_images_and_the_balance() -> None:
    data = load_data("digits", image_size=16)
    part = subset(data, 100, 200)
    assert len(part.train_labels) == 100
    assert set(part.train_labels.tolist()) == set(range(10))
    assert subset(data, 50, 200).val_images.tobytes() == part.val_images.tobytes()
    with pytest.raises(InputError, match="more than the 899 training images"):
        subset(data, 5000, None)


# A check's folder.

CHECK = CheckSettings(candidates=5, images=64, held_out=50, epochs=2, image_size=16, seeds=1, zero_cost=("naswot",))


def test_a_check_plans_scores_then_long_then_cheap() -> None:
    wanted, settings = plan_check(CHECK)
    labels = list(dict.fromkeys(job.label for job in wanted))
    assert labels == ["zero-cost:naswot", "16px-64img-2ep", "16px-64img-1ep"]
    assert len(wanted) == 15
    assert settings.images == 64


def test_another_checks_folder_is_refused_with_what_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from mvit_search.ranking import check

    monkeypatch.setattr(check, "run_jobs", lambda wanted, settings, folder, **_: folder / "table.csv")
    run_check(CHECK, tmp_path)
    run_check(replace(CHECK, candidates=6, seeds=2), tmp_path)  # these only add
    with pytest.raises(ConflictError, match=r"epochs \(2 there, 4 now\)"):
        run_check(replace(CHECK, epochs=4), tmp_path)
    (tmp_path / "check.json").write_text("{")
    with pytest.raises(InputError, match="not the settings of a check"):
        run_check(CHECK, tmp_path)


def test_a_target_that_would_measure_thousands_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from mvit_search.ranking import check

    class Measured:
        measured = True

    monkeypatch.setattr(check, "load_target", lambda name: Measured())
    with pytest.raises(InputError, match="is measured, and candidates are chosen by the latency of thousands"):
        plan_check(CHECK)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"budget": 1000, "smallest": 500}, "the smallest reachable is"), ({"smallest": 7_000_000}, "--smallest"),
     ({"candidates": 4}, "at least 5"), ({"data": "no-such"}, "no-such"), ({"space": "no-such"}, "no-such"),
     ({"seeds": 0}, "at least 1"), ({"held_out": 9}, r"--held-out 9: must be at least the number of classes \(10\)"),
     ({"images": 20}, "fewer than a batch"), ({"device": "cuda:99"}, "--device"), ({"threads": 10**6}, "--threads"),
     ({"epochs": 0}, "epochs"), ({"image_size": 7}, "image_size")],
)  # fmt: skip
def test_settings_that_cannot_be_met_are_refused(changes: dict[str, object], words: str) -> None:
    from dataclasses import replace

    with pytest.raises(InputError, match=words):
        plan_check(replace(CHECK, **changes))  # type: ignore[arg-type]
