"""What the driver asks before it has anything trained: whether somebody did so already."""

from collections.abc import Callable
from typing import Protocol

from mvit_search.search.known import KeyMaker, KnownEvaluations
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
    """What the run that this one goes on from came to, and what any run on this machine did."""

    def __init__(
        self, given: Callable[[Task], Evaluation | None], known: KnownEvaluations | None, keys: KeyMaker
    ) -> None:
        """`given` comes first; `known` is None where nothing is to be taken from other runs, nor kept for them."""
        self._given, self._known, self._keys = given, known, keys

    def get(self, task: Task) -> Evaluation | None:
        found = self._given(task)
        if found is None and self._known is not None:
            found = self._known.get(self._keys.key_of(task))
        return found

    def put(self, task: Task, evaluation: Evaluation) -> None:
        if self._known is not None:
            self._known.put(self._keys.key_of(task), evaluation)
