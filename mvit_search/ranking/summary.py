"""Everything a table of trainings says about proxies: figures for people, one document for programs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mvit_search.ranking.combination import COMBINATION, combined_proxies
from mvit_search.ranking.extrapolation import EXTRAPOLATION, extrapolated_proxies
from mvit_search.ranking.proxies import (
    LATENCY,
    SIZE,
    TRAINED,
    ZERO,
    Measured,
    Proxy,
    covering,
    measured,
    seeds_of,
)  # fmt: skip
from mvit_search.ranking.recommendation import (
    BASELINES,
    THRESHOLD,
    Judged,
    OtherSeeds,
    Recommendation,
    recommend,
    require_threshold,
)
from mvit_search.ranking.statistics import (
    DRAWS,
    Agreement,
    Estimate,
    Floats,
    Repeatability,
    Spread,
    advantage,
    agreement,
    kendall,
    repeatability,
    spread,
)  # fmt: skip
from mvit_search.records.table import TableRow

FAMILIES = (SIZE, LATENCY, ZERO, *TRAINED, EXTRAPOLATION, COMBINATION)
"""The order in which proxies are listed."""
_FEWEST = 3


@dataclass(frozen=True)
class Findings:
    """What was found; `judged` by family and then cost."""

    measured: Measured
    judged: tuple[Judged, ...]
    spread: Spread
    repeatability: Repeatability | None
    recommendation: Recommendation


def analyse(
    rows: Iterable[TableRow], *, threshold: float = THRESHOLD, reference: str | None = None,
    latency_source: str | None = None, draws: int = DRAWS, seed: int = 0,
) -> Findings:  # fmt: skip
    """Judge every proxy that the rows hold, and those that can be made of them.

    Args:
        threshold: tau that a recommended proxy's lower bound must be above, in (0, 1).
        reference: label of the fidelity that proxies are held to; the longest schedule if None.
        latency_source: whether latencies were predicted or measured, and of what, in words.

    Raises:
        InputError: as `measured`, or a threshold that is none.
    """
    require_threshold(threshold)
    said = {} if latency_source is None else {"latency_source": latency_source}
    found = measured(rows, reference, **said)
    proxies = (*found.proxies, *extrapolated_proxies(found), *combined_proxies(found, seed=seed))
    judge = _Judge(found, draws, seed)
    judged = sorted(map(judge.judged, proxies), key=_place)
    finals = seeds_of(found.top1, found.means)
    return Findings(
        found, tuple(judged), spread(finals), repeatability(finals, draws=draws, seed=seed),
        recommend(judged, threshold, found.cost),
    )  # fmt: skip


class _Judge:
    """Keeps what many proxies are compared with: the baselines on each set of candidates."""

    def __init__(self, found: Measured, draws: int, seed: int) -> None:
        self._found, self._draws, self._seed = found, draws, seed
        self._baselines = [proxy for proxy in found.proxies if proxy.name in BASELINES and proxy.family == SIZE]
        self._known: dict[tuple[str, ...], dict[str, Agreement]] = {}

    def judged(self, proxy: Proxy) -> Judged:
        digests, seeds = covering(proxy, self._found.means)
        if len(digests) < _FEWEST:
            return Judged(proxy, None, {}, {}, None, None)
        own = self._agreement(proxy, digests, seeds)
        if own is None:
            return Judged(proxy, None, {}, {}, None, _spread(proxy, digests))
        theirs = {name: found for name, found in self._sizes(tuple(digests)).items() if name != proxy.name}
        over = {name: advantage(own, found) for name, found in theirs.items()}
        taus = {name: found.tau for name, found in theirs.items()}
        return Judged(proxy, own, over, taus, _other_seeds(proxy, self._found), _spread(proxy, digests))

    def _sizes(self, digests: tuple[str, ...]) -> dict[str, Agreement]:
        if digests not in self._known:
            found = {proxy.name: self._agreement(proxy, digests, [0]) for proxy in self._baselines}
            self._known[digests] = {name: one for name, one in found.items() if one is not None}
        return self._known[digests]

    def _agreement(self, proxy: Proxy, digests: Sequence[str], seeds: Sequence[int]) -> Agreement | None:
        scores = np.array([[proxy.scores[number][digest] for digest in digests] for number in seeds])
        return agreement(scores, _values(self._found.means, digests), draws=self._draws, seed=self._seed)


def _other_seeds(proxy: Proxy, found: Measured) -> OtherSeeds | None:
    """Averaged over the proxy's seeds. A fitted proxy saw all seeds of the reference, so there is none of it."""
    if proxy.fitted or proxy.family not in (*TRAINED, EXTRAPOLATION):
        return None
    taus, counts = [], []
    for number, scores in proxy.scores.items():
        rest: dict[str, list[float]] = {}
        for other, finals in found.top1.items():
            for digest in finals.keys() & scores.keys() if other != number else ():
                rest.setdefault(digest, []).append(finals[digest])
        digests = sorted(rest)
        if len(digests) >= 5:
            tau = kendall(_values(scores, digests), np.array([sum(rest[d]) / len(rest[d]) for d in digests]))
            if tau == tau:  # NaN where all are tied
                taus.append(tau)
                counts.append(len(digests))
    return OtherSeeds(float(np.mean(taus)), max(counts)) if taus else None


