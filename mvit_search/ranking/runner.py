"""Training every candidate at every fidelity, in worker processes, in chunks of any length, into one table."""

import fcntl
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mvit_search.errors import ConflictError, WorkError
from mvit_search.ranking.candidates import Candidate
from mvit_search.ranking.fidelity import Fidelity
from mvit_search.ranking.worker import Job, Outcome, WorkerSettings, prepare_worker, work
from mvit_search.records.table import TableRow, append_rows, read_table

_STOP_FILE = "stop"


@dataclass(frozen=True)
class Progress:
    """`done` of `total` trainings are in the table; `row` is the last row that was added, if any was."""

    done: int
    total: int
    row: TableRow | None


Watch = Callable[[Progress], None]


def jobs(candidates: Iterable[Candidate], fidelities: Iterable[Fidelity], seeds: int = 1, seeded: int = 0) -> list[Job]:
    """All trainings, the most useful first: fidelity by fidelity, then further seeds of every fidelity.

    Args:
        seeds: how many seeds some candidates get.
        seeded: how many candidates get them, the first ones: presets, and others spread over the band. 0: all.
    """
    chosen, ways = list(candidates), list(fidelities)
    some = chosen if not seeded or seeded >= len(chosen) else chosen[:seeded]
    first = [Job(candidate, 0, way) for way in ways for candidate in chosen]
    return first + [Job(candidate, seed, way) for way in ways for seed in range(1, seeds) for candidate in some]


def run_jobs(
    wanted: list[Job], settings: WorkerSettings, folder: Path, *, workers: int = 1, seconds: float | None = None,
    watch: Watch | None = None, clock: Callable[[], float] = time.monotonic,
) -> Path:  # fmt: skip
    """Train what the folder's table does not hold yet, until all is there or the time is up; returns the table.

    A training that the time cuts off is saved after its epoch and carried on next time. A worker that dies is
    replaced, and what it was at is tried once more, alone; if that dies too, it is a row with an error.

    Raises:
        InputError: data that cannot be loaded, or a damaged table.
        ConflictError: another process works in the folder.
        WorkError: worker processes die before they are asked for anything.
    """
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        stop = folder / _STOP_FILE
        stop.unlink(missing_ok=True)
        for torn in (folder / "checkpoints").glob(".*"):
            torn.unlink()  # half a checkpoint, by a kill
        book = _Book(folder, wanted, watch)
        deadline = None if seconds is None else clock() + seconds
        waiting = deque(job for job in wanted if not book.finished(job))
        crashed = _pooled(waiting, settings, folder, workers, book, deadline, clock)
        for job in crashed:
            left = deadline is None or clock() < deadline
            if left and _pooled(deque([job]), settings, folder, 1, book, deadline, clock):
                book.add(job, Outcome((), "the worker process died twice"))
        # After an error or Ctrl-C it stays: it goes on telling workers that are still at an epoch.
        stop.unlink(missing_ok=True)
    return book.table


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder: two that write one table would train everything twice and stop each other's workers."""
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            rule, advice = "is in use by another process that trains for it", "wait for it, or name another folder"
            raise ConflictError("folder", str(folder), rule, advice) from None
        yield
    finally:
        os.close(lock)


