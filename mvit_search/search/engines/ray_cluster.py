"""Ray: workers on this machine or on a cluster, which may grow and shrink while the run goes on.

Ray could try tasks again by itself (`max_retries`). Here the driver does, because Ray tries those that ran out of
memory again without end, and says nothing. So deaths are counted and told as the pool does.
"""

import contextlib
import time
import uuid
from pathlib import Path
from typing import Any, NamedTuple, Self

from mvit_search import __version__
from mvit_search._files import write_atomically
from mvit_search.errors import InputError, WorkError
from mvit_search.search.engines._base import RETRIES, EngineSettings, Finished
from mvit_search.search.engines._jobs import Job
from mvit_search.search.engines._ray_address import connect_ray, start_ray
from mvit_search.search.engines._ray_worker import Answer, Order, work
from mvit_search.search.engines._workers import WORKERS_OF_A_GPU, checked_workers, default_workers
from mvit_search.search.task import Evaluation, Task

_LOOK_S = 1.0
_FIRST_WORKER_S = 60.0


class _Given(NamedTuple):
    """A task with Ray. `start`: reference to the bytes of its weights file, shipped once for all tries."""

    job: Job
    start: Any


class RayCluster:
    """See `Engine`. Every task is a Ray task of `threads` CPUs, on a GPU with a share of it."""

    def __init__(self, settings: EngineSettings, ray: Any, share: float, workers: int | None) -> None:
        self._ray, self._notice, self._share, self._most = ray, settings.notice, share, workers
        self._threads = settings.threads
        # A worker of a task with a GPU would otherwise end after each task, and its evaluator with it.
        remote = ray.remote(num_cpus=settings.threads, num_gpus=share, max_calls=0, max_retries=0)
        self._work = remote(work)
        self._order = Order(uuid.uuid4().hex, __version__, (ray.put(settings.make),), settings.threads)
        self._given: dict[Any, _Given] = {}
        self._done: list[Finished] = []
        self._stopping = self._closed = False
        self._looked_at = time.monotonic()
        self._capacity = self._count()

    @classmethod
    def open(cls, settings: EngineSettings) -> Self:
        """Start a cluster or join one; returns when a worker has made its evaluator, or there is none yet.

        Raises:
            InputError: no workers, no Ray, an address that does not answer, or `cuda:N`, for Ray hands out the GPUs.
            WorkError: the cluster does not start, or workers die as they start.
            Exception: whatever the factory raised in a worker.
        """
        workers = checked_workers(settings.workers)
        on_gpu = settings.device == "cuda"
        if settings.device.startswith("cuda:"):
            raise InputError("--device", settings.device, "Ray hands out the GPUs itself", "give --device cuda")
        if settings.address is None:
            cpus = (workers or default_workers(settings.device, settings.threads, 1)) * settings.threads
            ray = start_ray(cpus, None if on_gpu else 0)
        else:
            ray = connect_ray(settings.address)
        try:
            share = _share_of_a_gpu(ray.cluster_resources(), workers) if on_gpu else 0.0
            cluster = cls(settings, ray, share, workers)
            cluster._try_a_worker()
        except BaseException:
            ray.shutdown()
            raise
        return cluster

    @property
    def capacity(self) -> int:
        self._look()
        return self._capacity

    @property
    def running(self) -> int:
        return len(self._given) + len(self._done)

    def submit(self, task: Task) -> None:
        start = None if task.start is None else _content(task.start)
        self._give_out(_Given(Job(task), None if start is None else self._ray.put(start)))

    def wait(self, timeout_s: float | None) -> list[Finished]:
        """See `Engine`. What the evaluator raised in a worker is raised here."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._done and self._given:
            left = _LOOK_S if deadline is None else min(_LOOK_S, deadline - time.monotonic())
            self._look()
            come, _ = self._ray.wait(list(self._given), num_returns=1, timeout=max(0.0, left))
            for reference in come:
                self._take(reference)
            if deadline is not None and time.monotonic() >= deadline:
                break
        done, self._done = self._done, []
        return done

    def stop(self) -> None:
        """Cancel every task: Ray raises KeyboardInterrupt in those that run, and drops those that wait.

        So nobody has to look for anything, on any node, and no flag has to be reached over the network.
        """
        self._stopping = True
        for reference in self._given:
            self._ray.cancel(reference, force=False)

    def close(self) -> None:
        """Leave the cluster, which ends this driver's workers; a cluster that `open` started ends with it."""
        if self._closed:
            return
        self._closed = True
        for reference in self._given:
            with contextlib.suppress(Exception):  # a cluster that is gone has nothing to cancel
                self._ray.cancel(reference, force=True)
        self._given.clear()
        self._done.clear()
        self._ray.shutdown()

    def _give_out(self, given: _Given) -> None:
        given.job.begin()
        self._given[self._work.remote(self._order, given.job.task, given.start)] = given

    def _take(self, reference: Any) -> None:
        given = self._given[reference]
        task = given.job.task
        try:
            answer: Answer = self._ray.get(reference)
        except self._ray.exceptions.TaskCancelledError:
            self._finish(reference, given.job.stopped() if self._stopping else given.job.worker_died("cancelled"))
        except self._ray.exceptions.RayError as error:
            cause = self._cause_of_death(error)
            self._finish(reference, given.job.stopped() if self._stopping else given.job.worker_died(cause), cause)
        else:
            if answer.error is not None:
                del self._given[reference]
                raise answer.error
            if answer.kept is not None and task.keep is not None:
                write_atomically(task.keep, answer.kept)
            self._finish(reference, answer.evaluation)

    def _finish(self, reference: Any, evaluation: Evaluation | None, cause: str = "cancelled") -> None:
        """Hand a task back; without an evaluation it is tried again."""
        given = self._given.pop(reference)
        if evaluation is not None:
            self._done.append(Finished(given.job.task, evaluation))
            return
        self._notice(f"a worker died ({cause}): its task is tried again")
        self._give_out(given)

    def _cause_of_death(self, error: Exception) -> str:
        """In words.

        Raises:
            WorkError: nobody died: the task could not run at all, or the cluster is gone.
        """
        known = self._ray.exceptions
        causes = {
            known.WorkerCrashedError: "its process ended",
            known.NodeDiedError: "its node is gone",
            known.OutOfMemoryError: "its node was out of memory",
            known.OutOfDiskError: "its node's disk is full",
            known.ObjectLostError: "what it needed or left was on a node that is gone",
            known.ObjectFetchTimedOutError: "what it needed or left did not arrive",
        }
        for kind, cause in causes.items():
            if isinstance(error, kind):
                return cause
        line = " ".join(str(error).split())[-300:]
        raise WorkError(f"Ray cannot run tasks: {line}; is mvit-search installed on every node?") from error

    def _try_a_worker(self) -> None:
        """Make an evaluator before anything is asked of it, so that what is wrong with the data is said at once."""
        if not self._capacity:
            self._notice("the Ray cluster has no node for a task yet: waiting for one")
            return
        for _ in range(RETRIES + 1):
            reference = self._work.remote(self._order, None, None)
            come, _ = self._ray.wait([reference], timeout=_FIRST_WORKER_S)
            if not come:
                self._notice("the Ray cluster has no free worker yet: waiting for one")
                return
            try:
                answer: Answer = self._ray.get(reference)
            except self._ray.exceptions.RayError as error:
                cause = self._cause_of_death(error)
                continue
            if answer.error is not None:
                raise answer.error
            return
        raise WorkError(f"Ray's workers die as they start ({cause}): is there memory for them? give fewer --workers")

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked_at < _LOOK_S:
            return
        self._looked_at = now
        before, self._capacity = self._capacity, self._count()
        if self._capacity != before:
            self._notice(f"the Ray cluster has room for {self._capacity} tasks now, before for {before}")

    def _count(self) -> int:
        """Tasks that the living nodes have room for; a task does not spread over two of them."""
        rooms = (self._room(node["Resources"]) for node in self._ray.nodes() if node["Alive"])
        total = sum(rooms)
        return total if self._most is None else min(total, self._most)

    def _room(self, resources: dict[str, float]) -> int:
        by_cpu = int(resources.get("CPU", 0.0) / self._threads)
        return min(by_cpu, int(resources.get("GPU", 0.0) / self._share + 1e-6)) if self._share else by_cpu


def _share_of_a_gpu(resources: dict[str, float], workers: int | None) -> float:
    """Of a GPU, for one task: a quarter, or with a number of workers what is each one's. Ray counts in 0.0001."""
    gpus = resources.get("GPU", 0.0)
    if not gpus or workers is None:
        return 1 / WORKERS_OF_A_GPU
    return min(1.0, int(gpus / workers * 10_000) / 10_000)


def _content(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None  # as the contract has it: all rungs are trained again
