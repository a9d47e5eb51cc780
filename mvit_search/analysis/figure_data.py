"""What the figures show, as plain data: no plotly here."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mvit_search._quantities import format_count
from mvit_search.analysis.front_document import FrontDocument, Point, display_target
from mvit_search.analysis.objective_words import COSTS, axis_title, cost_amount, costs, listed
from mvit_search.analysis.proxy_words import ProxyWords, proxy_words, value_text
from mvit_search.analysis.stages import stage_summary
from mvit_search.analysis.tables import bytes_text, latency_text, stopped_text
from mvit_search.records.pareto import hypervolume_added


class Mark(NamedTuple):
    """One point of the front figure.

    Attributes:
        ref: `RUN/NUMBER`, which a click hands on.
        label: what stands beside a preset.
        cost: in the unit of the figure's axis: the latency, or the run's first cost where latency is no objective.
        left: distance to the lower end of the latency's interval; `right` to the upper. 0 of other costs.
        value: mean over seeds, top-1 in % or a score; `value_std` is its standard deviation, 0 with one seed.
        facts: lines of the hover text, not escaped.
        colour: a second cost, in the unit of the colour's title; None where there is none.
    """

    ref: str
    label: str
    cost: float
    left: float
    right: float
    value: float
    value_std: float
    facts: tuple[str, ...]
    colour: float | None = None


class FrontFigureData(NamedTuple):
    """The front figure.

    Attributes:
        done: what was done to each candidate: trained or scored.
        candidates: without what is drawn as front or preset.
        stopped: candidates that a run with successive halving stopped, each at the value of the highest rung that it
            reached: of a shorter training than all others, and drawn apart.
        front: that of the least cost first.
        colour_axis: title of the second cost, which the front's marks are coloured by; empty where there is none.
        staircase: whether the front is one in this figure: not with a further objective.
    """

    title: str
    subtitle: str
    cost_axis: str
    value_axis: str
    done: str
    candidates: tuple[Mark, ...]
    stopped: tuple[Mark, ...]
    front: tuple[Mark, ...]
    presets: tuple[Mark, ...]
    colour_axis: str = ""
    staircase: bool = True


class ProgressData(NamedTuple):
    """Hypervolume after each finished candidate, as a share of the box; `box` says in words what that is."""

    box: str
    numbers: tuple[int, ...]
    percent: tuple[float, ...]


def front_figure_data(document: FrontDocument, candidates: Iterable[Point]) -> FrontFigureData:
    """Marks and words of the Pareto figure. Points without a cost or an accuracy are not drawn.

    A preset on the front is drawn as both, so that the line is whole and the star is there.
    """
    words = proxy_words(document)
    first, *others = costs(document)
    front = sorted((p for p in document.front if p.plotted), key=lambda p: cost_amount(p, first) or 0.0)
    presets = [p for p in document.baselines if p.plotted]
    shown = {p.ref for p in (*front, *presets)}
    rest = [p for p in candidates if p.ref not in shown]
    valued = [p for p in rest if p.plotted]
    stopped = [p for p in rest if p.stopped_at and p.latency_ms is not None]
    # The other candidates may be known in another way than the rows of the document.
    ways = {p.latency_how for p in (*front, *presets, *valued, *stopped) if p.latency_how}
    word = " and ".join(sorted(ways, reverse=True)) if len(ways) > 1 else document.latency_word or "unknown source"
    device = display_target(document.target) or "the target"
    against = f"latency on {device}" if first == "latency_ms" else COSTS[first].noun
    return FrontFigureData(
        title=f"{words.subject} against {against}",
        subtitle=f"Latency {word}; {words.origin}{_also_optimised(others)}",
        cost_axis=axis_title(document, first, word),
        value_axis=words.axis,
        done=words.done,
        candidates=tuple(_mark(p, document, words) for p in valued),
        stopped=tuple(_stopped_mark(p, document, words) for p in stopped),
        front=tuple(_mark(p, document, words) for p in front),
        presets=tuple(_mark(p, document, words) for p in presets),
        colour_axis=axis_title(document, others[0], word) if others else "",
        staircase=not others,
    )


def progress_data(document: FrontDocument, candidates: Sequence[Point]) -> ProgressData:
    """How the dominated share grew, in the order of evaluation; a failed or stopped candidate leaves it as it was.

    It uses each candidate's final mean, so a late extra seed may move an early step.
    """
    keys = costs(document)
    worst = [document.hypervolume_reference[key] for key in keys]
    front: list[tuple[float, ...]] = []
    numbers, percent, share = [], [], 0.0
    for number, point in enumerate(candidates):
        here = _place(point, keys)
        # Most candidates change nothing, and the sum is only needed when one does.
        if here is not None and not any(_covers(known, here) for known in front):
            share += hypervolume_added(here, front, *worst)
            front = [known for known in front if not _covers(here, known)] + [here]
        numbers.append(number)
        percent.append(100 * share)
    ends = [f"0 to {COSTS[key].text(most)}" for key, most in zip(keys, worst, strict=True)]
    return ProgressData(listed([*ends, "0 to 100 % top-1"]), tuple(numbers), tuple(percent))


def _place(point: Point, keys: Sequence[str]) -> tuple[float, ...] | None:
    """(cost, ..., top-1); None of one that cannot be on a front."""
    amounts = [cost_amount(point, key) for key in keys]
    if point.top1 is None or not point.within:
        return None
    known = [amount for amount in amounts if amount is not None]
    return (*known, point.top1) if len(known) == len(amounts) else None


def _covers(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[-1] >= other[-1] and all(a <= b for a, b in zip(one[:-1], other[:-1], strict=True))


def _also_optimised(others: Sequence[str]) -> str:
    if not others:
        return ""
    shown = f"; colour of the front: {COSTS[others[0]].noun}"
    hidden = [COSTS[key].noun for key in others[1:]]
    return f"{shown}; also optimised: {listed(hidden)}" if hidden else shown


def _stopped_mark(point: Point, document: FrontDocument, words: ProxyWords) -> Mark:
    assert point.stopped_at is not None
    mark = _mark(point, document, words)
    facts = (f"{stopped_text(point, document)}: a shorter training than that of the front", *mark.facts[1:])
    return mark._replace(value=words.scale * (point.stopped_at.value or 0.0), facts=facts)


def _mark(point: Point, document: FrontDocument, words: ProxyWords) -> Mark:
    first, *others = costs(document)
    amount, value = cost_amount(point, first) or 0.0, point.value or 0.0
    interval = first == "latency_ms"
    low = point.latency_low_ms if interval and point.latency_low_ms is not None else amount
    high = point.latency_high_ms if interval and point.latency_high_ms is not None else amount
    scale = COSTS[first].scale
    second = cost_amount(point, others[0]) if others else None
    return Mark(
        ref=point.ref or "",
        label=point.title,
        cost=scale * amount,
        left=max(0.0, scale * (amount - low)),
        right=max(0.0, scale * (high - amount)),
        value=words.scale * value,
        value_std=words.scale * (point.value_std or 0.0),
        facts=_facts(point, words),
        colour=None if second is None else COSTS[others[0]].scale * second,
    )


def _facts(point: Point, words: ProxyWords) -> tuple[str, ...]:
    lines = [
        f"{words.column.partition(' ')[0]} {value_text(point)}",
        f"Latency {latency_text(point)}",
        point.latency_source or "source of the latency unknown",
        f"{format_count(point.params)} parameters, {format_count(point.macs)} MACs,"
        f" {bytes_text(point.peak_activation_bytes)} peak activations",
    ]
    if not point.within:
        lines.append("Breaks a limit that only measuring or training shows")
    if point.config is not None:
        lines.append(f"Stages {stage_summary(point.config)}")
    return tuple(lines)
