"""Which candidates to measure: a D-optimal design, chosen greedily.

A prediction is x^T c, with x the features of a network and c >= 0 the coefficients. The fit weighs relative errors,
so in units of the priors' scales s a measured network adds the row

    z = x s / (x^T c)         to the information    M = ridge I + sum over measured networks of z z^T

about the coefficients; c is the target's own, as the true one is what measuring is for. M^-1 is their covariance in
units of the relative noise of a row, and z^T M^-1 z the variance of the prediction of z likewise. The ridge says that
noise: a coefficient is believed to lie within its prior's scale, which is a row of weight `ridge`, so noise^2 = ridge.

The plan adds, one at a time, the candidate of the pool that raises log det M most. By the matrix determinant lemma

    log det (M + z z^T) = log det M + log(1 + z^T M^-1 z),

so that is the candidate whose prediction is least certain: D-optimal and maximum predictive variance choose alike, as
long as one is added at a time (Kiefer and Wolfowitz 1960 say it of whole designs). log det is submodular and rises, so
the greedy gain is at least 1 - 1/e of the best design's (Nemhauser et al. 1978). M^-1 and the variances of the pool
follow by Sherman and Morrison's formula: a step costs pool x features.

Published rows count for nothing here: the plan is to serve a phone that they were not measured on. A candidate is
chosen once, and of equal gains the first in the pool is taken.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mvit_search.errors import InputError
from mvit_search.latency.target_file import TargetFile

Array = NDArray[np.float64]


class Design(NamedTuple):
    """Which of a pool to measure, and what that tells.

    Attributes:
        chosen: places in the pool, the most informative first; the first n of them are the design of n.
        log_det: log det M of the design, less that of the ridge alone.
        error_before_percent: the standard deviation of the least certain prediction of the pool, in percent of it,
            before anything was measured: what the priors leave open.
        error_after_percent: the same once the chosen are measured.
    """

    chosen: tuple[int, ...]
    log_det: float
    error_before_percent: float
    error_after_percent: float


def d_optimal(pool: Sequence[Sequence[float]], file: TargetFile, count: int) -> Design:
    """The `count` networks of the pool (all, if it holds fewer) whose latencies tell most of the coefficients.

    `pool` is the networks' features, in the order of `FEATURE_NAMES`.

    Raises:
        InputError: fewer than one, or an empty pool.
    """
    if count < 1:
        raise InputError("--plan", count, "must be at least 1")
    if not pool:
        raise InputError("pool", 0, "holds no candidate to measure", "raise the budget")
    rows = information_rows(pool, file)
    ridge = file.settings.ridge
    covariance = np.eye(rows.shape[1]) / ridge
    variances = np.einsum("pf,fg,pg->p", rows, covariance, rows)
    free = np.ones(len(rows), dtype=bool)
    before = variances.max()
    chosen, log_det = [], 0.0
    for _ in range(min(count, len(rows))):
        place = int(np.argmax(np.where(free, variances, -1.0)))
        gain = 1 + variances[place]
        reach = covariance @ rows[place]
        variances = np.maximum(variances - (rows @ reach) ** 2 / gain, 0.0)
        covariance -= np.outer(reach, reach) / gain
        log_det += math.log(gain)
        free[place] = False
        chosen.append(place)
    return Design(tuple(chosen), log_det, _percent(before, ridge), _percent(variances.max(), ridge))


def information_rows(pool: Sequence[Sequence[float]], file: TargetFile) -> Array:
    """z of every network of the pool: (P, F), without a unit."""
    amounts = np.array(pool)
    scales = np.array([coefficient.prior_scale for coefficient in file.coefficients.values()])
    return np.asarray(amounts * scales / (amounts @ np.array(file.values))[:, None], dtype=np.float64)


def log_det(rows: Array, ridge: float) -> float:
    """log det M of measured networks' z (n, F), less that of the ridge alone."""
    return float(np.linalg.slogdet(np.eye(rows.shape[1]) + rows.T @ rows / ridge)[1])


def _percent(variance: float, ridge: float) -> float:
    return 100 * math.sqrt(ridge * variance)
