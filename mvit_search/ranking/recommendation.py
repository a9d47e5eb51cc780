"""Which proxy to use: the cheapest one that surely ranks well enough, and whether it beats counting parameters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mvit_search.errors import InputError
from mvit_search.ranking.proxies import LATENCY, SIZE, Proxy
from mvit_search.ranking.statistics import Agreement, Estimate, Spread

THRESHOLD = 0.5
FEWEST = 10
"""Candidates below which no interval is believed: with five, one order in 120 is perfect by chance, and its interval
has no width."""
BASELINES = ("params", "MACs")


class OtherSeeds(NamedTuple):
    """Tau against the mean of the reference's trainings with other seeds than the score's: no luck is shared."""

    tau: float
    candidates: int


@dataclass(frozen=True)
class Judged:
    """A proxy and how well it ranks.

    Attributes:
        agreement: None where its scores are all equal, or of fewer than 3 candidates with a reference.
        over: baseline's name -> by how much its tau is beaten, on the candidates that `proxy` scores.
        baselines: baseline's name -> its tau on those candidates.
        spread: of trained top-1.
    """

    proxy: Proxy
    agreement: Agreement | None
    over: dict[str, Estimate]
    baselines: dict[str, Estimate]
    other_seeds: OtherSeeds | None
    spread: Spread | None


@dataclass(frozen=True)
class Recommendation:
    """`chosen` is the cheapest proxy whose interval clears `threshold`, else the best one, with `cleared` False.

    Attributes:
        beats: baseline's name -> whether the difference to it is above zero with its whole interval.
        sentences: the recommendation first, then what must be known with it.
    """

    threshold: float
    cleared: bool
    chosen: Judged | None
    beats: dict[str, bool]
    sentences: tuple[str, ...]


def recommend(judged: Sequence[Judged], threshold: float, reference_cost: tuple[float, float]) -> Recommendation:
    """The cheapest proxy whose tau's lower bound is above `threshold`; sizes and latency are baselines, not proxies.

    Cost is CPU seconds, or image steps where the table has no seconds of some training.
    """
    able = [one for one in judged if one.agreement is not None and one.proxy.family not in (SIZE, LATENCY)]
    if not able:
        words = f"No proxy could be judged against tau {threshold:.2f}: there is none besides params, MACs and latency."
        return Recommendation(threshold, False, None, {}, (words,))
    clearing = [one for one in able if _clears(one, threshold)]
    by_steps = any(one.proxy.image_steps and not one.proxy.cpu_seconds for one in able)
    if clearing:
        chosen = min(clearing, key=lambda one: (*_cost(one.proxy, by_steps), -_tau(one).value))
    else:
        chosen = max(able, key=lambda one: (_tau(one).low if _enough(one) else -2.0, _tau(one).value))
    beats = {name: difference.low > 0 for name, difference in chosen.over.items()}
    price = cost_words(chosen.proxy, reference_cost)
    shown = f"{chosen.proxy.name} (tau {estimate_words(_tau(chosen))}; {price})"
    if clearing:
        first = f"Use {shown}: the cheapest whose interval clears tau {threshold:.2f}."
    else:
        first = f"None clears tau {threshold:.2f} with its whole interval. The best is {shown}."
    further = _too_few(able, clearing) + _against_baselines(chosen, threshold) + _luck(chosen, len(able))
    return Recommendation(threshold, bool(clearing), chosen, beats, (first, *further))


def require_threshold(threshold: float) -> None:
    """Raises InputError where `threshold` is no tau strictly between 0 and 1."""
    if not 0 < threshold < 1:
        raise InputError("--threshold", threshold, "must be above 0 and below 1", "it is a Kendall tau: 0.5 is usual")


def estimate_words(estimate: Estimate) -> str:
    """`0.62 [0.41, 0.78]`."""
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"


def cost_words(proxy: Proxy, reference_cost: tuple[float, float]) -> str:
    """`14 CPU s a candidate, 25 % of the long schedule`; image steps where there are no seconds."""
    seconds, steps = reference_cost
    if proxy.cpu_seconds:
        share = f", {share_words(proxy.cpu_seconds / seconds)} of the long schedule" if seconds else ""
        return f"{seconds_words(proxy.cpu_seconds)} CPU s a candidate{share}"
    if proxy.image_steps:
        share = f", {share_words(proxy.image_steps / steps)} of the long schedule" if steps else ""
        return f"{proxy.image_steps:,.0f} image steps a candidate{share}"
    return "costs no training"


def seconds_words(seconds: float) -> str:
    """Three figures at most: `0.04`, `1.3`, `240`."""
    if seconds >= 9.95:
        return f"{seconds:,.0f}"
    return f"{seconds:.1f}" if seconds >= 0.95 else f"{seconds:.2g}"


def share_words(share: float) -> str:
    """`25 %`, `0.4 %`."""
    return f"{100 * share:.0f} %" if share >= 0.0095 else f"{100 * share:.2g} %"


def _against_baselines(chosen: Judged, threshold: float) -> tuple[str, ...]:
    beaten = [name for name, difference in chosen.over.items() if difference.low > 0]
    others = [name for name in chosen.over if name not in beaten]
    words = []
    if beaten:
        by = " and ".join(f"{name} by {estimate_words(chosen.over[name])}" for name in beaten)
        words.append(f"It beats {by} of tau.")
    if others:
        of = ", ".join(
            f"{name} (tau {estimate_words(chosen.baselines[name])}, difference {estimate_words(chosen.over[name])})"
            for name in others
        )
        words.append(f"It is not shown to beat {of}, which cost nothing.")
    if clearing := [name for name in BASELINES if name in chosen.baselines and chosen.baselines[name].low > threshold]:
        words.append(f"The threshold is also cleared by {' and '.join(clearing)} alone, without any training.")
    return tuple(words)


def _luck(chosen: Judged, compared: int) -> tuple[str, ...]:
    words = []
    if chosen.proxy.shares_trainings:
        own = "Its scores are from the very trainings that the reference is made of, and share their luck"
        if chosen.other_seeds is not None:
            against = f"against trainings with other seeds its tau is {chosen.other_seeds.tau:.2f}"
            words.append(f"{own}; {against} ({chosen.other_seeds.candidates} candidates).")
        else:
            words.append(f"{own}; a reference with further seeds would tell by how much.")
    if chosen.proxy.fitted:
        words.append("Its weight has to be fitted first, to candidates that were trained to the end.")
    if compared > 1:
        words.append(f"It was picked among {compared} proxies on the same candidates, which flatters it.")
    return tuple(words)


def _too_few(able: Sequence[Judged], clearing: Sequence[Judged]) -> tuple[str, ...]:
    if clearing or any(_enough(one) for one in able):
        return ()
    return (f"With fewer than {FEWEST} candidates no interval is believed: train more.",)


def _enough(one: Judged) -> bool:
    return one.agreement is not None and one.agreement.candidates >= FEWEST


def _clears(one: Judged, threshold: float) -> bool:
    return _enough(one) and _tau(one).low > threshold


def _tau(one: Judged) -> Estimate:
    assert one.agreement is not None
    return one.agreement.tau


def _cost(proxy: Proxy, by_steps: bool) -> tuple[float, float]:
    both = (proxy.cpu_seconds, proxy.image_steps)
    return (both[1], both[0]) if by_steps else both
