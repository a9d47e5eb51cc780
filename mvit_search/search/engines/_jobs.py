"""What an engine with workers knows of a task that it has given out: how often its worker died, and what that took."""

import time
from dataclasses import dataclass

from mvit_search.search.engines._base import RETRIES
from mvit_search.search.task import Evaluation, Failure, Task


@dataclass
class Job:
    """One task, through all its tries. `seconds` are those of the tries whose worker died."""

    task: Task
    deaths: int = 0
    seconds: float = 0.0
    began: float = 0.0

    def begin(self) -> None:
        """A try begins now."""
        self.began = time.monotonic()

    def worker_died(self, cause: str) -> Evaluation | None:
        """Count a death. None: the task is to be tried again; else what it comes back as."""
        self.deaths += 1
        self.seconds += time.monotonic() - self.began
        if self.deaths <= RETRIES:
            return None
        error = f"the worker process died {self.deaths} times ({cause})"
        return Evaluation(None, self.seconds, error=error, failure=Failure.WORKER)

    def stopped(self) -> Evaluation:
        """What it comes back as if it was told to stop, and had nothing to say."""
        return Evaluation(None, self.seconds, stopped=True)
