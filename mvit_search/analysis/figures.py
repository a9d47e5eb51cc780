"""The figures, drawn with plotly from `figure_data`."""

from collections.abc import Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

from mvit_search.analysis.figure_data import FrontFigureData, Mark, ProgressData

# Okabe and Ito's palette: told apart by people who see fewer colours, and on paper without any by shape.
BLUE, VERMILLION, GREY = "#0072B2", "#D55E00", "#8A939C"
# The intervals, pale so that they are not taken for the front's own line.
_PALE = {BLUE: "rgba(0,114,178,0.42)", VERMILLION: "rgba(213,94,0,0.5)"}
INK, GRID = "#20262D", "#E3E7EB"
# plotly 7 offers by default to upload the figure to a service; nothing here leaves the machine.
# `Any`: Dash wants a typed dictionary of its own, plotly a plain one.
PLOT_CONFIG: Any = {
    "responsive": True,
    "displaylogo": False,
    "showSendToCloud": False,
    "modeBarButtonsToRemove": ["sendChartToCloud", "select2d", "lasso2d"],
    "toImageButtonOptions": {"format": "svg"},
}
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def front_figure(data: FrontFigureData, selected: str | None = None) -> go.Figure:
    """All trained candidates faint, the front as a staircase with intervals, presets as stars.

    With a further objective the front is no staircase: its marks are coloured by that. Candidates that were stopped at
    a lower rung are hollow. `customdata` of every point is its reference; `selected` rings the point of that reference.
    """
    figure = go.Figure(layout=_layout(data.title, data.subtitle, data.cost_axis, data.value_axis))
    if data.stopped:
        hollow = {"symbol": "circle-open", "color": GREY, "size": 7, "opacity": 0.55, "line": {"width": 1.2}}
        figure.add_trace(_scatter("Stopped at a lower rung, value there", data.stopped, hollow))
    if data.candidates:
        figure.add_trace(_scatter(f"{data.done.capitalize()} candidates", data.candidates, _dot(GREY, 8, opacity=0.6)))
    if data.front:
        figure.add_trace(_front(data))
    if data.colour_axis and data.front:
        figure.update_layout(height=620, margin={"b": 176})
    if data.presets:
        figure.add_trace(_presets(data))
    if selected and (mark := _find(data, selected)):
        figure.add_trace(_ring(mark))
    if not data.front and not data.candidates and not data.stopped:
        _say_empty(figure, f"No candidate has been {data.done} yet")
    return figure


def progress_figure(data: ProgressData) -> go.Figure:
    """The dominated share over finished candidates."""
    subtitle = f"Share of the box from {data.box} that the front dominates"
    layout = _layout("How the front grew", subtitle, "Finished candidates, in order", "Hypervolume (%)")
    figure = go.Figure(layout=layout)
    hover = "After candidate %{x}<br>hypervolume %{y:.2f} %<extra></extra>"
    line = {"shape": "hv", "width": 2, "color": BLUE}
    figure.add_trace(
        go.Scatter(x=data.numbers, y=data.percent, mode="lines", line=line, hovertemplate=hover, showlegend=False)
    )
    figure.update_layout(height=320, margin={"b": 56})
    if not data.numbers:
        _say_empty(figure, "No candidate has finished yet")
    return figure


def _front(data: FrontFigureData) -> go.Scatter:
    if data.staircase:
        line: dict[str, object] = {"shape": "hv", "width": 2, "color": BLUE}
        return _scatter("Pareto front", data.front, _dot(BLUE, 10), bars=BLUE, mode="lines+markers", line=line)
    # Below the axis, where a narrow screen has room too; its title stands in the legend under it.
    bar = {
        "orientation": "h", "thickness": 10, "len": 1.0, "x": 0.0, "xanchor": "left", "yref": "container",
        "y": 0.15, "yanchor": "bottom", "outlinewidth": 0,
    }  # fmt: skip
    coloured = {
        "color": [mark.colour for mark in data.front], "colorscale": "Viridis", "colorbar": bar, "size": 13,
        "line": {"width": 1, "color": "white"},
    }  # fmt: skip
    return _scatter(f"Pareto front, colour: {data.colour_axis}", data.front, coloured, bars=BLUE)


