"""The panel: how a run stands, drawn anew twice a second into as many lines and columns as the terminal has."""

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from rich.control import Control
from rich.segment import ControlType
from rich.text import Text

from mvit_search._quantities import format_count, format_seconds
from mvit_search.cli.watching_words import about, point, sparkline, valuation

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from mvit_search.records import Record
    from mvit_search.search import Progress

_LABEL = 13
_LATEST = 8
_PHASES = {"search": "searching", "finals": "finals with further seeds", "done": "done"}


class _Row(NamedTuple):
    """Lines that are shown together or not at all; the higher `weight`, the longer they stay in a low terminal."""

    weight: int
    label: str
    lines: tuple[str, ...]
    style: str = ""


class Panel:
    """See `Display`. Drawn by a thread of rich's: whatever is told only replaces what is drawn next.

    Attributes:
        above: prints a line over the panel, where it stays; takes what is said before there is progress to show.
    """

    def __init__(self, run: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.above: Callable[[str], None] = lambda words: None
        self._run, self._clock = run, clock
        self._told: tuple[Progress, float] | None = None
        self._latest: tuple[tuple[str, str], ...] = ()
        self._answer = ""
        self._drawn_at: tuple[int, int] | None = None

    def update(self, progress: "Progress", record: "Record | None") -> None:
        self._told = progress, self._clock()
        if record is not None:
            self._add(valuation(progress, record), "red" if record.outcome == "failed" else "dim")

    def notice(self, words: str) -> None:
        if self._told is None:
            self.above(words)
        else:
            self._add(words, "yellow")

    def answer(self, words: str) -> None:
        self._answer = words

    def _add(self, words: str, style: str) -> None:
        self._latest = (*self._latest, (" ".join(words.split()), style))[-_LATEST:]

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        size = options.size
        if self._drawn_at not in (None, (size.width, size.height)):
            # The terminal has broken the old lines anew: nobody knows where they are.
            yield Control(ControlType.CLEAR, ControlType.HOME)
        self._drawn_at = size.width, size.height
        for text in self.lines(size.width, size.height - 1):
            text.truncate(size.width, overflow="ellipsis")
            yield text

    def lines(self, width: int, height: int) -> list[Text]:
        """What is drawn: at most `height` lines, each to be cut off at `width`."""
        rows = [*self._answered(), *(self._rows(*self._told, width) if self._told else [_Row(9, "", ("loading",))])]
        latest = self._latest
        room = max(0, height - (2 if latest else 0))
        while sum(len(row.lines) for row in rows) > room and len(rows) > 1:
            # The least important goes, and of equals the lowest.
            rows.remove(min(reversed(rows), key=lambda row: row.weight))
        drawn = [text for row in rows for text in _drawn(row)][:height]
        left = height - len(drawn)
        if not latest or left < 1:
            return drawn
        gap = [Text("")] if left > 1 else []
        shown = latest[-max(1, left - len(gap)) :]
        return [*drawn, *gap, *(Text(words, style=style, no_wrap=True) for words, style in shown)]

    def _answered(self) -> list[_Row]:
        return [_Row(10, "", (self._answer,), "bold yellow")] if self._answer else []

    def _rows(self, progress: "Progress", told_at: float, width: int) -> list[_Row]:
        since = max(0.0, self._clock() - told_at)
        return [
            _Row(9, "phase", (f"{_PHASES.get(progress.phase, progress.phase)} ({self._run})",), "bold"),
            _Row(9, "elapsed", (_time(progress, since),)),
            _Row(8, "candidates", (_candidates(progress),)),
            *_failures(progress),
            *_rungs(progress),
            *_finals(progress),
            _Row(2, "workers", (_workers(*progress.workers),)),
            *_passed_over(progress),
            *_best(progress),
            *_volume(progress, width),
        ]


def _drawn(row: _Row) -> Iterable[Text]:
    label = row.label.ljust(_LABEL) if len(row.label) < _LABEL else f"{row.label}  "
    for index, words in enumerate(row.lines):
        text = Text(style=row.style, no_wrap=True)
        if row.label:
            text.append(label if index == 0 else " " * _LABEL, style=row.style or "cyan")
        yield text.append(words)


def _time(progress: "Progress", since: float) -> str:
    elapsed = format_seconds(progress.elapsed_s + since)
    if progress.phase == "done":
        return elapsed
    if progress.remaining_s is None:
        return f"{elapsed}, time left: –"
    return f"{elapsed}, {about(max(0.0, progress.remaining_s - since))} left"


def _candidates(progress: "Progress") -> str:
    full = "at full fidelity" if len(progress.rungs) > 1 else "done"
    counts = {full: progress.trained, "at lower rungs": progress.stopped, "failed": progress.failed}
    said = [f"{count} {words}" for words, count in counts.items() if count]
    return ", ".join([f"{progress.begun} of {progress.trials} begun", *said])


def _failures(progress: "Progress") -> list[_Row]:
    by_count = sorted(progress.failures.items(), key=lambda item: -item[1])
    return [_Row(4, "failures", (", ".join(f"{count} {why}" for why, count in by_count),))] if by_count else []


def _rungs(progress: "Progress") -> list[_Row]:
    if len(progress.rungs) < 2 or progress.phase == "finals":
        return []  # nobody climbs any more
    wide = max(6, *(len(rung.name) for rung in progress.rungs))
    table = [f"{rung.name:<{wide}}  {rung.valued:>6}  {rung.under_way:>9}" for rung in progress.rungs]
    return [_Row(5, "rungs", (f"{'epochs':<{wide}}  valued  under way", *table))]


def _finals(progress: "Progress") -> list[_Row]:
    done, planned = progress.finals
    return [_Row(7, "finals", (f"{done} of {planned} trainings",))] if planned else []


def _workers(busy: int, at_hand: int) -> str:
    return f"{busy} of {at_hand} busy" if at_hand else "none at hand: waiting for one"


def _passed_over(progress: "Progress") -> list[_Row]:
    counts = {
        "over a limit": progress.rejected,
        "repeated": progress.duplicates,
        "trainings remembered from earlier runs": progress.remembered,
    }
    said = ", ".join(f"{count} {words}" for words, count in counts.items() if count)
    return [_Row(3, "passed over", (said,))] if said else []


def _best(progress: "Progress") -> list[_Row]:
    best = progress.best
    if best is None:
        return []
    return [_Row(7, "best", (f"{point(best)} ({best.name or f'#{best.number}'}, {format_count(best.params)} params)",))]


def _volume(progress: "Progress", width: int) -> list[_Row]:
    """The hypervolume now and since the first point of the front, with the values of the lowest and highest block."""
    if progress.hypervolume is None or not progress.history:
        return []
    least, most = min(progress.history), max(progress.history)
    if least == most:
        return [_Row(6, "hypervolume", (f"{progress.hypervolume:.4f}",))]
    scale = f"(▁ {least:.4f}, █ {most:.4f})"
    room = width - _LABEL - 6 - 2 - 1 - len(scale)
    drawn = f"  {sparkline(progress.history, room)} {scale}" if room >= 8 else ""
    return [_Row(6, "hypervolume", (f"{progress.hypervolume:.4f}{drawn}",))]
