"""The plain engine: one task at a time, in this process. With it a run is a function of its seed."""

from collections import deque
from typing import Self

from mvit_search.search.engines._base import EngineSettings, Finished
from mvit_search.search.task import Evaluator, Task


class InProcess:
    """Works when it is waited for."""

    capacity = 1

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._waiting: deque[Task] = deque()

    @classmethod
    def open(cls, settings: EngineSettings) -> Self:
        """Load the data here; `workers`, `address` mean nothing to it."""
        return cls(settings.make())

    @property
    def running(self) -> int:
        return len(self._waiting)

    def submit(self, task: Task) -> None:
        self._waiting.append(task)

    def wait(self, timeout_s: float | None) -> list[Finished]:
        """The oldest task, done now, however long it takes."""
        if not self._waiting:
            return []
        task = self._waiting[0]
        finished = Finished(task, self._evaluator.evaluate(task))
        self._waiting.popleft()
        return [finished]

    def stop(self) -> None:
        self._waiting.clear()

    def close(self) -> None:
        self._waiting.clear()
