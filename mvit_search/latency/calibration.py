"""Fit a predicted target to published rows, and say honestly how wrong it is on what it did not see.

The fit minimises, over non-negative coefficients c,

      sum over rows      of  weight * (predicted / measured - 1)^2
    + sum over features  of  ridge * ((c - prior) / scale)^2

Few rows name few coefficients: the ridge holds what the rows cannot tell (every preset has the same number
of operators, say) near values that the device's data sheet suggests.
"""

import math
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mvit_search.architecture.ops import parts
from mvit_search.errors import InputError
from mvit_search.latency.features import COEFFICIENT_UNITS, FEATURE_NAMES, features
from mvit_search.latency.target_file import (
    Coefficient,
    ExcludedRow,
    FittedRow,
    Interval,
    LeftOutErrors,
    Row,
    TargetFile,
)

Array = NDArray[np.float64]
LEVEL = 0.8
BASELINE = "macs_only_log_log: log(ms) = a + b * log(MACs), least squares with the same weights"


class Prior(NamedTuple):
    """Where a coefficient is drawn to, and how far one step away is; both in the feature's unit."""

    value: float
    scale: float


class Description(NamedTuple):
    """What a target's file says besides numbers; the fields are those of `TargetFile`."""

    name: str
    device: str
    date: str
    regime: str
    protocol: str
    method: str
    limits: str


def describe(file: TargetFile) -> Description:
    """The words of an existing target, for a refit of it."""
    return Description(*(getattr(file, field) for field in Description._fields))


def priors_of(file: TargetFile) -> dict[str, Prior]:
    """The priors of an existing target, for a refit of it."""
    return {name: Prior(c.prior, c.prior_scale) for name, c in file.coefficients.items()}


def bare_rows(file: TargetFile) -> tuple[Row, ...]:
    """The rows of an existing target, without what its fit says of them."""
    return tuple(Row(**{field: getattr(row, field) for field in Row.model_fields}) for row in file.rows)


def calibrate(
    rows: Sequence[Row], excluded: Sequence[ExcludedRow], priors: dict[str, Prior], ridge: float,
    words: Description,
) -> TargetFile:  # fmt: skip
    """Fit, leave out, and write down: the whole content of a target's file.

    Raises:
        InputError: fewer than three networks or two models, or priors for other features.
    """
    problem = _Problem(tuple(rows), tuple(priors[name] for name in _checked(priors)), ridge)
    if len(problem.networks) < 3 or len(set(problem.models)) < 2:
        raise InputError("rows", None, "must measure three networks of two models at least", "add rows")
    values = _rounded(problem.fit(problem.everything))
    by_row, by_network = problem.leave_out(range(len(rows))), problem.leave_out(problem.digests)
    by_model = problem.leave_out(problem.models)
    fitted = tuple(
        FittedRow(
            **row.model_dump(),
            fitted_ms=_digits(problem.amounts[i] @ values),
            row_left_out_ms=_digits(by_row[i]),
            network_left_out_ms=_digits(by_network[i]),
            model_left_out_ms=_digits(by_model[i]),
            left_out_error_percent=round(100 * (by_network[i] / row.latency_ms - 1), 2),
        )
        for i, row in enumerate(rows)
    )
    coefficients = {
        name: Coefficient(
            value=float(value), unit=COEFFICIENT_UNITS[name],
            prior=priors[name].value, prior_scale=priors[name].scale,
        )
        for name, value in zip(FEATURE_NAMES, values, strict=True)
    }  # fmt: skip
    return TargetFile(
        format=1, unit="ms", ridge=ridge, coefficients=coefficients, **words._asdict(),
        interval=problem.interval(by_network),
        errors=problem.errors(by_row, by_network, by_model),
        baseline=BASELINE, baseline_errors=_baseline_errors(problem),
        num_rows=len(rows), num_networks=len(problem.networks), rows=fitted, excluded=tuple(excluded),
    )  # fmt: skip


