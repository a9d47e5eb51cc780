"""One measurement at a time: a queue with an end, and what became of each job.

Everything here runs in the server's event loop but the measuring itself, which has a thread of its own.
"""

import asyncio
import logging
import math
import secrets
import shutil
import time
from collections import OrderedDict, deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mvit_search.errors import InputError, MvitSearchError
from mvit_search.latency.runtime import Measurement, Runtime
from mvit_search.latency.server.access import Refused
from mvit_search.latency.server.cache import ResultCache

State = Literal["queued", "running", "done", "failed"]
FailureKind = Literal["input", "work", "internal", "closing"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Artifact:
    """An upload, checked: what is measured, in a folder of its own that goes when it was."""

    path: Path
    folder: Path
    digest: str
    name: str

    def discard(self) -> None:
        """Remove the folder and what is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass
class Job:
    """One measurement that was asked for.

    Attributes:
        cached: whether the result was known before it was asked for.
        failure: what kind of failure, and why, in words.
        over: set once the job is done or failed.
    """

    id: str
    artifact: Artifact
    state: State = "queued"
    cached: bool = False
    measurement: Measurement | None = None
    failure: tuple[FailureKind, str] | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def finish(self, measurement: Measurement) -> None:
        self.state, self.measurement = "done", measurement
        self.over.set()

    def fail(self, kind: FailureKind, why: str) -> None:
        self.state, self.failure = "failed", (kind, why)
        self.over.set()


class MeasuringQueue:
    """Takes artifacts, measures one after the other in the order they came, and remembers the latest jobs."""

    def __init__(self, runtime: Runtime, cache: ResultCache, *, capacity: int, kept: int) -> None:
        self._runtime, self._cache = runtime, cache
        self._capacity, self._kept = capacity, kept
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._work = asyncio.Event()
        self._last_seconds = 5.0
        self.closing = asyncio.Event()
        self.latest: Measurement | None = None

    def submit(self, artifact: Artifact) -> Job:
        """The job for an artifact: a new one, one that is on its way for the same content, or one with a known result.

        Raises:
            Refused: 503, the queue is full or closing.
        """
        known = self._cache.find(artifact.digest)
        if known is not None:
            artifact.discard()
            job = self._add(artifact)
            job.cached = True
            job.finish(known)
            return job
        in_flight = [*self._waiting, *([self._running] if self._running else [])]
        for job in in_flight:
            if job.artifact.digest == artifact.digest:
                artifact.discard()
                return job
        self.check_room()
        job = self._add(artifact)
        self._waiting.append(job)
        self._work.set()
        return job

    def check_room(self) -> None:
        """Refuse while nothing more can be taken.

        Raises:
            Refused: 503, with the seconds after which it may be otherwise.
        """
        if self.closing.is_set():
            raise Refused(503, "the server is shutting down", 5)
        if len(self._waiting) >= self._capacity:
            raise Refused(503, f"the queue is full ({self._capacity} wait)", max(1, math.ceil(self._last_seconds)))

    def find(self, job_id: str) -> Job | None:
        return self._jobs.get(job_id)

    def ahead_of(self, job: Job) -> int | None:
        """How many jobs come before it, the running one included; None if it no longer waits."""
        if job not in self._waiting:
            return None
        return self._waiting.index(job) + (self._running is not None)

    async def wait(self, job: Job, seconds: float) -> None:
        """Wait until the job is over or the server closes, at most `seconds`."""
        tasks = [asyncio.create_task(event.wait()) for event in (job.over, self.closing)]
        try:
            await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    def close(self) -> None:
        """Take nothing more; what waits has failed, what runs is still finished."""
        self.closing.set()
        while self._waiting:
            job = self._waiting.popleft()
            job.artifact.discard()
            job.fail("closing", "the server is shutting down")
        self._work.set()

    async def work(self) -> None:
        """Measure until the queue is closed."""
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="measuring") as thread:
            while not self.closing.is_set():
                if not self._waiting:
                    self._work.clear()
                    await self._work.wait()
                    continue
                await self._measure(self._waiting.popleft(), thread)

    async def _measure(self, job: Job, thread: ThreadPoolExecutor) -> None:
        self._running, job.state = job, "running"
        start = time.monotonic()
        loop = asyncio.get_running_loop()
        try:
            measurement = await loop.run_in_executor(thread, self._runtime.measure, job.artifact.path)
            self._cache.keep(job.artifact.digest, measurement)
        except MvitSearchError as error:
            job.fail("input" if isinstance(error, InputError) else "work", str(error))
            _log.info("%s failed: %s", job.artifact.name, error)
        except Exception as error:
            # One network that a runtime chokes on must not end the server; the words stay here, in its log.
            job.fail("internal", f"the server failed with {type(error).__name__}; its log says more")
            _log.exception("%s failed", job.artifact.name)
        else:
            self.latest = measurement
            job.finish(measurement)
            _log.info("%s: %.3f ms, %d wait", job.artifact.name, measurement.p50_ms, len(self._waiting))
        finally:
            self._running = None
            self._last_seconds = time.monotonic() - start
            job.artifact.discard()

    def _add(self, artifact: Artifact) -> Job:
        job = Job(secrets.token_hex(8), artifact)
        self._jobs[job.id] = job
        over = [old for old, other in self._jobs.items() if other.over.is_set()]
        for old in over[: max(0, len(self._jobs) - self._kept)]:
            del self._jobs[old]
        return job


def job_document(job: Job, ahead: int | None, calibration: str) -> dict[str, Any]:
    """A job for JSON: its state, and its result or failure once there is one."""
    return {
        "id": job.id,
        "state": job.state,
        "ahead": ahead,
        "cached": job.cached,
        "name": job.artifact.name,
        "digest": job.artifact.digest,
        "calibration": calibration,
        "measurement": None if job.measurement is None else job.measurement.document(),
        "failure": None if job.failure is None else {"kind": job.failure[0], "why": job.failure[1]},
    }
