"""The live display of a run: a panel in a terminal, plain lines without one. All of it on stderr."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from mvit_search._quantities import format_count, format_seconds

if TYPE_CHECKING:
    from pathlib import Path

    from rich.live import Live
    from rich.table import Table

    from mvit_search.records import Record
    from mvit_search.search import Observer, Progress


@contextmanager
def watching(folder: "Path", *, quiet: bool) -> "Iterator[Observer]":
    """An observer for as long as the block runs."""
    if quiet:
        from mvit_search.search import Silent

        yield Silent()
        return
    if not sys.stderr.isatty():
        yield Lines()
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(stderr=True), refresh_per_second=4, transient=True) as live:
        yield Panel(live)


class Lines:
    """One line for every trained candidate."""

    def update(self, progress: "Progress", record: "Record | None") -> None:
        if record is not None:
            # A reader of stderr that has gone (`2>&1 | head`) is no reason to stop a search.
            with suppress(BrokenPipeError):
                print(_line(progress, record), file=sys.stderr, flush=True)

    def notice(self, words: str) -> None:
        with suppress(BrokenPipeError):
            print(words, file=sys.stderr, flush=True)


class Panel:
    """A table of counters that is redrawn, with the latest candidates under it."""

    def __init__(self, live: "Live") -> None:
        self._live = live
        self._latest: list[str] = []
        self._progress: Progress | None = None

    def update(self, progress: "Progress", record: "Record | None") -> None:
        self._progress = progress
        if record is not None:
            self._latest = [*self._latest, _finished(progress, record)][-8:]
        self._draw()

    def notice(self, words: str) -> None:
        self._draw(words)

    def _draw(self, notice: str = "") -> None:
        from rich.console import Group
        from rich.text import Text

        counters = [_counters(self._progress)] if self._progress else []
        notices = [Text(notice, style="bold yellow")] if notice else []
        self._live.update(Group(*counters, *notices, *(Text(line, style="dim") for line in self._latest)))


def _counters(progress: "Progress") -> "Table":
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(box=SIMPLE, show_header=True, pad_edge=False)
    done, planned = progress.finals
    best = progress.best
    columns = {
        "phase": progress.phase,
        "candidates": f"{progress.trained} of {progress.trials}"
        + (f" ({progress.failed} failed)" if progress.failed else ""),
        "over budget": str(progress.rejected),
        "repeated": str(progress.duplicates),
        "finals": f"{done} of {planned}" if planned else "-",
        "best": _point(best) if best else "-",
        "hypervolume": "-" if progress.hypervolume is None else f"{progress.hypervolume:.4f}",
        "elapsed": format_seconds(progress.elapsed_s),
        "left": f"about {format_seconds(progress.remaining_s)}" if progress.remaining_s is not None else "-",
    }
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    table.add_row(*columns.values())
    return table


def _point(record: "Record") -> str:
    """`top-1 91.8 % at predicted 7.32 ms`, or `score 117.61 at ...`."""
    from mvit_search.analysis.proxy_words import score_text

    assert record.latency is not None
    value = f"score {score_text(record.value)}" if record.score_by_seed else f"top-1 {100 * record.value:.1f} %"
    return f"{value} at {record.latency.how} {record.latency_ms:.2f} ms"


def _line(progress: "Progress", record: "Record") -> str:
    """Everything in one line, for a log."""
    counts = f"{progress.rejected} over budget, {progress.duplicates} repeated"
    best = f", best {_point(progress.best)}" if progress.best else ""
    left = f", about {format_seconds(progress.remaining_s)} left" if progress.remaining_s is not None else ""
    volume = "" if progress.hypervolume is None else f", hypervolume {progress.hypervolume:.4f}"
    return f"{_finished(progress, record)} ({counts}{best}{volume}{left})"


def _finished(progress: "Progress", record: "Record") -> str:
    """`[4/24] #3: 637k params, top-1 79.5 % at predicted 2.00 ms`."""
    done, planned = progress.finals
    trained = f"{progress.begun}/{progress.trials}"
    where = f"final {done}/{planned}" if progress.phase == "finals" else trained
    what = f"{record.name or f'#{record.number}'}: {format_count(record.params)} params"
    result = _point(record) if record.succeeded else f"failed: {record.error}"
    return f"[{where}] {what}, {result}"