class _Problem:
    """The rows as numbers, and the fits over parts of them. R rows, F features."""

    def __init__(self, rows: tuple[Row, ...], priors: tuple[Prior, ...], ridge: float) -> None:
        self.amounts: Array = np.array([features(parts(row.config)) for row in rows])  # (R, F)
        self.measured: Array = np.array([row.latency_ms for row in rows])
        self.weights: Array = np.array([row.weight for row in rows])
        self.prior: Array = np.array([prior.value for prior in priors])
        self.scale: Array = np.array([prior.scale for prior in priors])
        self.ridge = ridge
        self.digests = [row.config.digest() for row in rows]
        self.models = [row.preset for row in rows]
        self.everything = np.ones(len(rows), dtype=bool)

    @cached_property
    def networks(self) -> list[NDArray[np.bool_]]:
        """Which rows measured each network."""
        return _groups(self.digests)

    def fit(self, seen: NDArray[np.bool_]) -> Array:
        """Coefficients from the rows that `seen` marks: (F,)."""
        from scipy.optimize import nnls

        design, goal = self._relative(seen)
        drawn = math.sqrt(self.ridge) * np.eye(len(self.scale))
        # In units of the scale, so that the ridge is the identity.
        solution, _ = nnls(
            np.vstack([design * self.scale, drawn]),
            np.concatenate([goal, math.sqrt(self.ridge) * self.prior / self.scale]),
        )
        return np.asarray(solution * self.scale, dtype=np.float64)

    def leave_out(self, keys: Iterable[object]) -> Array:
        """Each row's prediction (ms) by the fit that saw no row of the same key."""
        ms = np.empty(len(self.measured))
        for hidden in _groups(list(keys)):
            ms[hidden] = self.amounts[hidden] @ self.fit(~hidden)
        return ms

    def interval(self, by_network: Array) -> Interval:
        """The 80 % interval that the networks' left-out errors support."""
        from scipy.stats import t

        logs = np.log(self.measured / by_network)
        sigma = math.sqrt(float(np.mean([self._mean(logs**2, rows) for rows in self.networks])))
        freedom = len(self.networks) - 1
        quantile = float(t.ppf((1 + LEVEL) / 2, freedom))
        return Interval(
            level=LEVEL,
            log_sigma=_digits(sigma),
            degrees_of_freedom=freedom,
            quantile=_digits(quantile),
            rows_covered=int(np.sum(np.abs(logs) <= quantile * sigma)),
        )

    def errors(self, by_row: Array, by_network: Array, by_model: Array) -> LeftOutErrors:
        """Mean errors of left-out predictions (ms)."""
        from scipy.stats import kendalltau

        ranked = [(by_network[rows].mean(), self._mean(self.measured, rows)) for rows in self.networks]
        return LeftOutErrors(
            leave_one_row_out_mape_percent=round(100 * float(np.mean(np.abs(by_row / self.measured - 1))), 2),
            leave_one_network_out_mape_percent=self._mape_percent(by_network),
            leave_one_model_out_mape_percent=self._mape_percent(by_model),
            kendall_tau=round(float(kendalltau(*zip(*ranked, strict=True)).statistic), 3),
        )

    def _mape_percent(self, ms: Array) -> float:
        """Mean over networks, so that a network measured three times counts once."""
        errors = np.abs(ms / self.measured - 1)
        return round(100 * float(np.mean([self._mean(errors, rows) for rows in self.networks])), 2)

    def _mean(self, values: Array, rows: NDArray[np.bool_]) -> float:
        return float(np.average(values[rows], weights=self.weights[rows]))

    def _relative(self, seen: NDArray[np.bool_]) -> tuple[Array, Array]:
        """Design and goal of least squares on relative errors: (seen rows, F) and (seen rows,)."""
        root = np.sqrt(self.weights[seen])
        return root[:, None] * self.amounts[seen] / self.measured[seen, None], root


def _baseline_errors(problem: _Problem) -> LeftOutErrors:
    """What MACs alone would have done, left out in the same three ways."""
    macs = np.log(problem.amounts[:, FEATURE_NAMES.index("gmacs")])
    predictions = []
    for keys in (range(len(macs)), problem.digests, problem.models):
        ms = np.empty(len(macs))
        for hidden in _groups(list(keys)):
            seen = ~hidden
            # polyfit squares its weights.
            line = np.polyfit(macs[seen], np.log(problem.measured[seen]), 1, w=np.sqrt(problem.weights[seen]))
            ms[hidden] = np.exp(np.polyval(line, macs[hidden]))
        predictions.append(ms)
    return problem.errors(*predictions)


def _groups(keys: list[Any]) -> list[NDArray[np.bool_]]:
    """One mask a distinct key, in the order of first appearance."""
    return [np.array([other == key for other in keys]) for key in dict.fromkeys(keys)]


def _checked(priors: dict[str, Prior]) -> tuple[str, ...]:
    if set(priors) != set(FEATURE_NAMES):
        raise InputError("priors", ", ".join(priors), f"must be {', '.join(FEATURE_NAMES)}")
    return FEATURE_NAMES


def _digits(value: float) -> float:
    """Six significant digits: what the file stores, and far more than the rows know."""
    return float(f"{value:.6g}")


def _rounded(values: Array) -> Array:
    return np.array([_digits(value) for value in values])