def _presets(data: FrontFigureData) -> go.Scatter:
    labels = [f"<b>{escape(mark.label)}</b>" for mark in data.presets]
    star = {"symbol": "star", "size": 15, "color": VERMILLION, "line": {"width": 1, "color": "white"}}
    trace = _scatter("Published presets, same proxy", data.presets, star, bars=VERMILLION, mode="markers+text")
    trace.update(text=labels, textposition="bottom right", textfont={"color": VERMILLION, "size": 12})
    return trace


def _scatter(
    name: str, marks: Sequence[Mark], marker: dict[str, object], *, bars: str | None = None,
    mode: str = "markers", line: dict[str, object] | None = None,
) -> go.Scatter:  # fmt: skip
    thin = {"thickness": 1.2, "width": 4, "color": _PALE.get(bars or "", GREY)}
    across = {
        "type": "data", "symmetric": False, "array": [m.right for m in marks],
        "arrayminus": [m.left for m in marks], **thin,
    }  # fmt: skip
    upright = {"type": "data", "array": [m.value_std for m in marks], **thin}
    return go.Scatter(
        name=escape(name),
        x=[mark.cost for mark in marks],
        y=[mark.value for mark in marks],
        mode=mode,
        line=line,
        marker=marker,
        error_x=across if bars else None,
        error_y=upright if bars else None,
        customdata=[mark.ref for mark in marks],
        hovertext=[_hover(mark) for mark in marks],
        hoverinfo="text",
    )


def _hover(mark: Mark) -> str:
    """Plotly reads a little HTML in hover text, so what came from files is escaped."""
    title = mark.label if mark.label == mark.ref or not mark.ref else f"{mark.label} ({mark.ref})"
    return "<br>".join((f"<b>{escape(title)}</b>", *map(escape, mark.facts)))


def _dot(color: str, size: int, opacity: float = 1.0) -> dict[str, object]:
    return {"color": color, "size": size, "opacity": opacity, "line": {"width": 1, "color": "white"}}


def _ring(mark: Mark) -> go.Scatter:
    ring = {"symbol": "circle-open", "size": 22, "color": INK, "line": {"width": 2.5}}
    return go.Scatter(name="Picked", x=[mark.cost], y=[mark.value], mode="markers", marker=ring, hoverinfo="skip")


def _find(data: FrontFigureData, ref: str) -> Mark | None:
    marks = (*data.front, *data.presets, *data.candidates, *data.stopped)
    return next((mark for mark in marks if mark.ref == ref), None)


def _layout(title: str, subtitle: str, x_title: str, y_title: str) -> go.Layout:
    def axis(text: str) -> dict[str, object]:
        return {
            "title": {"text": escape(text), "standoff": 12}, "gridcolor": GRID, "zeroline": False, "showline": True,
            "linecolor": GREY, "ticks": "outside", "tickcolor": GREY, "automargin": True,
        }  # fmt: skip

    return go.Layout(
        template="none",
        title={
            "text": f"<b>{escape(title)}</b>", "x": 0, "xref": "paper", "xanchor": "left", "y": 0.97,
            "yanchor": "top", "font": {"size": 17}, "subtitle": {"text": escape(subtitle), "font": {"size": 13}},
        },
        font={"family": _FONT, "size": 13, "color": INK},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        xaxis=axis(x_title),
        yaxis=axis(y_title),
        height=560,
        margin={"l": 70, "r": 24, "t": 84, "b": 110},
        # From the figure's own edge: measured from the plot's, it moves when a redrawn figure gets other margins.
        legend={"orientation": "h", "x": 0, "xanchor": "left", "yref": "container", "y": 0.01, "yanchor": "bottom"},
        hoverlabel={"align": "left", "bgcolor": "white", "bordercolor": GREY, "font": {"color": INK}},
        hovermode="closest",
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": GREY, "activecolor": BLUE},
    )  # fmt: skip


def _say_empty(figure: go.Figure, text: str) -> None:
    figure.add_annotation(text=text, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False, font={"size": 16})
    figure.update_xaxes(range=[0, 10])
    figure.update_yaxes(range=[0, 100])
