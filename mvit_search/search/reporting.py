"""What a run writes into its folder as it goes, and what it tells whoever watches."""

import time
from collections.abc import Mapping

from mvit_search.errors import WorkError
from mvit_search.records import Record, RunFolder, best
from mvit_search.search.book import Book
from mvit_search.search.brake import Brake
from mvit_search.search.engines import Engine
from mvit_search.search.estimate import remaining_s
from mvit_search.search.plan import Plan
from mvit_search.search.progress import Observer, Progress, RungProgress
from mvit_search.search.result import EndedBy, front_document, untrained_row

_PAUSES = 20
"""Writing results takes at most one part in so many of a run's time; what is stored does not wait for it."""
_TICK_S = 1.0
_HISTORY = 40


class Reporter:
    """Derives the result files from the book, and progress for the observer.

    Attributes:
        finals_ahead: trainings of the finals that are planned or under way.
        under_way: tasks under way, by rung.
    """

    def __init__(
        self, plan: Plan, folder: RunFolder, book: Book, engine: Engine, observer: Observer, brake: Brake, *,
        counts: Mapping[str, int], reference: Mapping[str, float],
    ) -> None:  # fmt: skip
        self._plan, self._folder, self._book, self._engine = plan, folder, book, engine
        self._observer, self._brake, self._counts, self._reference = observer, brake, counts, reference
        self._untrained = [untrained_row(plan, name, config) for name, config in plan.presets().items()]
        self._start = brake.clock()
        self._next_write = self._next_tick = 0.0
        self._finals_done = 0
        self._phase = "search"
        self.finals_ahead = 0
        self.under_way = [0] * len(plan.ladder.rungs)
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

    def settled(self, record: Record) -> None:
        """A candidate was valued: write what follows, unless that was done just now, and tell."""
        if self._phase == "finals":
            self._finals_done += 1
            self.finals_ahead = max(0, self.finals_ahead - 1)
        self.write("running", None, lazily=True)
        self.tell(self._phase, record)

    def tick(self) -> None:
        """Let the clock be seen to go on while nothing else happens."""
        if time.monotonic() >= self._next_tick:
            self.tell(self._phase)

    def tell(self, phase: str, record: Record | None = None) -> None:
        """Tell the observer how things stand; `record` is the candidate that was just valued."""
        self._phase = phase
        self._next_tick = time.monotonic() + _TICK_S
        book, settings = self._book, self._plan.settings
        elapsed = self._brake.clock() - self._start
        volume = book.front.hypervolume()
        if volume is not None and (not self._history or self._history[-1][1] != volume):
            self._history.append((elapsed, volume))
        finals = (self._finals_done, self._finals_done + self.finals_ahead)
        front = book.front.members
        ladder = self._plan.ladder
        rungs = tuple(
            RungProgress(str(rung), book.valued_at[index], self.under_way[index])
            for index, rung in enumerate(ladder.rungs)
        )
        self._observer.update(
            Progress(
                phase, book.proposed, book.outcomes["trained"] + book.outcomes["scored"], settings.trials,
                book.outcomes["stopped"], book.outcomes["failed"], dict(book.failures), self._counts["rejected"],
                self._counts["duplicate"], book.remembered, finals, rungs,
                (self._engine.running, self._engine.capacity), best(front) if front else None, volume,
                self._evenly(elapsed), elapsed, self._remaining(phase, elapsed),
            ),
            record,
        )  # fmt: skip

    def _remaining(self, phase: str, elapsed: float) -> float | None:
        if self._plan.replay is not None:
            return None  # a table's seconds are not this run's
        ahead = self.finals_ahead if phase == "finals" else None
        left = remaining_s(self._plan, self._book, max(1, self._engine.capacity), ahead)
        return None if left is None else min(left, max(0.0, self._plan.settings.time_s - elapsed))

    def _evenly(self, elapsed: float) -> tuple[float, ...]:
        """The hypervolume at evenly spaced times from the start until now."""
        if not self._history or elapsed <= 0:
            return ()
        values, index = [], 0
        for place in range(1, _HISTORY + 1):
            while index + 1 < len(self._history) and self._history[index + 1][0] <= elapsed * place / _HISTORY:
                index += 1
            at, volume = self._history[index]
            values.append(volume if at <= elapsed * place / _HISTORY else 0.0)
        return tuple(values)
