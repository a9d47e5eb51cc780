"""The figures of a space's page: histograms of what draws cost, and the draws across the dimensions."""

import random
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import plotly.graph_objects as go

from mvit_search.analysis.figures import BLUE, GREY, VERMILLION, _layout
from mvit_search.analysis.front_document import display_name, display_target
from mvit_search.analysis.space_survey import Survey, amount, telling_dimensions

_BINS = 40
MOST_DIMENSIONS = 9
MOST_LINES = 150
# Of the plot's width, a letter of a preset's name; names closer than they are long go to different rows.
_LETTER = 0.0085


class Quantity(NamedTuple):
    """A cost as an axis shows it: `amount / unit`, under `title`."""

    name: str
    heading: str
    title: str
    unit: float


class Bins(NamedTuple):
    """A histogram. `shares` are percent of the draws."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    shares: tuple[float, ...]


def quantities(found: Survey) -> tuple[Quantity, ...]:
    """Parameters, MACs and predicted latency."""
    largest_macs = max(found.values("macs"))
    giga = largest_macs >= 1e9
    return (
        Quantity("params", "Parameters", f"Parameters (millions, {found.num_classes} classes)", 1e6),
        Quantity("macs", "MACs", f"MACs ({'billions' if giga else 'millions'} per image)", 1e9 if giga else 1e6),
        Quantity(
            "latency_ms", "Predicted latency",
            f"Latency (ms, predicted for {display_target(found.target.name)})", 1.0,
        ),
    )  # fmt: skip


def binned(values: Sequence[float], bins: int = _BINS) -> Bins:
    """Equal bins from the smallest to the largest value, the last one closed at both ends."""
    low, high = min(values), max(values)
    if low == high:
        low, high = low - 0.5, high + 0.5
    width = (high - low) / bins
    counts = [0] * bins
    for value in values:
        counts[min(bins - 1, int((value - low) / width))] += 1
    edges = tuple(low + width * index for index in range(bins + 1))
    return Bins(edges, tuple(counts), tuple(100 * count / len(values) for count in counts))


def cost_figure(found: Survey, quantity: Quantity, budget: int | None = None) -> go.Figure:
    """The histogram of one cost, the presets of the space as stars above it; `budget` (parameters) as a line."""
    bins = binned([value / quantity.unit for value in found.values(quantity.name)])
    figure = go.Figure(layout=_layout(quantity.heading, "", quantity.title, "Draws (%)"))
    figure.add_trace(_bars(bins))
    top = max(bins.shares)
    marks = sorted((amount(drawn, quantity.name) / quantity.unit, display_name(name)) for name, drawn in found.presets)
    reach = [*bins.edges, *(x for x, _ in marks)]
    left, right = min(reach), max(reach)
    if budget is not None:
        right = max(right, budget / quantity.unit)
    line = None if budget is None else budget / quantity.unit
    labels = _labels(marks, left, right, line)
    height = top * (1.12 + 0.13 * (max((row for row, _ in labels), default=-1) + 1))
    if line is not None:
        figure.add_trace(_line(line, height))
    heights = [top * (1.12 + 0.13 * row) for row, _ in labels]
    figure.add_trace(_stars(marks, heights, [f"middle {side}" for _, side in labels]))
    pad = 0.02 * (right - left)
    figure.update_xaxes(range=[left - pad, right + pad])
    figure.update_yaxes(range=[0, height])
    figure.update_layout(
        height=330, margin={"t": 48, "b": 60}, bargap=0, showlegend=False, title={"y": 0.96, "subtitle": None}
    )
    return figure


def dimensions_figure(found: Survey) -> go.Figure:
    """Every draw as a line across the dimensions that decide most, coloured by the third its latency is in."""
    keys = telling_dimensions(found, MOST_DIMENSIONS)
    figure = go.Figure(layout=_layout("Draws across the dimensions", "", "", ""))
    rng = random.Random(0)
    shown = found.draws[:MOST_LINES]
    heights = [
        [*(_place(drawn.assignment[key], found.space.dimensions[key], rng) for key in keys), *costs]
        for drawn, costs in zip(shown, _cost_places(found), strict=False)
    ]
    columns = list(range(len(keys) + 3))
    for column in columns:
        axis = {"width": 1, "color": GREY}
        figure.add_trace(
            go.Scatter(x=[column, column], y=[0, 1], mode="lines", line=axis, hoverinfo="skip", showlegend=False)
        )
    for label, color, opacity, members in _thirds(found, len(shown)):
        xs: list[float | None] = []
        ys: list[float | None] = []
        for index in members:
            xs += [*columns, None]
            ys += [*heights[index], None]
        line = {"width": 1, "color": color}
        figure.add_trace(go.Scatter(x=xs, y=ys, mode="lines", name=label, line=line, opacity=opacity, hoverinfo="skip"))
    _label_axes(figure, found, keys)
    return figure


def _bars(bins: Bins) -> go.Bar:
    width = bins.edges[1] - bins.edges[0]
    texts = [
        f"{low:.3g} to {low + width:.3g}<br>{count} draws, {share:.1f} %"
        for low, count, share in zip(bins.edges, bins.counts, bins.shares, strict=False)
    ]
    centres = [low + width / 2 for low in bins.edges[:-1]]
    return go.Bar(
        x=centres, y=bins.shares, width=width * 0.94, marker={"color": BLUE}, hovertext=texts, hoverinfo="text"
    )


def _stars(marks: Sequence[tuple[float, str]], heights: Sequence[float], sides: Sequence[str]) -> go.Scatter:
    star = {"symbol": "star", "size": 12, "color": VERMILLION, "line": {"width": 1, "color": "white"}}
    return go.Scatter(
        x=[x for x, _ in marks], y=list(heights), mode="markers+text", marker=star, textposition=list(sides),
        text=[escape(name) for _, name in marks], textfont={"color": VERMILLION, "size": 12},
        hovertext=[f"{escape(name)}<br>{x:.4g}" for x, name in marks], hoverinfo="text",
    )  # fmt: skip


def _line(x: float, height: float) -> go.Scatter:
    return go.Scatter(
        x=[x, x], y=[0, height], mode="lines", line={"color": GREY, "width": 2, "dash": "dash"},
        hovertext=f"budget: {x:.4g}", hoverinfo="text",
    )  # fmt: skip


def _labels(marks: Sequence[tuple[float, str]], left: float, right: float, line: float | None) -> list[tuple[int, str]]:
    """(row, side) of each name: the side that keeps clear of `line`, the lowest row where it meets no other name."""
    span = right - left or 1
    line_at = None if line is None else (line - left) / span
    rows: list[list[tuple[float, float]]] = []
    found = []
    for x, name in marks:
        at, length = (x - left) / span, 0.025 + _LETTER * len(name)
        crosses = line_at is not None and at < line_at < at + length and at > length
        side = "left" if crosses or at > 0.7 else "right"
        taken = (at - length, at + 0.01) if side == "left" else (at - 0.01, at + length)
        row = next((i for i, own in enumerate(rows) if all(taken[1] < a or taken[0] > b for a, b in own)), len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(taken)
        found.append((row, side))
    return found


def _place(value: object, values: Sequence[object], rng: random.Random) -> float:
    """0..1 by the value's place in the list, a little scattered so that lines do not hide each other."""
    return (values.index(value) + rng.uniform(-0.16, 0.16)) / max(1, len(values) - 1)


