"""The whole of a small space, each candidate once, in an order that depends on the seed."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from mvit_search.errors import InputError
from mvit_search.search.samplers.problem import Problem, Turn

MOST_CANDIDATES = 20_000
"""Beyond that nobody trains them all, and looking for the next that fits the limits takes long."""

_PLACE = "grid:place"


class Exhausted(Exception):
    """Every candidate of the grid has been proposed: not an error, the search is complete."""


class ShuffledGrid(BaseSampler):
    """Goes through a permutation of the grid, on from the latest admitted trial, one place further with each attempt.

    So candidates that are sampled away (over a limit, known) are passed by for good, and nothing is left out.
    """

    def __init__(self, turn: Turn, problem: Problem) -> None:
        self._turn, self._varying = turn, problem.varying()
        self._fixed = {name: each for name, each in problem.distributions.items() if each.single()}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._varying

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Raises Exhausted."""
        axes = {name: _values(each) for name, each in self._varying.items()}
        size = math.prod(map(len, axes.values()))
        trials = study._storage.get_all_trials(study._study_id, deepcopy=False)
        latest: int = next((t.system_attrs[_PLACE] for t in reversed(trials) if _PLACE in t.system_attrs), -1)
        place = latest + 1 + self._turn.attempt
        if place >= size:
            raise Exhausted
        study._storage.set_trial_system_attr(trial._trial_id, _PLACE, place)
        order = np.random.default_rng(self._turn.lasting("grid")).permutation(size)
        index, params = int(order[place]), {}
        for name, values in axes.items():
            index, digit = divmod(index, len(values))
            params[name] = values[digit]
        return params

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return _values(self._fixed[param_name])[0]


def make(turn: Turn, problem: Problem) -> BaseSampler:
    return ShuffledGrid(turn, problem)


def check(problem: Problem) -> None:
    """Raises InputError for a space that is too large, or of numbers that are not steps."""
    size = math.prod(len(_values(each)) for each in problem.distributions.values())
    if size > MOST_CANDIDATES:
        shown = f"{size:,}" if size < 10**9 else f"{size:.1e}"
        rule = f"the space has {shown} candidates, and a grid may have {MOST_CANDIDATES:,}"
        raise InputError("--sampler", "grid", rule, "take another sampler, or a smaller --space")


def _values(distribution: BaseDistribution) -> Sequence[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    if isinstance(distribution, IntDistribution):
        return range(distribution.low, distribution.high + 1, distribution.step)
    raise InputError("--sampler", "grid", "needs a space of steps and choices, and this one has continuous numbers")
