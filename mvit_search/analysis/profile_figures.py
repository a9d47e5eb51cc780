"""Where parameters, MACs, memory and milliseconds are: plain data, and its figures drawn with plotly."""

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import NamedTuple

import plotly.graph_objects as go

from mvit_search._quantities import format_bytes
from mvit_search.analysis.figures import BLUE, GREY, GRID, INK, VERMILLION
from mvit_search.analysis.profile_facts import FIXED_COST, Kind, NetworkProfile, block_kind, stage_kind
from mvit_search.profile import LayerRow

MOST_BARS = 48
"""Networks of more blocks are drawn stage by stage; their tables still have every block."""

# Okabe and Ito's palette, as the run's figures.
_COLOURS: dict[Kind, str] = {"ends": GREY, "conv": BLUE, "softmax": VERMILLION, "separable": "#009E73"}
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


class Bar(NamedTuple):
    """A block, or all blocks of a stage: sums, and the largest block output."""

    label: str
    kind: Kind
    params: int
    macs: int
    output_bytes: int
    ms: float | None


class BarQuantity(NamedTuple):
    """One figure of bars: a title, the axis, and a value for each bar in the axis' unit.

    `fixed` is what belongs to no bar and yet to the whole; it gets a bar of its own.
    """

    key: str
    title: str
    axis: str
    value: Callable[[Bar], float]
    is_share: bool
    fixed: float = 0.0


def block_label(name: str) -> str:
    """`stages.2.block.transformer.0` -> `2 · layer 0`; unique in a network."""
    place = name.split(".")
    if place[0] != "stages":
        return " ".join(place)
    rest = " ".join(place[3:] if place[2] == "block" else place[2:])
    return f"{place[1]} · {rest.replace('transformer', 'layer').replace('blocks', 'block')}"


def bars(profile: NetworkProfile) -> tuple[Bar, ...]:
    """One a block, or one a stage where the blocks are too many to tell apart."""
    found = zip(profile.layers, profile.layer_ms or (None,) * len(profile.layers), strict=True)
    if len(profile.layers) <= MOST_BARS:
        return tuple(
            _bar(block_label(row.name), block_kind(row.name, profile.config), [(row, ms)]) for row, ms in found
        )
    return tuple(
        _bar(_stage_words(place), _stage_kind(place, profile), list(group))
        for place, group in groupby(found, key=lambda pair: _place(pair[0].name))
    )


def quantities(profile: NetworkProfile) -> Iterator[BarQuantity]:
    """What there is a figure of bars for."""
    each = "block" if len(profile.layers) <= MOST_BARS else "stage"
    yield BarQuantity("params", f"Parameters by {each}", "Parameters (thousands)", lambda b: b.params / 1e3, True)
    yield BarQuantity("macs", f"MACs by {each}", "Multiply-adds (millions)", lambda b: b.macs / 1e6, True)
    output = "Output of each block" if each == "block" else "Largest block output of each stage"
    yield BarQuantity("output", output, "KiB (fp16)", lambda b: b.output_bytes / 1024, False)
    if profile.layer_ms is not None:
        title = f"Predicted milliseconds by {each}"
        axis = f"Predicted ms on {profile.latency.target}"
        yield BarQuantity("ms", title, axis, lambda b: b.ms or 0.0, True, profile.fixed_ms or 0.0)


def bars_figure(profile: NetworkProfile, quantity: BarQuantity) -> go.Figure:
    """Horizontal bars from stem to head, coloured by kind; where they add up to a whole, with the share."""
    drawn = bars(profile)
    labels = [bar.label for bar in drawn]
    values = [quantity.value(bar) for bar in drawn]
    total, largest = sum(values) + quantity.fixed or 1.0, max(*values, quantity.fixed) or 1.0
    rows = [*labels, FIXED_COST] if quantity.fixed else labels
    figure = go.Figure(layout=figure_layout(quantity.title, quantity.axis, height=118 + 19 * len(rows)))
    for kind in dict.fromkeys(bar.kind for bar in drawn):
        own = [(bar.label, value) for bar, value in zip(drawn, values, strict=True) if bar.kind == kind]
        figure.add_trace(_bar_trace(own, quantity, total, {"color": _COLOURS[kind]}))
    if quantity.fixed:
        outlined: dict[str, object] = {"color": "rgba(138,147,156,0.25)", "line": {"color": GREY, "width": 1}}
        figure.add_trace(_bar_trace([(FIXED_COST, quantity.fixed)], quantity, total, outlined))
    figure.update_xaxes(range=[0, 1.18 * largest])
    order = {"type": "category", "categoryorder": "array", "categoryarray": rows, "autorange": "reversed"}
    figure.update_yaxes(**order, showgrid=False, ticks="", showline=False, dtick=1)
    figure.update_layout(barmode="overlay", bargap=0.25)
    return figure


