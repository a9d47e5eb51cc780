"""Fit a predicted target to rows, and write down honestly how wrong it is on what it did not see."""

import math
from collections.abc import Sequence

import numpy as np

from mvit_search.errors import InputError
from mvit_search.latency.features import COEFFICIENT_UNITS, FEATURE_NAMES
from mvit_search.latency.fitting import Array, Mask, Prior, Problem, groups
from mvit_search.latency.target_file import (
    Coefficient,
    ExcludedRow,
    FitSettings,
    FittedRow,
    Group,
    Interval,
    PaperEffect,
    Row,
    TargetFile,
    Words,
)

LEVEL = 0.8
FALLBACK_RATIO = 2.0
"""A row that took so many times its left-out prediction is named a fallback off the Neural Engine."""

FALLBACK_WEIGHT = 0.5
"""How much a fallback counts in the interval: it may be the paper's conversion as well as the network."""

_FEWEST_NETWORKS = 4


def priors_of(file: TargetFile) -> dict[str, Prior]:
    """The priors of an existing target, for a refit of it."""
    return {name: Prior(c.prior, c.prior_scale) for name, c in file.coefficients.items()}


def calibrate(
    rows: Sequence[Row], excluded: Sequence[ExcludedRow], priors: dict[str, Prior], settings: FitSettings,
    words: Words, *, date: str, version: int = 1, based_on: str = "",
) -> TargetFile:  # fmt: skip
    """Fit, leave out, and write down: the whole content of a target's file.

    With own measurements among the rows, the family's errors and interval are those of these rows alone.

    Raises:
        InputError: fewer than four networks, or priors for other features.
    """
    if set(priors) != set(FEATURE_NAMES):
        raise InputError("priors", ", ".join(priors), f"must be {', '.join(FEATURE_NAMES)}")
    problem = Problem(rows, priors, settings)
    if len(set(problem.networks)) < _FEWEST_NETWORKS:
        raise InputError("rows", len(set(problem.networks)), "must measure four networks at least", "add rows")
    fit = problem.fit(problem.everything)
    values = [_digits(value) for value in fit.coefficients]
    left_out = {name: problem.leave_out(keys) for name, keys in problem.keys.items()}
    family = problem.in_family
    if problem.own.any():
        # What is predicted is the own measurements' protocol: their errors count for the family, and published rows
        # are judged with the factor that their paper was found to have.
        family = problem.own
        factors = np.exp([fit.effects[paper] for paper in problem.papers])
        left_out = {name: ms if name == "paper" else ms * factors for name, ms in left_out.items()}
    # An own network that left the Neural Engine is told by its placement, and a few rows extrapolate badly.
    fallback = (problem.measured > FALLBACK_RATIO * left_out["network"]) & ~problem.own
    return TargetFile(
        format=2, unit="ms", version=version, based_on=based_on, date=date, words=words, settings=settings,
        coefficients={
            name: Coefficient(
                value=value, unit=COEFFICIENT_UNITS[name], prior=priors[name].value, prior_scale=priors[name].scale
            )
            for name, value in zip(FEATURE_NAMES, values, strict=True)
        },
        papers=tuple(
            PaperEffect(paper=paper, percent=round(100 * math.expm1(effect), 2), rows=problem.papers.count(paper))
            for paper, effect in fit.effects.items()
        ),
        family=_group(problem, left_out, family, fallback) if family.any() else None,
        all=_group(problem, left_out, problem.everything, fallback),
        family_interval=_interval(problem, left_out["network"], family, fallback),
        interval=_interval(problem, left_out["network"], problem.everything, fallback) or _no_interval(),
        rows=tuple(_fitted(problem, index, np.array(values), left_out, fallback) for index in range(len(rows))),
        excluded=tuple(excluded),
    )  # fmt: skip


def refit(file: TargetFile, more: Sequence[Row] = (), *, date: str | None = None) -> TargetFile:
    """The target fitted again from its own rows, priors and settings, and `more` rows.

    With more rows it is the next version; without, the same one.
    """
    rows = [*(row.bare() for row in file.rows), *more]
    version, based_on = (file.version + 1, file.calibration) if more else (file.version, file.based_on)
    return calibrate(
        rows, file.excluded, priors_of(file), file.settings, file.words,
        date=date or file.date, version=version, based_on=based_on,
    )  # fmt: skip


def _group(problem: Problem, left_out: dict[str, Array], members: Mask, fallback: Mask) -> Group:
    gmacs = np.array([row.gmacs for row in problem.rows])
    mweights = np.array([row.mweights for row in problem.rows])
    own = [row for row, member in zip(problem.rows, members, strict=True) if member]
    return Group(
        rows=len(own),
        networks=len({row.network for row in own}),
        papers=len({row.paper for row in own}),
        fallbacks=int((fallback & members).sum()),
        errors=problem.errors(left_out, members),
        regular=problem.errors(left_out, members & ~fallback),
        macs_only=problem.baseline([gmacs], members),
        macs_and_weights=problem.baseline([gmacs, mweights], members),
    )


def _fitted(problem: Problem, index: int, values: Array, left_out: dict[str, Array], fallback: Mask) -> FittedRow:
    row = problem.rows[index]
    network_ms = float(left_out["network"][index])
    return FittedRow(
        **{field: getattr(row, field) for field in Row.model_fields},
        fitted_ms=_digits(problem.amounts[index] @ values),
        network_left_out_ms=_digits(network_ms),
        paper_left_out_ms=_digits(left_out["paper"][index]),
        left_out_error_percent=round(100 * (network_ms / row.latency_ms - 1), 2),
        fallback=bool(fallback[index]),
    )


def _interval(problem: Problem, by_network: Array, members: Mask, fallback: Mask) -> Interval | None:
    """The interval that the networks' left-out errors support; None with fewer than three networks."""
    logs = np.abs(np.log(problem.measured / by_network))
    of_networks = [rows & members for rows in groups(problem.networks) if (rows & members).any()]
    if len(of_networks) < _FEWEST_NETWORKS:
        return None
    weights = np.zeros(len(logs))
    for rows in of_networks:
        weights[rows] = np.where(fallback[rows], FALLBACK_WEIGHT, 1.0) / rows.sum()
    covered = np.zeros(len(logs), dtype=bool)
    for rows in of_networks:
        covered[rows] = logs[rows] <= _quantile(logs, np.where(rows, 0.0, weights))
    regular = members & ~fallback
    return Interval(
        level=LEVEL,
        ratio=_digits(math.exp(max(_quantile(logs, weights), 0.01))),
        networks=len(of_networks),
        coverage_percent=round(100 * float(covered[regular].mean()), 1),
        coverage_with_fallbacks_percent=round(100 * float(covered[members].mean()), 1),
    )


def _quantile(scores: Array, weights: Array) -> float:
    """The smallest score below which `LEVEL` of the weight lies, one more network of unknown score counted in."""
    order = np.argsort(scores)
    reached = np.cumsum(weights[order]) >= LEVEL * (weights.sum() + 1)
    return float(scores[order][np.argmax(reached)] if reached.any() else scores[weights > 0].max())


def _no_interval() -> Interval:
    raise InputError("rows", None, "are of fewer than four networks", "add rows")


def _digits(value: float) -> float:
    """Six significant digits: what the file stores, and far more than the rows know."""
    return float(f"{value:.6g}")
