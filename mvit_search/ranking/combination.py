"""A training's score and a score that costs little, added with a fitted weight; judged on candidates left out.

Every candidate is scored by weights that were fitted to others: repeated K-fold cross-validation. The accuracies of
the held-out candidates take part in nothing, neither in scaling, nor in the choice of the partner, nor in the weight.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mvit_search.ranking.proxies import SIZE, TRAINED, ZERO, Measured, Proxy
from mvit_search.ranking.statistics import Floats

Masks = NDArray[np.bool_]

COMBINATION = "combination"
FOLDS, REPEATS = 5, 20
RIDGE = 1.0
"""Added to the diagonal of the normal equations: one candidate's worth of belief that a weight is zero."""
FEWEST = 10


class Combined(NamedTuple):
    """Out-of-fold scores, and what the fits were.

    Attributes:
        scores: (candidates,), of the mean held-out prediction over repeats.
        shares: (fits,): the partner's share of the weight, -1..1.
        partners: (fits,): index of the partner that a fit chose.
    """

    scores: Floats
    shares: Floats
    partners: NDArray[np.int64]


def combined(training: Floats, partners: Floats, reference: Floats, *, seed: int = 0) -> Combined:
    """Fit `reference` (n,) to ranks of `training` (n,) and of one of `partners` (p, n), ridge, out of fold.

    Ranks look at no accuracy, so they are taken over all candidates: a search too knows the cheap scores of all.
    In each fit the partner is the one with the least squared error on the fit's own candidates. Predictions are
    without the intercept: it is lower where a good candidate is left out, which would rank noise backwards.
    """
    kept = _training_masks(len(reference), seed)  # (f, n)
    fits = [_weights(np.stack([_ranks(training), _ranks(partner)]), reference, kept) for partner in partners]
    errors = np.stack([error for _, error in fits])  # (p, f)
    choice = np.argmin(errors, axis=0)
    weights = np.stack([weight for weight, _ in fits])[choice, np.arange(len(kept))]  # (f, 2)
    total = np.abs(weights).sum(axis=1, keepdims=True)
    weights = weights / np.where(total > 0, total, 1)  # so that fits of different size are compared on one scale
    ranks = np.stack([_ranks(partner) for partner in partners])[choice]  # (f, n)
    predicted = weights[:, :1] * _ranks(training) + weights[:, 1:] * ranks
    out = ~kept
    scores = (predicted * out).sum(axis=0) / out.sum(axis=0)
    return Combined(scores, weights[:, 1], choice)


def combined_proxies(found: Measured, *, seed: int = 0) -> list[Proxy]:
    """Every training's top-1 with log params, and with the partner that fits best among sizes and zero-cost scores.

    None where fewer than 10 candidates have all of it.
    """
    partners = [proxy for proxy in found.proxies if proxy.family in (SIZE, ZERO)]
    params = [proxy for proxy in partners if proxy.name == "params"]
    proxies = []
    for proxy in found.proxies:
        if proxy.family in TRAINED and not proxy.name.endswith("(loss)"):
            proxies += _combine(found, proxy, params, "params", seed)
            if len(partners) > len(params):
                proxies += _combine(found, proxy, partners, "the best partner", seed)
    return proxies


def _combine(found: Measured, proxy: Proxy, partners: Sequence[Proxy], words: str, seed: int) -> list[Proxy]:
    scores: dict[int, Mapping[str, float]] = {}
    shares: list[float] = []
    chosen: list[int] = []
    for number, values in proxy.scores.items():
        columns = [_first(partner) for partner in partners]
        digests = [d for d in values if d in found.means and all(d in column for column in columns)]
        if len(digests) < FEWEST:
            continue
        fit = combined(
            np.array([values[d] for d in digests]), np.array([[column[d] for d in digests] for column in columns]),
            np.array([found.means[d] for d in digests]), seed=seed,
        )  # fmt: skip
        scores[number] = dict(zip(digests, map(float, fit.scores), strict=True))
        shares += map(float, fit.shares)
        chosen += map(int, fit.partners)
    if not scores:
        return []
    counts = np.bincount(chosen, minlength=len(partners))
    partner = partners[int(np.argmax(counts))]
    told = f"{partner.name} in {100 * counts.max() / len(chosen):.0f} % of fits, " if len(partners) > 1 else ""
    source = f"{proxy.name} with {words} ({told}weight fitted to other candidates, {REPEATS} x {FOLDS}-fold)"
    return [
        Proxy(
            f"{proxy.name} + {words}", COMBINATION, scores, proxy.cpu_seconds + partner.cpu_seconds,
            proxy.image_steps + partner.image_steps, source, fitted=True, weights=tuple(shares),
            shares_trainings=proxy.shares_trainings,
        )
    ]  # fmt: skip


def _first(partner: Proxy) -> Mapping[str, float]:
    """A partner's scores with the seed that has most of them."""
    return max((partner.scores[seed] for seed in sorted(partner.scores)), key=len)


def _weights(predictors: Floats, reference: Floats, kept: Masks) -> tuple[Floats, Floats]:
    """((f, 2) weights, (f,) squared errors) of the ridge fit of each row of `kept` (f, n)."""
    count = kept.sum(axis=1)
    x = predictors[None] - (kept @ predictors.T / count[:, None])[:, :, None]  # (f, 2, n)
    y = reference[None] - (kept @ reference / count)[:, None]  # (f, n)
    x, y = x * kept[:, None], y * kept
    deviation = np.sqrt((y**2).sum(axis=1, keepdims=True) / count[:, None])
    y = y / np.where(deviation > 0, deviation, 1)
    normal = np.einsum("fan,fbn->fab", x, x) + RIDGE * np.eye(2)
    weights = np.linalg.solve(normal, np.einsum("fan,fn->fa", x, y)[..., None])[..., 0]
    errors = ((y - np.einsum("fa,fan->fn", weights, x)) ** 2).sum(axis=1)
    return weights, errors


def _ranks(values: Floats) -> Floats:
    """Ranks with unit variance and mean zero, ties at their mean rank; zeros where all are tied."""
    from scipy.stats import rankdata

    ranks = rankdata(values) - (len(values) + 1) / 2
    deviation = float(ranks.std())
    return np.asarray(ranks / deviation if deviation else ranks, dtype=np.float64)


def _training_masks(count: int, seed: int) -> Masks:
    """(repeats x folds, n) booleans: who is fitted to; each repeat leaves every candidate out once."""
    rng = np.random.default_rng(seed)
    masks = np.ones((REPEATS, FOLDS, count), dtype=bool)
    for repeat in range(REPEATS):
        for fold, members in enumerate(np.array_split(rng.permutation(count), FOLDS)):
            masks[repeat, fold, members] = False
    return masks.reshape(-1, count)
