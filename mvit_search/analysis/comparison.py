"""Front points against presets, and what may be claimed given the spread between seeds."""

import math
from typing import Any, Literal, NamedTuple

from mvit_search.analysis.front_document import FrontDocument, Point, read_document
from mvit_search.analysis.objective_words import cost_amount, costs, nouns
from mvit_search.analysis.proxy_words import ProxyWords, difference_text, proxy_words
from mvit_search.records import SeedNoise

Standing = Literal["better", "level", "worse", "unknown"]


class Comparison(NamedTuple):
    """One front point beside one preset that costs no less in any objective.

    Attributes:
        difference: value of the point minus the preset's: of top-1, 0..1, or of a score.
        margin: what seeds alone may make of it (`SeedNoise.margin`); None if no candidate has a second seed.
    """

    point: Point
    baseline: Point
    difference: float
    margin: float | None

    @property
    def standing(self) -> Standing:
        """`level` = indistinguishable: they differ by no more than the seed noise."""
        if self.margin is None:
            return "unknown" if self.difference > 0 else "worse"
        if abs(self.difference) <= self.margin:
            return "level"
        return "better" if self.difference > 0 else "worse"

    @property
    def saved_ms(self) -> float:
        """Milliseconds by which the point is faster."""
        return (self.baseline.latency_ms or 0.0) - (self.point.latency_ms or 0.0)


def seed_noise(document: FrontDocument) -> SeedNoise | None:
    """How much the value of one network varies from seed to seed, pooled over all rows with several seeds."""
    rows = {point.digest or point.ref or str(id(point)): point for point in (*document.baselines, *document.front)}
    return SeedNoise.pooled((point.value_std, len(point.value_by_seed)) for point in rows.values())


def comparisons(document: FrontDocument) -> tuple[Comparison, ...]:
    """Every found front point with every trained preset that costs as much or more in each of the run's costs."""
    noise = seed_noise(document)
    return tuple(
        Comparison(point, baseline, (point.value or 0.0) - (baseline.value or 0.0), _margin(noise, point, baseline))
        for baseline in _by_accuracy(document)
        for point in document.found
        if point.plotted and not point.same_network(baseline) and _no_costlier(document, point, baseline)
    )


def verdict(document: dict[str, Any]) -> str:
    """What the run shows against the presets in plain sentences, one a preset, and no more than it shows.

    Raises:
        InputError: the document breaks its contract.
    """
    return " ".join(verdict_sentences(read_document(document)))


def verdict_sentences(document: FrontDocument) -> tuple[str, ...]:
    """The sentences of `verdict`, the most accurate preset first."""
    words = proxy_words(document)
    if not document.front:
        done = "finished training" if words.done == "trained" else f"been {words.done}"
        return (f"No candidate has {done}, so there is no front yet.",)
    pairs = comparisons(document)
    sentences = [
        _sentence(baseline, document, tuple(pair for pair in pairs if pair.baseline is baseline))
        for baseline in _by_accuracy(document)
    ]
    sentences += [_not_valued(baseline, words) for baseline in document.baselines if not baseline.plotted]
    if not sentences:
        sentences = ["No preset was evaluated in this run, so there is nothing to set the front beside."]
    about_front = (*_level_with_best(document), *_level_neighbours(document))
    return (*_nothing_trained(document), *sentences, *about_front, *_not_measured(document))


def _nothing_trained(document: FrontDocument) -> tuple[str, ...]:
    kind, _, argument = document.proxy.partition(":")
    if kind == "zero-cost":
        return (f"Networks were ranked by the zero-cost score {argument}; none was trained, so no accuracy is known.",)
    if kind == "table":
        return (f"Accuracies were read from the recorded table {argument}; nothing was trained.",)
    return ()


def _sentence(baseline: Point, document: FrontDocument, pairs: tuple[Comparison, ...]) -> str:
    name, total, more = baseline.title, len(document.found), proxy_words(document).more
    if not total:
        return f"The front holds no network but presets, so nothing here beats {name}."
    points = "front point" if total == 1 else "front points"
    if total < len(document.front):
        points += " that is no preset" if total == 1 else " that are no presets"
    at_cost = f"at equal or lower {nouns(document, '' if document.mixed else document.latency_word)}"
    higher = [pair for pair in pairs if pair.difference > 0]
    also = _faster_and_level(document, pairs)
    if not higher and any(point.same_network(baseline) for point in document.front):
        cheap = "as fast" if costs(document) == ("latency_ms",) else "as cheap"
        return f"{name} is on the front itself: nothing found is {cheap} and {more}.{also}"
    if not higher:
        which = f"The one {points} is not" if total == 1 else f"None of the {total} {points} is"
        return f"{which} {more} than {name} {at_cost}.{also}"
    count = len(higher)
    subject = f"{count} of {total} {points} {'is' if count == 1 else 'are'}" if total > 1 else f"The one {points} is"
    return f"{subject} {more} than {name} {at_cost}; {_how_sure(higher, document)}.{also}"


