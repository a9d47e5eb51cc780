"""Worker processes on this machine. One that dies is replaced, and only its own task is tried again.

`concurrent.futures` gives every task of a pool up when one process dies. So this is a pool of its own: each worker is a
process, a pipe, and at most one task.
"""

import multiprocessing
import pickle
import signal
import time
from collections import deque
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Self

from mvit_search.errors import WorkError
from mvit_search.search.engines._base import RETRIES, EngineSettings, Finished
from mvit_search.search.engines._jobs import Job
from mvit_search.search.engines._pool_worker import Said, WorkerSettings, serve
from mvit_search.search.engines._workers import checked_workers, default_workers, gpus_to_share
from mvit_search.search.task import Evaluation, Task


def stop_file(folder: Path) -> Path:
    """The file in a run's folder that tells evaluators to end their tasks.

    It is there once `stop` was called; `open` removes it. An evaluator that finds it between epochs answers
    `Evaluation(stopped=True)`. One that never looks works on until `close` ends its process.
    """
    return folder / "stop"


@dataclass
class _Worker:
    slot: int
    process: SpawnProcess
    pipe: Connection
    ready: bool = False
    gone: bool = False
    job: Job | None = None


class Pool:
    """See `Engine`. A worker is asked for one task at a time; what else was submitted waits here."""

    def __init__(self, settings: EngineSettings) -> None:
        self._notice = settings.notice
        self._stop_file = stop_file(settings.folder)
        self._stopping = False
        self._waiting: deque[Job] = deque()
        self._done: list[Finished] = []
        self._make, self._threads = pickle.dumps(settings.make), settings.threads
        self._gpus = gpus_to_share(settings.device)
        workers = checked_workers(settings.workers)
        count = workers or default_workers(settings.device, settings.threads, len(self._gpus))
        self._workers: dict[int, _Worker] = {}
        self._deaths_at_start = [0] * count

    @classmethod
    def open(cls, settings: EngineSettings) -> Self:
        """Start the workers; returns when the first has made its evaluator.

        Raises:
            InputError: no workers.
            WorkError: workers die as they start.
            Exception: whatever the factory raised in a worker.
        """
        pool = cls(settings)
        pool._stop_file.unlink(missing_ok=True)
        try:
            for slot in range(len(pool._deaths_at_start)):
                pool._start(slot)
            while not any(worker.ready for worker in pool._workers.values()):
                pool._listen(None)
        except BaseException:
            pool.close()
            raise
        return pool

    @property
    def capacity(self) -> int:
        return len(self._workers)

    @property
    def running(self) -> int:
        working = sum(worker.job is not None for worker in self._workers.values())
        return working + len(self._waiting) + len(self._done)

    def submit(self, task: Task) -> None:
        self._waiting.append(Job(task))
        self._give_out()

    def wait(self, timeout_s: float | None) -> list[Finished]:
        """See `Engine`. What the evaluator raised in a worker is raised here."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._done and self.running:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                break
            self._listen(left)
        done, self._done = self._done, []
        return done

    def stop(self) -> None:
        """Write the stop file, which evaluators look for; what has not begun comes back at once."""
        self._stopping = True
        self._stop_file.touch()
        self._done += [Finished(job.task, job.stopped()) for job in self._waiting]
        self._waiting.clear()

    def close(self) -> None:
        for worker in self._workers.values():
            worker.process.kill()
        for worker in self._workers.values():
            worker.process.join()
            worker.pipe.close()
        self._workers.clear()
        self._waiting.clear()
        self._done.clear()

    def _start(self, slot: int) -> None:
        # Spawned: a forked process would share torch's threads, and could not use a GPU.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        gpu = self._gpus[slot % len(self._gpus)] if self._gpus else None
        settings = WorkerSettings(self._make, self._threads, gpu)
        process = context.Process(target=serve, args=(theirs, settings), name=f"worker {slot + 1}", daemon=True)
        # Its start unblocks the signal, so that must be over.
        resource_tracker.ensure_running()
        # A process inherits what is blocked: Ctrl-C must not end one that has not yet got to ignoring it.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        theirs.close()  # else its end would not be seen when the worker dies
        self._workers[slot] = _Worker(slot, process, ours)

    def _give_out(self) -> None:
        for worker in self._workers.values():
            if not self._waiting:
                return
            if worker.gone or not worker.ready or worker.job is not None:
                continue
            try:
                worker.pipe.send(self._waiting[0].task)
            except OSError:
                continue  # it has just died, without a task: seen at the next wait
            worker.job = self._waiting.popleft()
            worker.job.begin()

    def _listen(self, timeout_s: float | None) -> None:
        pipes = {worker.pipe: worker for worker in self._workers.values()}
        ends = {worker.process.sentinel: worker for worker in self._workers.values()}
        for heard in wait([*pipes, *ends], timeout_s):
            if isinstance(heard, int):
                self._bury(ends[heard])
            elif isinstance(heard, Connection):
                self._hear(pipes[heard])

    def _hear(self, worker: _Worker) -> None:
        if worker.gone:
            return
        try:
            said = worker.pipe.recv()
        except (EOFError, OSError):
            self._bury(worker)
        else:
            self._take(worker, said)

    def _take(self, worker: _Worker, said: Said) -> None:
        job, worker.job = worker.job, None
        if isinstance(said, Exception):
            raise said
        if said is None:
            worker.ready = True
            self._deaths_at_start[worker.slot] = 0
        elif job is not None:
            self._done.append(Finished(job.task, said))
        self._give_out()

    def _bury(self, worker: _Worker) -> None:
        """Replace a worker whose process has ended, or is about to."""
        if worker.gone:
            return
        worker.process.join(5)
        worker.process.kill()  # it closed its pipe and yet lives: nobody hears it
        worker.process.join()
        worker.gone = True
        try:
            while worker.pipe.poll():
                self._take(worker, worker.pipe.recv())  # what it said before it died counts
        except (EOFError, OSError):
            pass
        worker.pipe.close()
        job, worker.job = worker.job, None
        cause = _cause(worker.process.exitcode)
        if job is not None:
            self._mourn(job, cause)
        if worker.ready or self._may_start_again(worker.slot, cause):
            self._start(worker.slot)

    def _mourn(self, job: Job, cause: str) -> None:
        given_up: Evaluation | None = job.stopped() if self._stopping else job.worker_died(cause)
        if given_up is not None:
            self._done.append(Finished(job.task, given_up))
            return
        self._notice(f"a worker died ({cause}): its task is tried again")
        self._waiting.appendleft(job)

    def _may_start_again(self, slot: int, cause: str) -> bool:
        """Whether a worker that died as it started is tried once more; else the pool goes on with one fewer."""
        self._deaths_at_start[slot] += 1
        if self._deaths_at_start[slot] <= RETRIES:
            return True
        del self._workers[slot]
        if not self._workers:
            rule = f"worker processes die as they start ({cause}): is there memory for them? give fewer --workers;"
            advice = 'a script that searches needs its code under `if __name__ == "__main__":`'
            raise WorkError(f"{rule} {advice}")
        self._notice(f"a worker dies as it starts ({cause}): going on with {len(self._workers)}")
        return False


def _cause(exit_code: int | None) -> str:
    return f"signal {-exit_code}" if exit_code is not None and exit_code < 0 else f"exit code {exit_code}"