def _bar_trace(
    own: list[tuple[str, float]], quantity: BarQuantity, total: float, marker: dict[str, object]
) -> go.Bar:  # fmt: skip
    words = [f"{100 * value / total:.1f} %" if quantity.is_share else _rounded(value) for _, value in own]
    return go.Bar(
        orientation="h", y=[label for label, _ in own], x=[value for _, value in own], marker=marker, text=words,
        textposition="outside", cliponaxis=False, showlegend=False,
        hovertemplate=f"%{{y}}<br>%{{x:,.4g}} {quantity.axis}<br>%{{text}}<extra></extra>",
    )  # fmt: skip


def memory_figure(profile: NetworkProfile) -> go.Figure:
    """Activation memory alive at each operator, with the peak marked and the stages as bands."""
    mib = [count / 2**20 for count in profile.alive_bytes]
    numbers = list(range(1, len(mib) + 1))
    peak = max(range(len(mib)), key=mib.__getitem__)
    title = "Activation memory alive at each operator"
    figure = go.Figure(layout=figure_layout(title, "Operator, in order", height=380))
    hover = "%{customdata}<br>operator %{x}: %{y:.2f} MiB<extra></extra>"
    names = [op.name for op in profile.ops]
    figure.add_trace(
        go.Scatter(
            x=numbers, y=mib, mode="lines", line={"shape": "hvh", "width": 1.5, "color": BLUE}, fill="tozeroy",
            fillcolor="rgba(0,114,178,0.18)", customdata=names, hovertemplate=hover, showlegend=False,
        )
    )  # fmt: skip
    figure.add_trace(
        go.Scatter(
            x=[numbers[peak]], y=[mib[peak]], mode="markers+text", marker={"color": VERMILLION, "size": 10},
            text=[f"<b>peak {format_bytes(profile.alive_bytes[peak])}</b> at {names[peak]}"],
            textposition="top right" if peak < len(mib) / 2 else "top left", textfont={"color": VERMILLION},
            customdata=[names[peak]], hovertemplate=hover, showlegend=False, cliponaxis=False,
        )
    )  # fmt: skip
    figure.update_yaxes(title={"text": "MiB (fp16)", "standoff": 12}, range=[0, 1.22 * mib[peak]])
    figure.update_xaxes(range=[0.5, len(mib) + 0.5], showgrid=False)
    _add_bands(figure, profile)
    return figure


def _add_bands(figure: go.Figure, profile: NetworkProfile) -> None:
    """A tint behind every other stage, and its name above; stages too narrow for a name have none."""
    first = 0
    spans = []
    for place, group in groupby(profile.ops, key=lambda op: op.stage):
        count = len(list(group))
        spans.append((place, first, first + count))
        first += count
    for index, (place, begin, end) in enumerate(spans):
        if index % 2:
            figure.add_vrect(
                x0=begin + 0.5, x1=end + 0.5, fillcolor="rgba(138,147,156,0.13)", line_width=0, layer="below"
            )
        words = _stage_words(place)
        if (end - begin) / first * 900 > 8 * len(words):
            figure.add_annotation(
                x=(begin + end + 1) / 2, y=1, yref="paper", yanchor="bottom", text=words, showarrow=False,
                font={"size": 12},
            )  # fmt: skip


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _bar(label: str, kind: Kind, members: list[tuple[LayerRow, float | None]]) -> Bar:
    rows = [row for row, _ in members]
    times = [ms for _, ms in members if ms is not None]
    return Bar(
        label, kind, sum(row.params for row in rows), sum(row.macs for row in rows),
        max(row.output_bytes for row in rows), sum(times) if times else None,
    )  # fmt: skip


def _place(name: str) -> str:
    place = name.split(".")
    return ".".join(place[:2]) if place[0] == "stages" else place[0]


def _stage_words(place: str) -> str:
    return place.replace("stages.", "stage ")


def _stage_kind(place: str, profile: NetworkProfile) -> Kind:
    return stage_kind(profile.config.stages[int(place.split(".")[1])]) if place.startswith("stages") else "ends"


def figure_layout(title: str, x_title: str, height: int) -> go.Layout:
    """Title above, axis below, in the page's type; `height` in pixels."""
    axis = {"gridcolor": GRID, "zeroline": False, "showline": True, "linecolor": GREY, "automargin": True}
    return go.Layout(
        template="none",
        title={
            "text": f"<b>{title}</b>", "x": 0, "xref": "container", "xanchor": "left", "y": 1, "yanchor": "top",
            "pad": {"t": 12}, "font": {"size": 16},
        },
        font={"family": _FONT, "size": 12, "color": INK},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        xaxis={**axis, "title": {"text": x_title, "standoff": 10}},
        yaxis=axis,
        height=height,
        margin={"l": 16, "r": 16, "t": 58, "b": 52},
        hoverlabel={"align": "left", "bgcolor": "white", "bordercolor": GREY, "font": {"color": INK}},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": GREY, "activecolor": GREY},
    )  # fmt: skip
