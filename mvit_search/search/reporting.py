"""What a run writes into its folder as it goes, and what it tells whoever watches."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from mvit_search.errors import WorkError
from mvit_search.records import Record, RunFolder, best
from mvit_search.search.book import Book
from mvit_search.search.brake import Brake
from mvit_search.search.engines import Engine
from mvit_search.search.estimate import Here, remaining_s
from mvit_search.search.plan import Plan
from mvit_search.search.progress import Observer, Progress, RungProgress
from mvit_search.search.result import EndedBy, front_document
from mvit_search.search.task import Task

_PAUSES = 20
"""Writing results takes at most one part in so many of a run's time; what is stored does not wait for it."""
_TICK_S = 1.0
_HISTORY = 40


class _Begun(NamedTuple):
    """A task under way. `new`: the first of a candidate that counts against the trials."""

    rung: int
    at: float
    new: bool


class Reporter:
    """Derives the result files from the book, and progress for the observer.

    Attributes:
        finals_ahead: trainings of the finals that are planned and not begun.
        count_finals: counts them anew.
    """

    def __init__(
        self, plan: Plan, folder: RunFolder, book: Book, engine: Engine, observer: Observer, brake: Brake, *,
        counts: Mapping[str, int], reference: Mapping[str, float], untrained: list[dict[str, Any]],
    ) -> None:  # fmt: skip
        self._plan, self._folder, self._book, self._engine = plan, folder, book, engine
        self._observer, self._brake, self._counts, self._reference = observer, brake, counts, reference
        self._untrained = untrained
        self._start = brake.clock()
        self._next_write = self._next_tick = 0.0
        self._finals_done = 0
        self._phase = "search"
        self.finals_ahead = 0
        self.count_finals: Callable[[], int] | None = None
        self._under_way: dict[tuple[str, int, int], _Begun] = {}
        self._spent_before_s = sum(book.seconds_at)
        self._candidates = min(plan.settings.trials, plan.space.size() + len(self._untrained))
        self._history: list[tuple[float, float]] = []

    def write(self, state: str, ended_by: EndedBy | None, *, lazily: bool = False) -> dict[str, object]:
        """Write the result files and return the front document; `lazily` not if that was done just now.

        Raises:
            WorkError: they cannot be written.
        """
        begin = time.monotonic()
        if lazily and begin < self._next_write:
            return {}
        document = front_document(
            self._plan, self._folder, self._book, self._untrained, self._counts, state=state, ended_by=ended_by,
            reference=self._reference,
        )  # fmt: skip
        try:
            self._folder.write_results(document, self._book.records, self._book.front.members)
        except OSError as error:
            rule = f"{self._folder.path} cannot be written ({error.strerror})"
            raise WorkError(f"{rule}: free space or give leave, then carry on; nothing finished is lost") from None
        end = time.monotonic()
        self._next_write = end + _PAUSES * (end - begin)
        return document

    def begun(self, task: Task, *, new: bool) -> None:
        """A task went to the engine; `new`: the first of a candidate that counts against the trials."""
        self._under_way[_key(task)] = _Begun(task.rung, self._brake.clock(), new)
        if self._phase == "finals":
            self.finals_ahead = max(0, self.finals_ahead - 1)
        self.tell(self._phase)  # at once: an engine that works in this process says nothing until it is done

    def landed(self, task: Task) -> None:
        """It came back."""
        del self._under_way[_key(task)]

    def settled(self, record: Record) -> None:
        """A candidate was valued: write what follows, unless that was done just now, and tell."""
        self._finals_done += self._phase == "finals"
        if self._phase == "finals" and self.count_finals is not None:
            self.finals_ahead = self.count_finals()  # the front may have changed
        self.write("running", None, lazily=True)
        self.tell(self._phase, record)

    def tick(self) -> None:
        """Let the clock be seen to go on while nothing else happens."""
        if time.monotonic() >= self._next_tick:
            self.tell(self._phase)

    def tell(self, phase: str, record: Record | None = None) -> None:
        """Tell the observer how things stand; `record` is the candidate that was just valued."""
        self._phase = phase
        if phase == "done":
            self._under_way.clear()  # what was left at the time limit did not come back
        self._next_tick = time.monotonic() + _TICK_S
        book = self._book
        elapsed = self._brake.clock() - self._start
        volume = book.front.hypervolume()
        if book.front.members and volume is not None and (not self._history or self._history[-1][1] != volume):
            self._history.append((elapsed, volume))
        front = book.front.members
        by_rung = Counter(begun.rung for begun in self._under_way.values())
        finals_under_way = len(self._under_way) if phase == "finals" else 0
        rungs = tuple(
            RungProgress(str(rung), book.valued_at[index], by_rung[index])
            for index, rung in enumerate(self._plan.ladder.rungs)
        )
        self._observer.update(
            Progress(
                phase, book.proposed + self._new, book.outcomes["trained"] + book.outcomes["scored"],
                self._plan.settings.trials, book.outcomes["stopped"], book.outcomes["failed"], dict(book.failures),
                self._counts["rejected"], self._counts["duplicate"], book.remembered,
                (self._finals_done, self._finals_done + finals_under_way + self.finals_ahead), rungs,
                (min(self._engine.running, self._engine.capacity), self._engine.capacity),
                best(front) if front else None, volume, self._evenly(elapsed), elapsed, self._remaining(phase, elapsed),
            ),
            record,
        )  # fmt: skip

    @property
    def _new(self) -> int:
        return sum(begun.new for begun in self._under_way.values())

    def _remaining(self, phase: str, elapsed: float) -> float | None:
        if self._plan.replay is not None:
            return None  # a table's seconds are not this run's
        now = self._brake.clock()
        here = Here(
            self._candidates, self._new, tuple((begun.rung, now - begun.at) for begun in self._under_way.values()),
            max(1, self._engine.capacity), elapsed, sum(self._book.seconds_at) - self._spent_before_s,
        )  # fmt: skip
        known = self.finals_ahead or self._under_way or self._finals_done
        return remaining_s(self._plan, self._book, here, self.finals_ahead if phase == "finals" and known else None)

    def _evenly(self, elapsed: float) -> tuple[float, ...]:
        """The hypervolume at evenly spaced times from the first until now."""
        if not self._history:
            return ()
        begin = self._history[0][0]
        values, index = [], 0
        for place in range(_HISTORY):
            at = begin + (elapsed - begin) * place / (_HISTORY - 1)
            while index + 1 < len(self._history) and self._history[index + 1][0] <= at:
                index += 1
            values.append(self._history[index][1])
        return tuple(values)


def _key(task: Task) -> tuple[str, int, int]:
    return task.config.digest(), task.seed, task.rung
