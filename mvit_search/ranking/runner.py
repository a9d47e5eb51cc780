"""Training every candidate at every fidelity, in worker processes, in chunks of any length, into one table."""

import itertools
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

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
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "checkpoints").mkdir(exist_ok=True)
    table = folder / "table.csv"
    stop = folder / _STOP_FILE
    stop.unlink(missing_ok=True)
    book = _Book(table, wanted, watch)
    deadline = None if seconds is None else clock() + seconds
    waiting = [job for job in wanted if not book.finished(job)]
    try:
        crashed = _pooled(waiting, settings, folder, workers, book, deadline, clock)
        for job in crashed:
            if (deadline is None or clock() < deadline) and _pooled([job], settings, folder, 1, book, deadline, clock):
                book.add(job, Outcome((), "the worker process died twice"))
    finally:
        stop.unlink(missing_ok=True)
    return table


class _Book:
    """The table as it grows: which rows it holds, and which trainings are complete."""

    def __init__(self, table: Path, wanted: list[Job], watch: Watch | None) -> None:
        self._table, self._wanted, self._watch = table, wanted, watch
        rows = read_table(table) if table.exists() else ()
        self._known = {_key(row) for row in rows}
        self._complete = {
            _key(row)[:-1] for row in rows if row.error or row.epoch == row.epochs or row.score is not None
        }
        self._tell(None)

    def finished(self, job: Job) -> bool:
        return job.key in self._complete

    def add(self, job: Job, outcome: Outcome) -> None:
        """Append what is new of an outcome; durable when this returns."""
        new = [row for row in job.rows(outcome) if _key(row) not in self._known]
        if new:
            append_rows(self._table, new)
            self._known |= {_key(row) for row in new}
        if outcome.error or outcome.score is not None or (outcome.rungs and outcome.rungs[-1].epoch == job.epochs):
            self._complete.add(job.key)
        self._tell(new[-1] if new else None)

    def _tell(self, row: TableRow | None) -> None:
        if self._watch is not None:
            self._watch(Progress(sum(map(self.finished, self._wanted)), len(self._wanted), row))


def _key(row: TableRow) -> tuple[str, int, str, int]:
    return row.digest, row.seed, row.fidelity, row.epoch


def _pooled(
    waiting: list[Job], settings: WorkerSettings, folder: Path, workers: int, book: _Book, deadline: float | None,
    clock: Callable[[], float],
) -> list[Job]:  # fmt: skip
    """Work through `waiting`; returns the jobs that were in flight when a worker died."""
    queue: Iterator[Job] = iter(waiting)
    crashed: list[Job] = []
    while True:
        first = list(itertools.islice(queue, workers))
        if not first or (deadline is not None and clock() >= deadline):
            return crashed
        lost = _until_a_worker_dies(first, queue, settings, folder, workers, book, deadline, clock)
        if not lost:
            return crashed
        crashed += lost


def _until_a_worker_dies(
    first: list[Job], queue: Iterator[Job], settings: WorkerSettings, folder: Path, workers: int, book: _Book,
    deadline: float | None, clock: Callable[[], float],
) -> list[Job]:  # fmt: skip
    # Spawned: a forked process would share torch's threads, and could not use a GPU.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=prepare_worker, initargs=(settings, folder))
    stop = folder / _STOP_FILE
    lost: list[Job] = []
    running: dict[Future[Outcome], Job] = {}
    try:
        running |= {pool.submit(work, job): job for job in first}
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
                following = None if lost or stop.exists() else next(queue, None)
                if following is not None:
                    running[pool.submit(work, following)] = following
        return lost
    except BaseException:
        stop.touch()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def default_workers(device: str) -> int:
    """Trainings at once: one a core, each of one thread; on a GPU four, which one small network leaves mostly idle."""
    return 4 if device.startswith("cuda") else max(1, os.cpu_count() or 1)
