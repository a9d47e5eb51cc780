"""The figures of a proxy check: tau against cost, the recommended proxy against the reference, learning curves.

What they show is plain data first (tested), then drawn.
"""

from collections.abc import Sequence
from html import escape
from statistics import stdev
from typing import NamedTuple

import plotly.graph_objects as go

from mvit_search.analysis.figures import BLUE, GREY, INK, VERMILLION, _layout
from mvit_search.analysis.front_document import display_name
from mvit_search.ranking.combination import COMBINATION
from mvit_search.ranking.extrapolation import EXTRAPOLATION
from mvit_search.ranking.proxies import (
    IMAGES,
    LATENCY,
    RECIPE,
    RESOLUTION,
    RUNG,
    SHORT,
    SIZE,
    ZERO,
    mean_over_seeds,
    seeds_of,
)  # fmt: skip
from mvit_search.ranking.recommendation import BASELINES, Judged, estimate_words, seconds_words
from mvit_search.ranking.statistics import Estimate
from mvit_search.ranking.summary import FAMILIES, Findings

# The rest of Okabe and Ito's palette; every family has a shape of its own too.
_STYLES = {
    RUNG: (BLUE, "circle"), SHORT: (VERMILLION, "square"), RESOLUTION: ("#009E73", "diamond"),
    IMAGES: ("#CC79A7", "triangle-up"), RECIPE: ("#7A5C00", "pentagon"), ZERO: ("#E69F00", "x"),
    EXTRAPOLATION: ("#56B4E9", "triangle-down"), COMBINATION: ("#4B3F8F", "star"),
}  # fmt: skip
_LINES = {"params": INK, "MACs": GREY}
_BANDS = {"params": "rgba(32,38,45,0.10)", "MACs": "rgba(138,147,156,0.16)"}
_ALIKE = 1.06
"""Costs within this factor lie on one another in the figure..."""
_ASIDE = (0.0, 0.03, -0.03, 0.06, -0.06, 0.09, -0.09)
"""...and are moved by such a share, one after the other; never by more, or the axis would not be true."""


class Mark(NamedTuple):
    """A proxy in the figure of taus; `open` is drawn hollow.

    `cost` is moved by up to 9 % where others cost about the same.
    """

    name: str
    family: str
    cost: float
    tau: Estimate
    open: bool
    facts: tuple[str, ...]


class Dot(NamedTuple):
    """A candidate: what the proxy gave it, and the reference's mean and standard deviation over seeds, percent."""

    label: str
    score: float
    top1_percent: float
    std_percent: float


class Curve(NamedTuple):
    """A candidate's mean top-1 (percent) at its rungs; `third` is 0 for the best third at the end, 2 for the last."""

    label: str
    epochs: tuple[int, ...]
    top1_percent: tuple[float, ...]
    third: int


def tau_marks(found: Findings) -> list[Mark]:
    """Every judged proxy that costs something, by cost; about equal costs side by side as far as there is room."""
    steps = counts_steps(found)
    able = [one for one in found.judged if one.agreement and one.proxy.family not in (SIZE, LATENCY)]
    marks: list[Mark] = []
    first, alike = 0.0, 0  # of the present group: its lowest cost, and how many it has
    for one in sorted(able, key=lambda one: (_cost(one, steps), FAMILIES.index(one.proxy.family))):
        if (cost := _cost(one, steps)) > 0:
            first, alike = (first, alike + 1) if cost <= first * _ALIKE else (cost, 0)
            marks.append(_mark(one, cost * (1 + _ASIDE[alike % len(_ASIDE)])))
    return marks


def counts_steps(found: Findings) -> bool:
    """Whether costs are image steps: some training of the table has no seconds."""
    return any(one.proxy.image_steps and not one.proxy.cpu_seconds for one in found.judged)


def scatter_dots(found: Findings, chosen: Judged) -> list[Dot]:
    """The candidates that `chosen` scores; means over its seeds."""
    scores = mean_over_seeds(chosen.proxy.scores)
    data = found.measured
    digests = [digest for digest in data.means if digest in scores]
    spreads = [stdev(values) if len(values) > 1 else 0.0 for values in seeds_of(data.top1, digests)]
    return [
        Dot(_label(found, digest), scores[digest], 100 * data.means[digest], 100 * spread)
        for digest, spread in zip(digests, spreads, strict=True)
    ]


