"""What the driver asks before it has anything trained: whether somebody did so already."""

from typing import Protocol

from mvit_search.search.task import Evaluation, Task


class Memory(Protocol):
    """Valuations of earlier runs, and a place for this one's."""

    def get(self, task: Task) -> Evaluation | None:
        """The same training done earlier, as `remembered`; None if there is none."""

    def put(self, task: Task, evaluation: Evaluation) -> None:
        """Keep one for later runs."""


class NoMemory:
    """Knows nothing and keeps nothing."""

    def get(self, task: Task) -> Evaluation | None:
        return None

    def put(self, task: Task, evaluation: Evaluation) -> None:
        return None


class Recall:
    """What another run came to that this one goes on from, then what any run on this machine did."""

    @classmethod
    def of(cls, plan, earlier, notice):
        return NoMemory()
