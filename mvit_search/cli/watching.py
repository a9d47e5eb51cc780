"""Watching a run: a panel in a terminal, plain lines without one, nothing with `--quiet`; on stderr, and in run.log."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Protocol

from mvit_search.cli.run_log import RunLog
from mvit_search.cli.watching_words import line

if TYPE_CHECKING:
    from pathlib import Path

    from mvit_search.records import Record
    from mvit_search.search import Progress


class Display(Protocol):
    """What a user sees of a run."""

    def update(self, progress: "Progress", record: "Record | None") -> None:
        """How things stand; `record` is the candidate that was just valued."""

    def notice(self, words: str) -> None:
        """What happened beside it."""

    def answer(self, words: str) -> None:
        """What follows from something that the user did."""


class Watch:
    """The observer of a run: shows what it is told, and writes it into the log.

    Attributes:
        searching: whether anything was told yet; until then the run is loading, and has nothing to lose.
    """

    def __init__(self, display: Display, folder: "Path", begun: str) -> None:
        """`begun`: the log's line of this start."""
        self._display = display
        self._log = RunLog(folder, begun, display.notice)
        self.searching = False

    def update(self, progress: "Progress", record: "Record | None") -> None:
        if not self.searching:
            self.searching = True
            self._log.begin()
        if record is not None:
            self._log.write(line(progress, record))
        self._display.update(progress, record)

    def notice(self, words: str) -> None:
        self._log.write(words)
        self._display.notice(words)

    def answer(self, words: str) -> None:
        """Say what follows from what the user did, whatever is shown else."""
        self._log.write(words)
        self._display.answer(words)

    def ended(self, words: str) -> None:
        """Write how the run ended. One that was refused leaves the folder's log as it was."""
        if self._log.begun:
            self._log.write(words)
        self._log.close()


@contextmanager
def watching(folder: "Path", begun: str, *, quiet: bool) -> "Iterator[Watch]":
    """An observer for as long as the block runs; `ended` is to be called after it."""
    if quiet:
        yield Watch(Quiet(), folder, begun)
        return
    if sys.stderr is None or not sys.stderr.isatty():
        yield Watch(Lines(), folder, begun)
        return
    from rich.console import Console
    from rich.live import Live

    from mvit_search.cli.watching_panel import Panel

    console = Console(stderr=True)
    if console.is_dumb_terminal or console.options.ascii_only:
        yield Watch(Lines(), folder, begun)
        return
    panel = Panel(folder.name)
    live = Live(
        get_renderable=lambda: panel, console=console, refresh_per_second=2, transient=True, redirect_stdout=False
    )
    panel.above = lambda words: console.print(words, style="yellow", markup=False, highlight=False)
    with live:
        yield Watch(panel, folder, begun)


class Lines:
    """One line for every valuation."""

    def update(self, progress: "Progress", record: "Record | None") -> None:
        if record is not None:
            _print(line(progress, record))

    def notice(self, words: str) -> None:
        _print(words)

    def answer(self, words: str) -> None:
        _print(words)


class Quiet:
    """Nothing, but that Ctrl-C was heard."""

    def update(self, progress: "Progress", record: "Record | None") -> None:
        return None

    def notice(self, words: str) -> None:
        return None

    def answer(self, words: str) -> None:
        _print(words)


def _print(words: str) -> None:
    # A reader of stderr that has gone (`2>&1 | head`) is no reason to stop a search; nor is Ctrl-C in the middle of a
    # line, where Python refuses to begin another.
    with suppress(OSError, RuntimeError, ValueError):
        print(words, file=sys.stderr, flush=True)
