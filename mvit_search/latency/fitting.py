"""The fit of a predicted target: robust non-negative least squares on relative errors, with papers' own factors.

Over coefficients c >= 0 and a factor exp(e) for every paper but the reference papers, it minimises

      sum over rows      of  weight * cauchy(log(latency / exp(e) / predicted) / tail)
    + sum over features  of  ridge * ((c - prior) / scale)^2
    + sum over papers    of  (e / spread)^2

by iteratively reweighted least squares. Few rows name few coefficients: the ridge holds what the rows cannot tell
near values that the device's data sheet suggests. The Cauchy loss leaves rows that nothing explains, such as networks
that fell off the Neural Engine, with next to no weight; a MobileViT's row keeps at least a third of its weight.
"""

import math
from collections.abc import Hashable, Iterable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mvit_search.latency.features import FEATURE_NAMES
from mvit_search.latency.target_file import Errors, FitSettings, LeftOut, Row

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_ROUNDS = 25
_LEAST_FAMILY_WEIGHT = 1 / 3
_ROW_SPREAD = 0.15  # of rows around the fit, as a natural log: how much a paper's rows say of its factor
_CONVERGED = 1e-4


class Prior(NamedTuple):
    """Where a coefficient is drawn to, and how far one step away is; both in the feature's unit."""

    value: float
    scale: float


class Fit(NamedTuple):
    """Coefficients in the order of `FEATURE_NAMES`, and each paper's factor as a natural log."""

    coefficients: Array
    effects: dict[str, float]


