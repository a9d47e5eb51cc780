"""The page of `calibrate --html`: predicted against measured, before and after, in one self-contained file."""

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from mvit_search.analysis.calibration_facts import (
    ERROR_COLUMNS,
    ROW_COLUMNS,
    comparison_rows,
    error_rows,
    predictions,
    sentences,
)
from mvit_search.analysis.page import figure_html, footer_html, page_html, scrolling, section, table_html, write_page
from mvit_search.latency.calibrating.recalibration import Comparison, Recalibration

if TYPE_CHECKING:
    import plotly.graph_objects as go

_ROOM = 1.15
_BAND = 1.1


def write_calibration_page(found: Recalibration, path: Path) -> None:
    """Write the page.

    Raises:
        InputError: `path` cannot be written.
    """
    write_page(calibration_page_html(found), path)


def calibration_page_html(found: Recalibration) -> str:
    """The page: what it came to, the plot, the errors, the rows, the coefficients, the limits."""
    body = "\n".join((
        _header(found), _plot(found), _errors(found), _rows(found), _coefficients(found), _limits(found), footer_html(),
    ))  # fmt: skip
    return page_html(f"{found.after.name} v{found.after.version}: calibrated with own measurements", body)


def calibration_figure(found: Recalibration) -> "go.Figure":
    """Predicted against measured (ms, both axes logarithmic): before, and after with the network left out."""
    import plotly.graph_objects as go

    from mvit_search.analysis.figures import BLUE, VERMILLION, _layout

    subtitle = f"Line: equal; grey band: {100 * (_BAND - 1):.0f} % off. Each point is a network that was measured"
    layout = _layout("Predicted against measured", subtitle, "Measured (ms)", "Predicted (ms)")
    figure = go.Figure(layout=layout)
    low, high = _reach(found)
    _add_diagonal(figure, low, high)
    before = {"symbol": "circle-open", "size": 10, "color": VERMILLION, "line": {"width": 2}}
    after = {"symbol": "circle", "size": 10, "color": BLUE, "line": {"width": 1, "color": "white"}}
    figure.add_trace(_points(f"Before ({found.before.name} v{found.before.version})", found, _before, before))
    figure.add_trace(_points("After, network left out", found, _after, after))
    ticks = _ticks(low, high)
    axis = {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}
    figure.update_xaxes(range=_decades(low, high), **axis)
    figure.update_yaxes(range=_decades(low, high), **axis)
    figure.update_layout(height=620)
    return figure


def _before(row: Comparison) -> float:
    return row.before_ms


def _after(row: Comparison) -> float:
    return row.after_ms


def _points(
    name: str, found: Recalibration, predicted: Callable[[Comparison], float], marker: dict[str, object]
) -> "go.Scatter":
    import plotly.graph_objects as go

    texts = [
        f"<b>{escape(row.name)}</b><br>measured {row.measured_ms:.2f} ms<br>predicted {predicted(row):.2f} ms "
        f"({100 * (predicted(row) / row.measured_ms - 1):+.1f} %)"
        for row in found.rows
    ]
    return go.Scatter(
        name=name, x=[row.measured_ms for row in found.rows], y=[predicted(row) for row in found.rows],
        mode="markers", marker=marker, hovertext=texts, hoverinfo="text",
    )  # fmt: skip


def _add_diagonal(figure: "go.Figure", low: float, high: float) -> None:
    import plotly.graph_objects as go

    from mvit_search.analysis.figures import GREY

    ends = [low, high]
    figure.add_trace(
        go.Scatter(
            x=[low, high, high, low], y=[low * _BAND, high * _BAND, high / _BAND, low / _BAND], fill="toself",
            fillcolor="rgba(138,147,156,0.18)", mode="lines", line={"width": 0}, hoverinfo="skip", showlegend=False,
        )
    )  # fmt: skip
    line = {"width": 1.5, "color": GREY}
    figure.add_trace(go.Scatter(x=ends, y=ends, mode="lines", line=line, hoverinfo="skip", showlegend=False))


def _reach(found: Recalibration) -> tuple[float, float]:
    values = [value for row in found.rows for value in (row.measured_ms, row.before_ms, row.after_ms)]
    return min(values) / _ROOM, max(values) * _ROOM


def _decades(low: float, high: float) -> list[float]:
    import math

    return [math.log10(low), math.log10(high)]


def _ticks(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, ...; with 1.5, 3, 4 and 7 too where that leaves fewer than four."""
    decades = [10.0**power for power in range(-4, 7)]
    for steps in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
        ticks = [step * decade for decade in decades for step in steps if low <= step * decade <= high]
        if len(ticks) >= 4:
            return ticks
    return ticks


def _header(found: Recalibration) -> str:
    before, _, after = predictions(found)
    tiles = (
        ("Mean error before", f"{before.error.mape_percent:.1f} %", before.meaning),
        ("Mean error after", f"{after.error.mape_percent:.1f} %", after.meaning),
        ("Measured", f"{len(found.rows)} networks", f"{found.protocol.device}, {found.protocol.system}"),
    )
    drawn = "".join(
        f"<div><dt>{escape(label)}</dt><dd><strong>{escape(value)}</strong><span>{escape(note)}</span></dd></div>"
        for label, value, note in tiles
    )
    said = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences(found))
    return (
        f'<header><p class="kicker">Latency target {escape(found.after.calibration)}</p>'
        f"<h1>{escape(found.after.words.device)}, calibrated</h1>"
        f'<div class="verdict">{said}</div><dl class="tiles">{drawn}</dl></header>'
    )


def _plot(found: Recalibration) -> str:
    return section("The networks", f"<figure>{figure_html('calibration-figure', calibration_figure(found))}</figure>")


def _errors(found: Recalibration) -> str:
    return section("How wrong", scrolling(table_html(ERROR_COLUMNS, error_rows(found)), "Errors on the own rows"))


def _rows(found: Recalibration) -> str:
    return section("Row by row", scrolling(table_html(ROW_COLUMNS, comparison_rows(found)), "Own rows"))


def _coefficients(found: Recalibration) -> str:
    before, after = found.before.coefficients, found.after.coefficients
    rows = [
        (name, f"{before[name].value:.4g}", f"{new.value:.4g}", f"{new.prior:.4g}", new.unit)
        for name, new in after.items()
    ]
    columns = ("coefficient", "before", "after", "prior", "unit")
    return section("Coefficients", scrolling(table_html(columns, rows), "Coefficients"))


def _limits(found: Recalibration) -> str:
    items = (
        f"Measured as: {found.protocol.words}.",
        "A left-out error says how wrong the refit is on networks like those that were measured, on this one device.",
        found.after.words.limits,
    )
    return section("Limits of the numbers", "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>")
