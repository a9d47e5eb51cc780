"""How well scores rank: Kendall's tau-b and Spearman's rho with bootstrap intervals, spreads, and what a noisy
reference allows at most.

Arrays of scores are (seeds, candidates): one row is what one training a candidate gave, all with one seed. What
several rows are worth is the mean of what each is worth, never the worth of their mean: a search pays for one.
"""

from collections.abc import Sequence
from math import asin, pi, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]

DRAWS = 2000
LEVEL = 0.95
FEWEST_REPEATED = 5
"""Candidates with several seeds below which their noise is not known well enough to speak of a ceiling."""


class Estimate(NamedTuple):
    """A value and its 95 % percentile interval."""

    value: float
    low: float
    high: float


class Agreement(NamedTuple):
    """How well scores order `candidates` as the reference does; `seeds` rows of scores were averaged.

    `drawn` is the tau of each resample, for paired comparison with others of the same candidates.
    """

    tau: Estimate
    rho: Estimate
    candidates: int
    seeds: int
    drawn: Floats


class Spread(NamedTuple):
    """Of values by candidate and seed.

    Attributes:
        between: standard deviation of the candidates' means.
        within: standard deviation between seeds of one candidate, pooled by degrees of freedom; None with one seed.
        corrected: `between` without what the seeds' noise adds to it, at least 0; None with one seed.
        ratio: `between` over `within`, the signal to noise that `benchmarks/proxy_spread.py` prints.
    """

    between: float
    within: float | None
    corrected: float | None
    ratio: float | None


class Repeatability(NamedTuple):
    """What the reference's own noise allows.

    Attributes:
        repeat: mean tau of one training with another of the same candidates, another seed: what training to the end
            once more is worth.
        ceiling: tau that a score without any noise would be expected to reach against the mean over seeds.
        reliability: share of the variance of the candidates' means that is not noise, 0..1.
        candidates: how many have two seeds or more.
    """

    repeat: Estimate | None
    ceiling: float
    reliability: float
    candidates: int


def agreement(scores: Floats, reference: Floats, *, draws: int = DRAWS, seed: int = 0) -> Agreement | None:
    """Rank correlations of (seeds, n) scores with (n,) reference values; intervals by resampling candidates.

    None where they are not defined: a row of scores, or the reference, is the same for all.
    """
    if any(_constant(row) for row in (*scores, reference)):
        return None
    weights = resamples(len(reference), draws, seed)
    taus = np.mean([resampled_taus(row, reference, weights) for row in scores], axis=0)
    rhos = np.mean([resampled_rhos(row, reference, weights) for row in scores], axis=0)
    tau = float(np.mean([kendall(row, reference) for row in scores]))
    rho = float(np.mean([spearman(row, reference) for row in scores]))
    return Agreement(_estimate(tau, taus), _estimate(rho, rhos), len(reference), len(scores), taus)


def advantage(ours: Agreement, theirs: Agreement) -> Estimate:
    """By how much our tau is above theirs, with the interval of the difference.

    Both are of the same candidates in the same order, draws and seed, so that what makes both look good in a
    resample cancels.
    """
    return _estimate(ours.tau.value - theirs.tau.value, ours.drawn - theirs.drawn)


def kendall(first: Floats, second: Floats) -> float:
    """Kendall's tau-b (Kendall 1945): ties on either side are taken out of the denominator."""
    return float(stats.kendalltau(first, second).statistic)


def spearman(first: Floats, second: Floats) -> float:
    """Spearman's rho: the correlation of ranks, ties at their mean rank."""
    return float(stats.spearmanr(first, second).statistic)


def resamples(candidates: int, draws: int, seed: int) -> Floats:
    """(draws, candidates): how often each candidate is in each resample, drawn with replacement."""
    counts = np.random.default_rng(seed).multinomial(candidates, np.full(candidates, 1 / candidates), size=draws)
    return counts.astype(np.float64)