def _how_sure(higher: list[Comparison], document: FrontDocument) -> str:
    margins = [pair.margin for pair in higher if pair.margin is not None]
    if not margins:
        noise = "training" if proxy_words(document).done == "trained" else "the first weights"
        return f"with a single seed each, it is not known whether the differences exceed the noise of {noise}"
    sure = sum(pair.standing == "better" for pair in higher)
    largest = difference_text(document, max(margins))
    equal = difference_text(document, min(margins)) == largest
    seeds = f"the seed noise ({'' if equal else 'up to '}{largest})"
    if len(higher) == 1:
        return f"the difference is {'larger' if sure else 'no larger'} than {seeds}"
    if sure in (0, len(higher)):
        every = "both" if sure == 2 else f"all {sure}"
        which = f"{every} differences are" if sure else f"none of the {len(higher)} differences is"
        return f"{which} larger than {seeds}"
    return f"{sure} of the {len(higher)} differences {'is' if sure == 1 else 'are'} larger than {seeds}"


def _faster_and_level(document: FrontDocument, pairs: tuple[Comparison, ...]) -> str:
    level = [pair for pair in pairs if pair.standing == "level" and pair.saved_ms > 0]
    if not level:
        return ""
    fastest = max(level, key=lambda pair: pair.saved_ms)
    likeness = proxy_words(document).likeness
    return (
        f" The fastest point that is indistinguishable from it {likeness} ({fastest.point.ref}) takes"
        f" {_latency(document, fastest.point)} against {_latency(document, fastest.baseline)}."
    )


def _level_with_best(document: FrontDocument) -> tuple[str, ...]:
    """Whether a faster front point is as accurate as the most accurate, as far as the seeds can tell."""
    noise, points = seed_noise(document), [p for p in document.front if p.plotted]
    if noise is None or len(points) < 2 or "latency_ms" not in document.objectives:
        return ()
    best = max(points, key=lambda p: p.value or -math.inf)
    if best.name is not None:  # A preset: its own sentence says it already.
        return ()
    level = [p for p in points if p is not best and _gap(best, p) <= (_margin(noise, best, p) or 0.0)]
    level = [p for p in level if (p.latency_ms or 0.0) < (best.latency_ms or 0.0)]
    if not level:
        return ()
    fastest = min(level, key=lambda p: p.latency_ms or 0.0)
    words = proxy_words(document)
    return (
        f"The {words.most} point ({best.ref}, {_latency(document, best)}) is indistinguishable {words.likeness} from"
        f" {fastest.ref} at {_latency(document, fastest)}.",
    )


def _level_neighbours(document: FrontDocument) -> tuple[str, ...]:
    """How many points of the front their neighbours might as well replace, where the document says it."""
    told = [point for point in document.front if point.indistinguishable_from is not None]
    if len(told) < 2:
        return ()
    level = sum(bool(point.indistinguishable_from) for point in told)
    likeness = proxy_words(document).likeness
    if not level:
        return (f"Seeds tell each of the {len(told)} front points {likeness} from the next.",)
    return (
        f"{level} of {len(told)} front points are indistinguishable {likeness} from a neighbour on the front: their"
        " order is not settled by so few seeds.",
    )


def _not_measured(document: FrontDocument) -> tuple[str, ...]:
    """Which points of the front have a prediction beside the measurements of others."""
    predicted = [point.title for point in document.front if point.latency_how == "predicted"]
    if not document.mixed or not predicted:
        return ()
    have = "has" if len(predicted) == 1 else "have"
    return (
        f"{len(predicted)} of {len(document.front)} front points {have} a predicted latency beside measured ones"
        f" ({', '.join(predicted)}); measure before relying on the comparison.",
    )


def _not_valued(baseline: Point, words: ProxyWords) -> str:
    if baseline.outcome == "over budget":
        return f"{baseline.title} breaks the budget and was not {words.done}."
    if baseline.outcome == "over a limit":
        return f"{baseline.title} breaks a limit and was not {words.done}."
    if baseline.outcome == "stopped":
        return f"{baseline.title} was stopped before its full training, so it is not compared."
    if baseline.outcome == "failed":
        what = "The training" if words.done == "trained" else "The scoring"
        return f"{what} of {baseline.title} failed, so it is not compared."
    return f"{baseline.title} was not {words.done}, so it is not compared."


def _by_accuracy(document: FrontDocument) -> tuple[Point, ...]:
    trained = [baseline for baseline in document.baselines if baseline.plotted]
    return tuple(sorted(trained, key=lambda p: -(p.value or 0.0)))


def _no_costlier(document: FrontDocument, point: Point, baseline: Point) -> bool:
    return all((cost_amount(point, key) or 0.0) <= (cost_amount(baseline, key) or 0.0) for key in costs(document))


def _margin(noise: SeedNoise | None, one: Point, other: Point) -> float | None:
    return None if noise is None else noise.margin(len(one.value_by_seed), len(other.value_by_seed))


def _gap(one: Point, other: Point) -> float:
    return (one.value or 0.0) - (other.value or 0.0)


def _latency(document: FrontDocument, point: Point) -> str:
    return document.known(point, f"{point.latency_ms:.1f} ms")
