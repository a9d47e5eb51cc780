"""The figures of an explained latency, drawn with plotly."""

from collections.abc import Sequence

import plotly.graph_objects as go

from mvit_search.analysis.figures import BLUE, GREY, VERMILLION
from mvit_search.analysis.latency_explanation import LatencyExplanation
from mvit_search.analysis.profile_facts import FIXED_COST
from mvit_search.analysis.profile_figures import figure_layout

# Okabe and Ito's hues, and four more between them; all stand out on white and on black.
_COLOURS = {
    "convolutions": BLUE,
    "linear layers and products": "#009E73",
    "attention tokens": VERMILLION,
    "attention scores": "#DDB81C",
    "layout": "#CC79A7",
    "SiLU": "#7E6FCF",
    "norms and arithmetic": "#A08A2C",
    "weights": "#4E93A8",
    "dispatch": "#B06A55",
    "uneven resizes": "#6B8E4E",
}
_ROW = 26
"""Pixels of height that a bar takes."""
_BELOW = 48
"""Pixels from the last bar to the legend: the axis and its title."""
_FIXED: dict[str, object] = {"color": "rgba(138,147,156,0.25)", "line": {"color": GREY, "width": 1}}


def stages_figure(explanation: LatencyExplanation) -> go.Figure:
    """A bar a stage, stacked by class, and one for the fixed cost; each ends with its milliseconds and share."""
    whole, stages = explanation.latency.ms, explanation.stages
    names = [*(row.name for row in stages), FIXED_COST]
    title = f"Predicted milliseconds by {explanation.grouped_by} and class"
    figure = go.Figure(layout=figure_layout(title, _axis(explanation), height=190 + _ROW * len(names)))
    for index, name in enumerate(explanation.classes):
        times = [row.ms_by_class[index] for row in stages]
        figure.add_trace(_bar(name, names[:-1], times, whole, {"color": _COLOURS[name]}))
    figure.add_trace(_bar(FIXED_COST, [FIXED_COST], [explanation.fixed_ms], whole, _FIXED))
    totals = [*(row.ms for row in stages), explanation.fixed_ms]
    figure.add_trace(
        go.Scatter(
            x=totals, y=names, mode="text", text=[f" {_words(explanation, ms)}" for ms in totals],
            textposition="middle right", hoverinfo="skip", showlegend=False, cliponaxis=False,
        )
    )  # fmt: skip
    _order(figure, names, max(totals))
    legend = {"orientation": "h", "traceorder": "normal", "x": 0, "xanchor": "left", "yanchor": "top"}
    figure.update_layout(barmode="stack", legend={**legend, "y": -_BELOW / (_ROW * len(names))})
    return figure


def classes_figure(explanation: LatencyExplanation) -> go.Figure:
    """A bar a class over the whole network, the most expensive first."""
    ranked = explanation.ranked_classes
    names, whole = [name for name, _ in ranked], explanation.latency.ms
    title = "Predicted milliseconds by class"
    figure = go.Figure(layout=figure_layout(title, _axis(explanation), height=118 + _ROW * len(names)))
    for name, ms in ranked:
        marker: dict[str, object] = {"color": _COLOURS.get(name)}
        trace = _bar(name, [name], [ms], whole, _FIXED if name == FIXED_COST else marker)
        figure.add_trace(
            trace.update(text=[_words(explanation, ms)], textposition="outside", cliponaxis=False, showlegend=False)
        )
    _order(figure, names, max(ms for _, ms in ranked))
    figure.update_layout(barmode="overlay")
    return figure


def _axis(explanation: LatencyExplanation) -> str:
    return f"Predicted ms on {explanation.latency.target}"


def _words(explanation: LatencyExplanation, ms: float) -> str:
    return "{} ms, {} %".format(*explanation.cells(ms))


def _bar(name: str, rows: Sequence[str], times: Sequence[float], whole: float, marker: dict[str, object]) -> go.Bar:
    hover = f"%{{y}}<br>{name}<br>%{{x:,.4f}} ms, %{{customdata:.1f}} % of the prediction<extra></extra>"
    return go.Bar(
        name=name, orientation="h", y=rows, x=times, marker=marker, hovertemplate=hover,
        customdata=[100 * ms / whole for ms in times],
    )  # fmt: skip


def _order(figure: go.Figure, names: Sequence[str], longest: float) -> None:
    """Rows from top to bottom, with room for the words at the longest bar's end."""
    order = {"type": "category", "categoryorder": "array", "categoryarray": names, "autorange": "reversed"}
    figure.update_yaxes(**order, showgrid=False, ticks="", showline=False, dtick=1)
    figure.update_xaxes(range=[0, 1.3 * longest])
    figure.update_layout(bargap=0.25)