def curves(found: Findings) -> list[Curve]:
    """A curve a candidate, best at the end first."""
    data = found.measured
    rungs = {epoch: mean_over_seeds(values) for epoch, values in sorted(data.rungs.items())}
    order = sorted(data.means, key=lambda digest: -data.means[digest])
    drawn = []
    for place, digest in enumerate(order):
        known = [(epoch, 100 * values[digest]) for epoch, values in rungs.items() if digest in values]
        epochs, percent = zip(*known, strict=True)
        drawn.append(Curve(_label(found, digest), epochs, percent, min(2, 3 * place // len(order))))
    return drawn


def tau_figure(found: Findings) -> go.Figure:
    """Tau with its interval against cost, one colour and shape a family; baselines as lines with bands."""
    steps = counts_steps(found)
    unit = "image steps" if steps else "CPU seconds"
    figure = go.Figure(layout=_untitled(f"{unit} a candidate", "Kendall's tau"))
    marks = tau_marks(found)
    costs = [mark.cost for mark in marks] or [1.0]
    low, high = min(costs) / 1.5, max(*costs, found.measured.cost[1 if steps else 0]) * 1.5
    for one in found.judged:
        if one.proxy.name in BASELINES and one.proxy.family == SIZE and one.agreement:
            _add_baseline(figure, one.proxy.name, one.agreement.tau, low, high)
    _add_level(figure, found.recommendation.threshold, low, high, "threshold", "dash")
    if found.repeatability:
        _add_level(figure, found.repeatability.ceiling, low, high, "ceiling by the reference's noise", "dot")
    for family in _STYLES:
        if own := [mark for mark in marks if mark.family == family]:
            figure.add_trace(_taus(family, own))
    chosen = found.recommendation.chosen
    if ringed := [mark for mark in marks if chosen and mark.name == chosen.proxy.name]:
        figure.add_trace(_ring(ringed[0], "recommended" if found.recommendation.cleared else "best, does not clear"))
    figure.update_xaxes(type="log", dtick=1)
    figure.update_layout(height=640)
    return figure


def scatter_figure(found: Findings, chosen: Judged) -> go.Figure:
    """Reference against the proxy's score; presets as stars."""
    by_loss = chosen.proxy.name.endswith("(loss)")
    trained = chosen.proxy.family not in (ZERO, COMBINATION) and not by_loss
    scale = 100 if trained else 1
    unit = "% top-1" if trained else "minus the loss" if by_loss else "score"
    axis = f"{chosen.proxy.name.removesuffix(' (loss)')} ({unit})"
    figure = go.Figure(layout=_untitled(axis, "Top-1 of the long schedule (%)"))
    dots = scatter_dots(found, chosen)
    star = {"symbol": "star", "size": 14, "color": VERMILLION, "line": {"width": 1, "color": "white"}}
    plain = {"size": 9, "color": BLUE, "line": {"width": 1, "color": "white"}}
    for name, own, marker in (
        ("Candidates", [dot for dot in dots if not dot.label.startswith("Mobile")], plain),
        ("Published presets", [dot for dot in dots if dot.label.startswith("Mobile")], star),
    ):
        if own:
            figure.add_trace(_dots(name, own, marker, scale, [dot.score for dot in dots]))
    figure.update_layout(height=520)
    return figure


def curves_figure(found: Findings) -> go.Figure:
    """Top-1 by epoch of every candidate, coloured by where it ends."""
    figure = go.Figure(layout=_untitled("Epoch", "Top-1 on held-out images (%)"))
    drawn = curves(found)
    for third, label, color, opacity in (
        (1, "middle third at the end", GREY, 0.5), (2, "last third", VERMILLION, 0.7), (0, "best third", BLUE, 0.7),
    ):  # fmt: skip
        own = [curve for curve in drawn if curve.third == third]
        xs: list[float | None] = []
        ys: list[float | None] = []
        for curve in own:
            xs += [*curve.epochs, None]
            ys += [*curve.top1_percent, None]
        if own:
            line = {"width": 1.3, "color": color}
            figure.add_trace(
                go.Scatter(x=xs, y=ys, mode="lines", name=label, line=line, opacity=opacity, hoverinfo="skip")
            )
    presets = [curve for curve in drawn if curve.label.startswith("Mobile")]
    for curve in presets:
        figure.add_trace(
            go.Scatter(
                x=curve.epochs, y=curve.top1_percent, mode="lines", line={"width": 2.5, "color": INK},
                name=curve.label, showlegend=False,
                hovertemplate=f"{escape(curve.label)}<br>epoch %{{x}}: %{{y:.1f}} %<extra></extra>",
            )
        )  # fmt: skip
    _label_ends(figure, presets, drawn)
    epochs = sorted(found.measured.rungs)
    figure.update_xaxes(type="log", tickvals=epochs, ticktext=[str(epoch) for epoch in epochs])
    figure.update_layout(height=520, margin={"r": 130 if presets else 24})
    return figure


def _untitled(x_title: str, y_title: str) -> go.Layout:
    """The page's heading and caption say what is drawn: inside a figure they would be cut off on a phone."""
    layout = _layout("", "", x_title, y_title)
    layout.update(title=None, margin={"t": 44})
    return layout


def _label_ends(figure: go.Figure, presets: Sequence[Curve], drawn: Sequence[Curve]) -> None:
    """The presets' names at their ends, pushed down where they would lie on each other; `presets` best first."""
    values = [percent for curve in drawn for percent in curve.top1_percent]
    gap, above = 0.05 * (max(values) - min(values)), float("inf")
    for curve in presets:
        above = min(curve.top1_percent[-1], above - gap)
        figure.add_annotation(
            x=1, xref="paper", y=above, text=f" <b>{escape(curve.label)}</b>", xanchor="left", showarrow=False,
            font={"size": 12},
        )  # fmt: skip


def _mark(one: Judged, cost: float) -> Mark:
    assert one.agreement is not None
    tau, proxy = one.agreement.tau, one.proxy
    facts = (
        f"tau {estimate_words(tau)}, rho {estimate_words(one.agreement.rho)}",
        f"{seconds_words(proxy.cpu_seconds) if proxy.cpu_seconds else '0'} CPU s, {proxy.image_steps:,.0f} image steps",
        proxy.source,
    )
    return Mark(proxy.name, proxy.family, cost, tau, proxy.name.endswith("(loss)"), facts)


def _taus(family: str, marks: Sequence[Mark]) -> go.Scatter:
    color, symbol = _STYLES[family]
    symbols = [f"{symbol}-open" if mark.open else symbol for mark in marks]
    bars = {
        "type": "data", "symmetric": False, "array": [mark.tau.high - mark.tau.value for mark in marks],
        "arrayminus": [mark.tau.value - mark.tau.low for mark in marks], "thickness": 1, "width": 3,
    }  # fmt: skip
    return go.Scatter(
        name=family, x=[mark.cost for mark in marks], y=[mark.tau.value for mark in marks], mode="markers",
        marker={"color": color, "symbol": symbols, "size": 10, "line": {"width": 1.5, "color": color}}, error_y=bars,
        hovertext=["<br>".join((f"<b>{escape(mark.name)}</b>", *map(escape, mark.facts))) for mark in marks],
        hoverinfo="text",
    )  # fmt: skip


def _add_baseline(figure: go.Figure, name: str, tau: Estimate, low: float, high: float) -> None:
    figure.add_trace(
        go.Scatter(
            x=[low, high, high, low], y=[tau.low, tau.low, tau.high, tau.high], fill="toself", mode="lines",
            fillcolor=_BANDS[name], line={"width": 0}, hoverinfo="skip", showlegend=False,
        )
    )  # fmt: skip
    figure.add_trace(
        go.Scatter(
            x=[low, high], y=[tau.value, tau.value], mode="lines", line={"width": 2, "color": _LINES[name]},
            name=f"{name} (costs nothing)", hovertext=f"{name}: tau {estimate_words(tau)}", hoverinfo="text",
        )
    )  # fmt: skip


def _add_level(figure: go.Figure, tau: float, low: float, high: float, name: str, dash: str) -> None:
    line = {"width": 1.5, "color": VERMILLION if dash == "dash" else INK, "dash": dash}
    figure.add_trace(
        go.Scatter(
            x=[low, high], y=[tau, tau], mode="lines", line=line, name=name, hovertext=f"{name}: {tau:.2f}",
            hoverinfo="text",
        )
    )  # fmt: skip


def _ring(mark: Mark, name: str) -> go.Scatter:
    ring = {"symbol": "circle-open", "size": 24, "color": INK, "line": {"width": 2.5}}
    return go.Scatter(name=name, x=[mark.cost], y=[mark.tau.value], mode="markers", marker=ring, hoverinfo="skip")


def _dots(
    name: str, dots: Sequence[Dot], marker: dict[str, object], scale: float, every: Sequence[float]
) -> go.Scatter:
    """`every`: all scores of the figure; names stand on the side with more room."""
    bars = {"type": "data", "array": [dot.std_percent for dot in dots], "thickness": 1, "width": 3, "color": GREY}
    named = name == "Published presets"
    middle = (min(every) + max(every)) / 2
    return go.Scatter(
        name=name, x=[scale * dot.score for dot in dots], y=[dot.top1_percent for dot in dots],
        mode="markers+text" if named else "markers", marker=marker, error_y=bars,
        text=[f"<b>{escape(dot.label)}</b>" for dot in dots] if named else None,
        textposition=["bottom left" if dot.score > middle else "bottom right" for dot in dots],
        textfont={"color": VERMILLION, "size": 12}, hoverinfo="text",
        hovertext=[
            f"<b>{escape(dot.label)}</b><br>proxy {scale * dot.score:.2f}<br>reference {dot.top1_percent:.1f} %"
            for dot in dots
        ],
    )  # fmt: skip


def _label(found: Findings, digest: str) -> str:
    name = found.measured.candidates[digest].name
    return display_name(name) if name else digest[:8]


def _cost(one: Judged, steps: bool) -> float:
    return one.proxy.image_steps if steps else one.proxy.cpu_seconds
