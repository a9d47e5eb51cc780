"""Printing: tables for people, one JSON document for programs."""

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from mvit_search.errors import WorkError

EXIT_INTERRUPTED = 130
_PIPE_WIDTH = 160
_WIDE = 110
"""Columns of a terminal from which only the last column of a table has to wrap."""


def print_json(document: Any) -> None:
    """One JSON document on stdout, and nothing else."""
    _write(json.dumps(document, indent=2, allow_nan=False) + "\n")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, left: Sequence[str]) -> None:
    """A table on stdout; columns named in `left` hold words, the others numbers.

    Without a terminal it keeps its natural width, so that a pipe gets whole lines.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console(width=print_width(), highlight=False, markup=False)
    wide = console.width >= _WIDE
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="left" if column in left else "right", no_wrap=wide and column != columns[-1])
    for row in rows:
        table.add_row(*row)
    with console.capture() as captured:
        console.print(table)
    _write(captured.get())


def print_width() -> int:
    """Columns that a table may fill; a pipe takes whole lines."""
    return shutil.get_terminal_size().columns if is_terminal() else _PIPE_WIDTH


def fits(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether a table can be printed without wrapping a cell."""
    widths = (max(len(name), *(len(row[index]) for row in rows)) for index, name in enumerate(columns))
    return sum(3 + width for width in widths) - 1 <= print_width()  # three between each two, one at either edge


def say(message: str) -> None:
    """A plain line on stdout; a terminal gets it wrapped between words."""
    if is_terminal():
        width = shutil.get_terminal_size().columns
        lines = (
            textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) for line in message.split("\n")
        )
        message = "\n".join("\n".join(wrapped) for wrapped in lines)
    _write(message + "\n")


def is_terminal() -> bool:
    """Whether stdout is one; a program whose stdout was closed before it began has none at all."""
    return sys.stdout is not None and sys.stdout.isatty()


def flush_stdout() -> None:
    """Write out what others left in stdout's buffer, such as `--help`; see `_write`."""
    if sys.stdout is not None:
        _write("")


def _write(text: str) -> None:
    """Write and flush; a reader that has gone (`| head`) ends the program quietly.

    Raises:
        WorkError: stdout takes nothing: it is closed, or its disk is full.
    """
    if sys.stdout is None:
        raise WorkError("stdout cannot be written: it is closed")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        # Python flushes once more as it ends, and must not meet the same error again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise SystemExit(0) from None
        raise WorkError(f"stdout cannot be written: {error.strerror or error}") from None