class _Book:
    """The table as it grows: which rows it holds, and which trainings are complete."""

    def __init__(self, folder: Path, wanted: list[Job], watch: Watch | None) -> None:
        self.table = folder / "table.csv"
        self._folder, self._wanted, self._watch = folder, wanted, watch
        rows = read_table(self.table) if self.table.exists() else ()
        self._known = {_key(row): _facts(row) for row in rows}
        self._complete = {
            _key(row)[:-1] for row in rows if row.error or row.epoch == row.epochs or row.score is not None
        }
        for job in filter(self.finished, wanted):
            job.checkpoint(folder).unlink(missing_ok=True)  # left by a kill between its rows and here
        self._tell(None)

    def finished(self, job: Job) -> bool:
        return job.key in self._complete

    def add(self, job: Job, outcome: Outcome) -> None:
        """Append what is new of an outcome; durable when this returns.

        What was there and came out otherwise (an error, or a training begun anew) is added: readers take the last.
        """
        new = [row for row in job.rows(outcome) if self._known.get(_key(row)) != _facts(row)]
        if new:
            append_rows(self.table, new)
            self._known |= {_key(row): _facts(row) for row in new}
        if outcome.error or outcome.score is not None or (outcome.rungs and outcome.rungs[-1].epoch == job.epochs):
            self._complete.add(job.key)
            # Only now: a kill before the rows were written would have cost the whole training.
            job.checkpoint(self._folder).unlink(missing_ok=True)
        self._tell(new[-1] if new else None)

    def _tell(self, row: TableRow | None) -> None:
        if self._watch is not None:
            self._watch(Progress(sum(map(self.finished, self._wanted)), len(self._wanted), row))


def _key(row: TableRow) -> tuple[str, int, str, int]:
    return row.digest, row.seed, row.fidelity, row.epoch


def _facts(row: TableRow) -> tuple[float | None, float | None, bool]:
    """What a repeated training must come to again."""
    return row.top1, row.loss, bool(row.error)


def _pooled(
    waiting: deque[Job], settings: WorkerSettings, folder: Path, workers: int, book: _Book, deadline: float | None,
    clock: Callable[[], float],
) -> list[Job]:  # fmt: skip
    """Work through `waiting`; returns the jobs that were in flight when a worker died."""
    crashed: list[Job] = []
    stop = folder / _STOP_FILE
    while waiting and (deadline is None or clock() < deadline) and not stop.exists():
        crashed += _until_a_worker_dies(waiting, settings, folder, workers, book, deadline, clock)
    return crashed


def _until_a_worker_dies(
    waiting: deque[Job], settings: WorkerSettings, folder: Path, workers: int, book: _Book, deadline: float | None,
    clock: Callable[[], float],
) -> list[Job]:  # fmt: skip
    # Spawned: a forked process would share torch's threads, and could not use a GPU.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=prepare_worker, initargs=(settings, folder))
    stop = folder / _STOP_FILE
    running: dict[Future[Outcome], Job] = {}
    lost: list[Job] = []
    try:
        _require_workers(pool)
        while len(running) < workers and _submit_next(pool, waiting, running):
            pass
        while running:
            left = None if deadline is None else max(0.0, deadline - clock())
            done, _ = wait(running, timeout=left if left else 1.0, return_when=FIRST_COMPLETED)
            if left == 0.0:
                stop.touch()  # every worker looks for it after every epoch
            for future in done:
                job = running.pop(future)
                try:
                    book.add(job, future.result())
                except BrokenProcessPool:
                    lost.append(job)
                    continue
                if not lost and not stop.exists():
                    _submit_next(pool, waiting, running)
        return lost
    except BaseException:
        stop.touch()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _require_workers(pool: ProcessPoolExecutor) -> None:
    """Ask for nothing first: a pool that cannot even start must not count against the trainings."""
    try:
        pool.submit(os.getpid).result()
    except BrokenProcessPool:
        rule = "worker processes die as they start: is there memory for them?"
        advice = 'a script that trains needs its code under `if __name__ == "__main__":`'
        raise WorkError(f"{rule} {advice}") from None


def _submit_next(pool: ProcessPoolExecutor, waiting: deque[Job], running: dict[Future[Outcome], Job]) -> bool:
    """Whether there was a job, and a pool to take it; in a pool that broke meanwhile the job stays at the front."""
    if not waiting:
        return False
    try:
        running[pool.submit(work, waiting[0])] = waiting[0]
    except BrokenProcessPool:
        return False
    waiting.popleft()
    return True


def default_workers(device: str, threads: int = 1) -> int:
    """Trainings at once: as many as there are cores for; on a GPU four, which one small network leaves mostly idle."""
    return 4 if device.startswith("cuda") else max(1, (os.cpu_count() or 1) // threads)