def _spread(proxy: Proxy, digests: Sequence[str]) -> Spread | None:
    if proxy.family not in TRAINED or proxy.name.endswith("(loss)"):
        return None
    return spread(seeds_of(proxy.scores, digests))


def _values(by_digest: Any, digests: Sequence[str]) -> Floats:
    return np.array([by_digest[digest] for digest in digests], dtype=np.float64)


def _place(one: Judged) -> tuple[int, float, float, str]:
    return FAMILIES.index(one.proxy.family), one.proxy.cpu_seconds, one.proxy.image_steps, one.proxy.name


def document(found: Findings) -> dict[str, Any]:
    """The findings as JSON: numbers, no NaN; `recommendation.sentence` is the one to read."""
    data = found.measured
    seconds, steps = data.cost
    return {
        "reference": {
            "fidelity": data.reference.fidelity, "recipe": data.reference.recipe, "data": data.reference.data,
            "epochs": data.reference.epochs, "candidates": len(data.means), "seeds": sorted(data.top1),
            "cpu_seconds": seconds, "image_steps": steps, "spread": _spread_document(found.spread),
            "repeatability": _repeatability_document(found.repeatability),
        },
        "failed_trainings": data.failed,
        "proxies": [_judged_document(one) for one in found.judged],
        "recommendation": _recommendation_document(found.recommendation),
    }  # fmt: skip


def _judged_document(one: Judged) -> dict[str, Any]:
    proxy, found = one.proxy, one.agreement
    entry: dict[str, Any] = {
        "name": proxy.name, "family": proxy.family, "source": proxy.source, "cpu_seconds": proxy.cpu_seconds,
        "image_steps": proxy.image_steps, "shares_trainings_with_reference": proxy.shares_trainings,
        "candidates": found.candidates if found else None, "seeds": found.seeds if found else None,
        "tau": _interval(found.tau if found else None), "rho": _interval(found.rho if found else None),
        "tau_over": {name: _interval(difference) for name, difference in one.over.items()},
        "tau_other_seeds": one.other_seeds._asdict() if one.other_seeds else None,
        "spread": _spread_document(one.spread),
    }  # fmt: skip
    if proxy.weights:
        low, middle, high = np.quantile(proxy.weights, [0.05, 0.5, 0.95])
        entry["partner_weight"] = {"median": float(middle), "p5": float(low), "p95": float(high)}
    return entry


def _recommendation_document(found: Recommendation) -> dict[str, Any]:
    chosen = found.chosen
    return {
        "threshold": found.threshold,
        "cleared": found.cleared,
        "proxy": chosen.proxy.name if chosen and found.cleared else None,
        "best": chosen.proxy.name if chosen else None,
        "tau": _interval(chosen.agreement.tau if chosen and chosen.agreement else None),
        "beats": found.beats,
        "sentence": found.sentences[0],
        "notes": list(found.sentences[1:]),
    }


def _repeatability_document(found: Repeatability | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "seed_to_seed_tau": _interval(found.repeat), "ceiling_tau": found.ceiling, "reliability": found.reliability,
        "candidates": found.candidates,
    }  # fmt: skip


def _spread_document(found: Spread | None) -> dict[str, float | None] | None:
    return None if found is None else found._asdict()


def _interval(found: Estimate | None) -> dict[str, float] | None:
    return None if found is None else found._asdict()
