"""One self-contained HTML page: everything inlined, plotly.js once, and a policy that forbids it to load anything."""

import errno
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from mvit_search import __version__
from mvit_search._files import write_atomically
from mvit_search.errors import InputError, WorkError

if TYPE_CHECKING:
    import plotly.graph_objects as go

_HERE = Path(__file__).resolve().parent
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def page_html(title: str, body: str, *styles: str) -> str:
    """The whole page. `title` is escaped, `body` is not; `styles` are files here that follow `report.css`."""
    from plotly.offline import get_plotlyjs  # Heavy, and whoever prints a table imports this package too.

    css = "".join(_read(name) for name in ("report.css", *styles))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{css}</style>\n"
        f"<script>{get_plotlyjs()}</script>\n</head>\n<body>\n<main>\n{body}\n</main>\n"
        f"<script>\n{_read('report.js')}</script>\n</body>\n</html>\n"
    )


def write_page(html: str, path: Path) -> None:
    """Write it whole or not at all.

    Raises:
        InputError: `path` cannot be written.
        WorkError: the disk is full.
    """
    try:
        write_atomically(path, html)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise WorkError(f"{path}: cannot be written ({error.strerror}); free space and try again") from None
        raise InputError("output", str(path), f"cannot be written ({error.strerror})") from None


def figure_html(identifier: str, figure: "go.Figure") -> str:
    """A figure of the page; `identifier` must be unique in it."""
    from mvit_search.analysis.figures import PLOT_CONFIG

    return str(
        figure.to_html(
            full_html=False, include_plotlyjs=False, include_mathjax=False, div_id=identifier, config=PLOT_CONFIG,
            default_height=f"{figure.layout.height}px",
        )
    )  # fmt: skip


def section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def scrolling(content: str, label: str) -> str:
    """What is too wide scrolls by itself, by keyboard as well."""
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}">{content}</div>'


def table_html(columns: Iterable[str], rows: Iterable[Iterable[str]], *, style: str = "") -> str:
    """A table of plain texts whose first column names the rows."""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    body = "".join(_row_html(tuple(row)) for row in rows)
    return f'<table class="{style}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def footer_html() -> str:
    written = f"Written by mvit-search {escape(__version__)}. Architecture: MobileViT, arXiv 2110.02178."
    return f"<footer><p>{written}</p></footer>"


def _row_html(cells: tuple[str, ...]) -> str:
    rest = "".join(f"<td>{escape(cell)}</td>" for cell in cells[1:])
    return f'<tr><th scope="row">{escape(cells[0])}</th>{rest}</tr>'


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
