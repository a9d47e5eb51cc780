"""What the figures show, as plain data: no plotly here."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mvit_search._quantities import format_count
from mvit_search.analysis.front_document import FrontDocument, Point, display_target
from mvit_search.analysis.proxy_words import ProxyWords, proxy_words, value_text
from mvit_search.analysis.stages import stage_summary
from mvit_search.analysis.tables import bytes_text, latency_text
from mvit_search.records import hypervolume


class Mark(NamedTuple):
    """One point of the front figure.

    Attributes:
        ref: `RUN/NUMBER`, which a click hands on.
        label: what stands beside a preset.
        left_ms: distance to the lower end of the latency interval; `right_ms` to the upper.
        value: mean over seeds, top-1 in % or a score; `value_std` is its standard deviation, 0 with one seed.
        facts: lines of the hover text, not escaped.
    """

    ref: str
    label: str
    latency_ms: float
    left_ms: float
    right_ms: float
    value: float
    value_std: float
    facts: tuple[str, ...]


class FrontFigureData(NamedTuple):
    """The front figure. `candidates` leaves out what is drawn as front or preset; `front` is fastest first.

    `done` is what was done to each candidate: trained or scored.
    """

    title: str
    subtitle: str
    latency_axis: str
    value_axis: str
    done: str
    candidates: tuple[Mark, ...]
    front: tuple[Mark, ...]
    presets: tuple[Mark, ...]


class ProgressData(NamedTuple):
    """Hypervolume after each finished candidate, as a share of the box up to `worst_latency_ms`."""

    worst_latency_ms: float
    numbers: tuple[int, ...]
    percent: tuple[float, ...]


def front_figure_data(document: FrontDocument, candidates: Iterable[Point]) -> FrontFigureData:
    """Marks and words of the Pareto figure. Points without a latency or an accuracy are not drawn.

    A preset on the front is drawn as both, so that the line is whole and the star is there.
    """
    words = proxy_words(document)
    device = display_target(document.target) or "the target"
    front = sorted((p for p in document.front if p.plotted), key=lambda p: p.latency_ms or 0.0)
    presets = [p for p in document.baselines if p.plotted]
    shown = {p.ref for p in (*front, *presets)}
    rest = [p for p in candidates if p.plotted and p.ref not in shown]
    # The other candidates may be known in another way than the rows of the document.
    ways = {p.latency_how for p in (*front, *presets, *rest) if p.latency_how}
    word = " and ".join(sorted(ways, reverse=True)) if len(ways) > 1 else document.latency_word or "unknown source"
    return FrontFigureData(
        title=f"{words.subject} against latency on {device}",
        subtitle=f"Latency {word}; {words.origin}",
        latency_axis=f"Latency on {device}, {word} (ms)",
        value_axis=words.axis,
        done=words.done,
        candidates=tuple(_mark(p, words) for p in rest),
        front=tuple(_mark(p, words) for p in front),
        presets=tuple(_mark(p, words) for p in presets),
    )


def progress_data(candidates: Sequence[Point], worst_latency_ms: float) -> ProgressData:
    """How the dominated share grew, in the order of evaluation; a failed candidate leaves it as it was.

    It uses each candidate's final mean, so a late extra seed may move an early step.
    """
    front: list[tuple[float, float]] = []
    numbers, percent, share = [], [], 0.0
    for number, point in enumerate(candidates):
        if point.latency_ms is not None and point.top1 is not None:
            here = (point.latency_ms, point.top1)
            # Most candidates change nothing, and the sum is only needed when one does.
            if not any(ms <= here[0] and top1 >= here[1] for ms, top1 in front):
                front = [p for p in front if p[0] < here[0] or p[1] > here[1]] + [here]
                share = hypervolume(front, worst_latency_ms)
        numbers.append(number)
        percent.append(100 * share)
    return ProgressData(worst_latency_ms, tuple(numbers), tuple(percent))


def _mark(point: Point, words: ProxyWords) -> Mark:
    ms, value = point.latency_ms or 0.0, point.value or 0.0
    low = ms if point.latency_low_ms is None else point.latency_low_ms
    high = ms if point.latency_high_ms is None else point.latency_high_ms
    return Mark(
        ref=point.ref or "",
        label=point.title,
        latency_ms=ms,
        left_ms=max(0.0, ms - low),
        right_ms=max(0.0, high - ms),
        value=words.scale * value,
        value_std=words.scale * (point.value_std or 0.0),
        facts=_facts(point, words),
    )


def _facts(point: Point, words: ProxyWords) -> tuple[str, ...]:
    lines = [
        f"{words.column.partition(' ')[0]} {value_text(point)}",
        f"Latency {latency_text(point)}",
        point.latency_source or "source of the latency unknown",
        f"{format_count(point.params)} parameters, {format_count(point.macs)} MACs,"
        f" {bytes_text(point.peak_activation_bytes)} peak activations",
    ]
    if point.config is not None:
        lines.append(f"Stages {stage_summary(point.config)}")
    return tuple(lines)
