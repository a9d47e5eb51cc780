"""Latencies of candidates, one after the other: the device, or the server before it, is asked one thing at a time.

What is predicted costs microseconds and is known at once. So it is where the trainings run in this process, for these
would disturb a measurement. Beside workers a measurement has a thread of its own, so that they need not wait for it.
"""

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Self

from mvit_search.architecture import MobileViTConfig
from mvit_search.errors import TargetUnavailable, WorkError
from mvit_search.latency import Target
from mvit_search.records import LatencyFact
from mvit_search.records.record import Origin


@dataclass(frozen=True)
class Candidate:
    """A candidate that was begun and has no record yet.

    Attributes:
        trial: number of the trial that proposed it; None of a preset outside the space.
        begun: place in the run's order of events.
    """

    config: MobileViTConfig
    trial: int | None
    name: str | None
    origin: Origin
    begun: int

    def at(self, event: int) -> Self:
        """The same, begun at that event."""
        return replace(self, begun=event)


Timed = tuple[Candidate, LatencyFact | WorkError]


class LatencyQueue:
    """`submit` candidates, `take` them with their latencies, or with why there is none."""

    def __init__(self, target: Target, num_classes: int, *, aside: bool) -> None:
        """`aside`: measure in a thread of its own."""
        self._target, self._num_classes = target, num_classes
        self._thread = ThreadPoolExecutor(1, "latency") if aside and target.measured else None
        self._waiting: deque[tuple[Candidate, Future[LatencyFact | WorkError]]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def candidates(self) -> list[Candidate]:
        """Who waits, in order."""
        return [candidate for candidate, _ in self._waiting]

    def submit(self, candidate: Candidate) -> None:
        """Ask for a latency.

        Raises:
            TargetUnavailable: nothing measures any more; the candidate stays a proposal in flight.
        """
        if self._thread is not None:
            self._waiting.append((candidate, self._thread.submit(self._latency, candidate.config)))
            return
        known: Future[LatencyFact | WorkError] = Future()
        known.set_result(self._latency(candidate.config))
        self._waiting.append((candidate, known))

    def take(self) -> Timed | None:
        """The next candidate whose latency is known; raises as `submit`."""
        if not self._waiting or not self._waiting[0][1].done():
            return None
        candidate, future = self._waiting.popleft()
        return candidate, future.result()

    def wait(self, seconds: float) -> None:
        """Wait for the next latency, or so long."""
        if self._waiting:
            wait([self._waiting[0][1]], seconds)
        else:
            time.sleep(seconds)

    def forget(self) -> None:
        """Nobody waits for a latency any more."""
        for _, future in self._waiting:
            future.cancel()
        self._waiting.clear()

    def close(self) -> None:
        """Let go of what was not asked yet."""
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _latency(self, config: MobileViTConfig) -> LatencyFact | WorkError:
        try:
            return LatencyFact.of(self._target.latency(config, self._num_classes))
        except TargetUnavailable:
            raise  # not this candidate's fault
        except WorkError as error:
            return error