def resampled_taus(first: Floats, second: Floats, weights: Floats) -> Floats:
    """(draws,) tau-b of each resample, NaN where a side of it is all ties.

    A pair counts as often as both its members are in; a candidate with its own copies is a tie on both sides,
    which tau-b leaves out.
    """
    a, b = np.sign(first[:, None] - first), np.sign(second[:, None] - second)
    concordant, apart_a, apart_b = (_pairs(weights, matrix) for matrix in (a * b, np.abs(a), np.abs(b)))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(concordant / np.sqrt(apart_a * apart_b))


def resampled_rhos(first: Floats, second: Floats, weights: Floats) -> Floats:
    """(draws,) Spearman's rho of each resample, NaN where a side of it is all ties."""
    total = weights.sum(axis=1, keepdims=True)
    ranks = []
    for values in (first, second):
        below = (values[:, None] < values) + 0.5 * (values[:, None] == values)
        rank = weights @ below
        ranks.append(rank - (weights * rank).sum(axis=1, keepdims=True) / total)
    a, b = ranks
    products = [(weights * x * y).sum(axis=1) for x, y in ((a, b), (a, a), (b, b))]
    tied = (products[1] < 1e-9) | (products[2] < 1e-9)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(tied, np.nan, products[0] / np.sqrt(products[1] * products[2]))


def spread(values: Sequence[Sequence[float]]) -> Spread:
    """Of at least two candidates' values, one inner sequence a candidate with one value a seed."""
    rows = [np.asarray(row, dtype=np.float64) for row in values]
    between = float(np.std([row.mean() for row in rows], ddof=1))
    within = _noise(rows)
    if within is None:
        return Spread(between, None, None, None)
    added = within**2 * float(np.mean([1 / len(row) for row in rows]))
    corrected = sqrt(max(0.0, between**2 - added))
    return Spread(between, within, corrected, between / within if within else None)


def repeatability(values: Sequence[Sequence[float]], *, draws: int = DRAWS, seed: int = 0) -> Repeatability | None:
    """What the noise between seeds leaves of any ranking; None where fewer than 5 candidates have two seeds, or
    nothing varies.

    The ceiling takes accuracies and scores as jointly normal: then tau = 2/pi asin(rho) (Greiner's relation), and a
    score without noise correlates with the noisy mean by the root of the reliability (Spearman 1904).
    """
    repeated = [row for row in values if len(row) > 1]
    if len(repeated) < FEWEST_REPEATED:
        return None
    found = spread(values)
    if found.corrected is None or not found.between:
        return None
    reliability = (found.corrected / found.between) ** 2
    columns = np.array([row[: min(map(len, repeated))] for row in repeated]).T
    return Repeatability(
        _mean_pair_tau(columns, draws, seed), 2 / pi * asin(sqrt(reliability)), reliability, len(repeated)
    )


def _mean_pair_tau(columns: Floats, draws: int, seed: int) -> Estimate | None:
    """Mean tau over all pairs of (seeds, n) rows."""
    pairs = [(i, j) for i in range(len(columns)) for j in range(i)]
    if any(_constant(row) for row in columns):
        return None
    weights = resamples(columns.shape[1], draws, seed)
    taus = np.mean([resampled_taus(columns[i], columns[j], weights) for i, j in pairs], axis=0)
    return _estimate(float(np.mean([kendall(columns[i], columns[j]) for i, j in pairs])), taus)


def _noise(rows: Sequence[Floats]) -> float | None:
    repeated = [row for row in rows if len(row) > 1]
    if not repeated:
        return None
    freedom = sum(len(row) - 1 for row in repeated)
    return sqrt(sum(float(np.var(row, ddof=1)) * (len(row) - 1) for row in repeated) / freedom)


def _pairs(weights: Floats, matrix: Floats) -> Floats:
    """(draws,): the sum over pairs i, j of weight i x weight j x matrix[i, j]."""
    return np.asarray(np.einsum("di,di->d", weights @ matrix, weights))


def _estimate(value: float, drawn: Floats) -> Estimate:
    """Resamples without a ranking are left out; there is always one with, as the whole has one."""
    usable = drawn[~np.isnan(drawn)]
    low, high = np.quantile(usable, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if len(usable) else (value, value)
    return Estimate(value, float(low), float(high))


def _constant(values: Floats) -> bool:
    return bool(np.all(values == values[0]))