class Problem:
    """Rows as numbers, and the fits over parts of them. R rows, F features."""

    def __init__(self, rows: Sequence[Row], priors: dict[str, Prior], settings: FitSettings) -> None:
        self.rows = tuple(rows)
        self.settings = settings
        self.amounts: Array = np.array([row.amounts for row in rows])  # (R, F)
        self.measured: Array = np.array([row.latency_ms for row in rows])
        self.in_family: Mask = np.array([row.in_family for row in rows])
        self.prior: Array = np.array([priors[name].value for name in FEATURE_NAMES])
        self.scale: Array = np.array([priors[name].scale for name in FEATURE_NAMES])
        self.networks = [row.network for row in rows]
        self.papers = [row.paper for row in rows]
        self.own: Mask = np.array([settings.is_own(paper) for paper in self.papers])
        self.everything: Mask = np.ones(len(rows), dtype=bool)

    @cached_property
    def weights(self) -> Array:
        """Weights of the rows; those of a network that was measured n times share what sqrt(n) rows would weigh."""
        counts = {network: self.networks.count(network) for network in set(self.networks)}
        shared = np.array([1 / math.sqrt(counts[network]) for network in self.networks])
        own = np.array([row.weight for row in self.rows])
        return np.asarray(own * shared * np.where(self.in_family, self.settings.family_weight, 1.0))

    def fit(self, seen: Mask) -> Fit:
        """Coefficients and factors from the rows that `seen` marks."""
        amounts, measured, weights = self.amounts[seen], self.measured[seen], self.weights[seen]
        family = self.in_family[seen]
        papers = [paper for paper, own in zip(self.papers, seen, strict=True) if own]
        effects = dict.fromkeys(papers, 0.0)
        trust, before = np.ones(len(measured)), np.zeros(len(FEATURE_NAMES))
        for _ in range(_ROUNDS):
            factors = np.exp([effects[paper] for paper in papers])
            solution = self._solve(amounts, measured / factors, weights * trust)
            logs = np.log(measured / (amounts @ solution))
            effects = self._effects(papers, logs, trust)
            off = (logs - np.array([effects[paper] for paper in papers])) / self.settings.tail
            trust = 1 / (1 + off**2)
            trust[family] = np.maximum(trust[family], _LEAST_FAMILY_WEIGHT)
            if np.allclose(solution, before, rtol=_CONVERGED, atol=1e-9):
                break
            before = solution
        return Fit(solution, effects)

    def leave_out(self, keys: Iterable[Hashable]) -> Array:
        """Each row's prediction (ms), at the reference papers' protocol, by the fit that saw no row of the same key."""
        ms = np.empty(len(self.measured))
        for hidden in groups(list(keys)):
            ms[hidden] = self.amounts[hidden] @ self.fit(~hidden).coefficients
        return ms

    def errors(self, left_out: dict[str, Array], members: Mask) -> Errors:
        """Errors of left-out predictions (by `network`, `model`, `series`, `paper`) on the rows of `members`."""
        from scipy.stats import kendalltau

        of_networks = [rows & members for rows in groups(self.networks) if (rows & members).any()]
        parts = {key: self._left_out(ms, of_networks) for key, ms in left_out.items()}
        ranked = [(left_out["network"][rows].mean(), self.measured[rows].mean()) for rows in of_networks]
        tau = kendalltau(*zip(*ranked, strict=True)).statistic if len(ranked) > 1 else 0.0
        return Errors(**parts, kendall_tau=round(0.0 if math.isnan(tau) else float(tau), 3))

    def baseline(self, features: Sequence[Array], members: Mask) -> Errors:
        """Errors of a line through logs of `features`, fitted as robustly and left out in the same ways.

        Fitted to all rows or to `members` alone, whichever is less wrong on `members`.
        """
        design = np.column_stack([np.ones(len(self.measured)), *(np.log(feature) for feature in features)])
        candidates = [
            self.errors({name: self._lines(design, fitted, keys) for name, keys in self.keys.items()}, members)
            for fitted in (self.everything, members)
        ]
        return min(candidates, key=lambda errors: errors.network.mape_percent)

    def _lines(self, design: Array, fitted: Mask, keys: Sequence[Hashable]) -> Array:
        """Each row's latency (ms) on a line through those of the `fitted` rows that have another key."""
        ms = np.full(len(self.measured), np.nan)
        for hidden in groups(keys):
            line = self._line(design, fitted & ~hidden)
            # Where next to nothing is left to fit to, a line may point anywhere.
            ms[hidden] = np.exp(np.clip(design[hidden] @ line, -7, 7))
        return ms

    def _line(self, design: Array, seen: Mask) -> Array:
        goal, trust = np.log(self.measured[seen]), np.ones(int(seen.sum()))
        line = np.zeros(design.shape[1])
        for _ in range(_ROUNDS):
            root = np.sqrt(self.weights[seen] * trust)
            line = np.linalg.lstsq(root[:, None] * design[seen], root * goal, rcond=None)[0]
            trust = 1 / (1 + ((goal - design[seen] @ line) / self.settings.tail) ** 2)
        return line

    @cached_property
    def keys(self) -> dict[str, list[str]]:
        """What is left out together, by kind."""
        models, series = [row.model for row in self.rows], [row.series for row in self.rows]
        return {"network": self.networks, "model": models, "series": series, "paper": self.papers}

    def _solve(self, amounts: Array, measured: Array, weights: Array) -> Array:
        from scipy.optimize import nnls

        root, pull = np.sqrt(weights), math.sqrt(self.settings.ridge)
        # In units of the scale, so that the ridge is the identity.
        design = np.vstack([(root / measured)[:, None] * amounts * self.scale, pull * np.eye(len(self.scale))])
        solution, _ = nnls(design, np.concatenate([root, pull * self.prior / self.scale]))
        return np.asarray(solution * self.scale, dtype=np.float64)

    def _effects(self, papers: Sequence[str], logs: Array, trust: Array) -> dict[str, float]:
        """Each paper's mean error, drawn to zero as far as few rows say little."""
        resistance = (_ROW_SPREAD / self.settings.paper_spread) ** 2
        effects = {}
        for paper in dict.fromkeys(papers):
            own = np.array([other == paper for other in papers])
            known = paper not in self.settings.reference_papers
            effects[paper] = float(trust[own] @ logs[own] / (trust[own].sum() + resistance)) if known else 0.0
        return effects

    def _left_out(self, ms: Array, of_networks: Sequence[Mask]) -> LeftOut:
        """Mean and median over networks, so that a network measured three times counts once."""
        errors = np.abs(ms / self.measured - 1)
        means = [100 * float(errors[rows].mean()) for rows in of_networks]
        return LeftOut(mape_percent=round(float(np.mean(means)), 2), median_percent=round(float(np.median(means)), 2))


def groups(keys: Sequence[Hashable]) -> list[Mask]:
    """One mask a distinct key, in the order of first appearance."""
    return [np.array([other == key for other in keys]) for key in dict.fromkeys(keys)]