def _cost_places(found: Survey) -> list[list[float]]:
    columns = []
    for quantity in quantities(found):
        values = found.values(quantity.name)
        low, high = min(values), max(values)
        columns.append([(value - low) / ((high - low) or 1) for value in values])
    return [list(row) for row in zip(*columns, strict=True)]


def _thirds(found: Survey, shown: int) -> list[tuple[str, str, float, list[int]]]:
    """(label, colour, opacity, indices of draws) by latency; the ends last, so that they lie above the middle."""
    latencies = found.values("latency_ms")[:shown]
    order = sorted(range(shown), key=latencies.__getitem__)
    first, second = round(shown / 3), round(2 * shown / 3)
    return [
        ("middle third by latency", GREY, 0.25, order[first:second]),
        ("slowest third", VERMILLION, 0.5, order[second:]),
        ("fastest third", BLUE, 0.5, order[:first]),
    ]


def _label_axes(figure: go.Figure, found: Survey, keys: Sequence[str]) -> None:
    ends = [(found.space.dimensions[key][0], found.space.dimensions[key][-1]) for key in keys]
    labels = [_axis_label(key) for key in keys]
    for quantity in quantities(found):
        spread = found.spread(quantity.name)
        ends.append((f"{spread.low / quantity.unit:.3g}", f"{spread.high / quantity.unit:.3g}"))
    labels += [_two_lines("params", "(M)"), _two_lines("MACs", "(G)" if max(found.values("macs")) >= 1e9 else "(M)")]
    labels.append(_two_lines("latency", "(ms)"))
    for column, ((low, high), label) in enumerate(zip(ends, labels, strict=True)):
        for y, text, anchor in ((1.06, str(high), "bottom"), (-0.06, str(low), "top")):
            figure.add_annotation(x=column, y=y, text=escape(text), yanchor=anchor, showarrow=False, font={"size": 12})
        figure.add_annotation(x=column, y=1.2, text=label, yanchor="bottom", showarrow=False, font={"size": 12})
    figure.update_xaxes(visible=False, range=[-0.5, len(labels) - 0.5])
    figure.update_yaxes(visible=False, range=[-0.25, 1.5])
    figure.update_layout(height=460, margin={"l": 24, "t": 56, "b": 56}, title={"subtitle": None})
    figure.update_layout(legend={"y": -0.02})


def _axis_label(key: str) -> str:
    """`stages.2.transformer_dim` -> `stage 2`, `transformer_`, `dim`: three short lines."""
    stage, _, name = key.rpartition(".")
    words = name.split("_")
    half = (len(words) + 1) // 2 if len(name) > 10 else len(words)
    lines = ["_".join(words[:half]) + ("_" if words[half:] else ""), "_".join(words[half:])]
    return "<br>".join(escape(line) for line in (stage.replace("stages.", "stage "), *lines) if line)


def _two_lines(first: str, second: str) -> str:
    return f"{first}<br>{second}"
