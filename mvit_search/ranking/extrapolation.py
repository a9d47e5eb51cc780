"""Learning curves continued from their first rungs to the end of the schedule.

Two ways. The power law acc(t) = a - b t^-c is the shape that learning curves tend to have (Domhan et al. 2015,
"pow3"); the straight line continues the last slope in log t. Both look at the rungs of the candidates
alone, never at where a training ended.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import log

import numpy as np

from mvit_search.ranking.proxies import BySeed, Measured, Proxy
from mvit_search.ranking.statistics import Floats

EXTRAPOLATION = "extrapolation"
EXPONENTS: tuple[float, ...] = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0)


@dataclass(frozen=True)
class Curves:
    """Accuracies (candidates, rungs) at `epochs`, which rise."""

    epochs: tuple[int, ...]
    accuracies: Floats


def power_law(curves: Curves, end: int) -> Floats:
    """(candidates,): accuracy at epoch `end` by acc = a - b t^-c; at least three rungs.

    Three rungs of one noisy curve do not tell three numbers, so c is one for all candidates (the least sum of squared
    residuals), and a and b of each come from the median of the slopes between its rungs (Theil 1950; Sen 1968), which
    one bad rung does not move far. A curve that falls is taken as flat.
    """
    exponent = shared_exponent(curves)
    times = np.array(curves.epochs, dtype=np.float64) ** -exponent
    pairs = list(combinations(range(len(times)), 2))
    slopes = np.stack([(curves.accuracies[:, j] - curves.accuracies[:, i]) / (times[j] - times[i]) for i, j in pairs])
    slope = np.minimum(np.median(slopes, axis=0), 0.0)  # accuracy falls as t^-c rises
    level = np.median(curves.accuracies - slope[:, None] * times, axis=1)
    return np.asarray(level + slope * end**-exponent, dtype=np.float64)


def shared_exponent(curves: Curves) -> float:
    """The c of `EXPONENTS` under which all curves together are straightest in t^-c."""
    return min(EXPONENTS, key=lambda exponent: _residual(curves, exponent))


def last_slope(curves: Curves, end: int) -> Floats:
    """(candidates,): the line through the last two rungs, in log t, continued to epoch `end`."""
    before, last = curves.epochs[-2:]
    slope = (curves.accuracies[:, -1] - curves.accuracies[:, -2]) / (log(last) - log(before))
    return np.asarray(curves.accuracies[:, -1] + slope * (log(end) - log(last)), dtype=np.float64)


def extrapolated_proxies(found: Measured) -> list[Proxy]:
    """The reference's curves continued from their first two, three, ... rungs, at the cost of the last one used."""
    end = found.reference.epochs
    epochs = [epoch for epoch in sorted(found.rungs) if epoch < end]
    proxies = []
    for count in range(2, len(epochs) + 1):
        used = tuple(epochs[:count])
        ways = [("last slope", last_slope)] + ([("power law", power_law)] if count > 2 else [])
        for words, continued in ways:
            scores = {}
            for seed in found.top1:
                if curves := _curves(found.rungs, used, seed):
                    digests, known = curves
                    scores[seed] = dict(zip(digests, map(float, continued(known, end)), strict=True))
            if scores:
                proxies.append(_proxy(found, words, used, scores))
    return proxies


def _proxy(found: Measured, words: str, used: Sequence[int], scores: BySeed) -> Proxy:
    name = f"{found.reference.fidelity}, epoch {used[-1]} continued ({words})"
    listed = ", ".join(map(str, used))
    source = f"top-1 at epochs {listed} continued to {found.reference.epochs} by {words}"
    seconds, steps = found.rung_costs[used[-1]]
    return Proxy(name, EXTRAPOLATION, scores, seconds, steps, source, shares_trainings=True)


def _curves(rungs: Mapping[int, BySeed], used: Sequence[int], seed: int) -> tuple[list[str], Curves] | None:
    """The candidates that have every rung with this seed, and their curves."""
    columns = [rungs[epoch].get(seed, {}) for epoch in used]
    digests = [digest for digest in columns[0] if all(digest in column for column in columns)]
    if not digests:
        return None
    values = np.array([[column[digest] for column in columns] for digest in digests])
    return digests, Curves(tuple(used), values)


def _residual(curves: Curves, exponent: float) -> float:
    times = np.array(curves.epochs, dtype=np.float64) ** -exponent
    basis = np.stack([np.ones_like(times), times], axis=1)
    _, squares, *_ = np.linalg.lstsq(basis, curves.accuracies.T, rcond=None)
    return float(np.sum(squares))
