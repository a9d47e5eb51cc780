"""Gaussian processes with expected hypervolume improvement: for few trials, each of which costs much."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from mvit_search.errors import InputError
from mvit_search.search.samplers.problem import Problem, Turn

MOST_TRIALS = 400
"""With so many a proposal takes 1.9 s of a processor in a space of 33 parameters; it took 0.6 s with 200."""
_PARENTS, _ROUNDS, _CHANGED, _CHILDREN = 20, 4, 3, 256


class NearbyGpSampler(GPSampler):
    """A process for each objective, fitted anew for every proposal, and a search of its acquisition near the front.

    Trainings are noisy, so the noise is fitted too. Optuna climbs from points all over the space, parameter by
    parameter, which takes 5 to 19 s in a space of 33, and ends at networks over the limit. Here children of the front's
    candidates are compared, and children of the best of these: most of them fit, as their parents do.
    """

    def __init__(self, seed: int, problem: Problem) -> None:
        startup = min(problem.population, 10)
        super().__init__(
            seed=seed, n_startup_trials=startup, deterministic_objective=False, warn_independent_sampling=False
        )
        self._problem = problem
        self._n_local_search = 2 * _PARENTS  # half of it is how many of the front Optuna hands over

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._problem.varying()

    def _optimize_acqf(self, acqf: Any, best_params: NDArray[np.float64] | None) -> NDArray[np.float64]:
        random = self._rng.rng
        parents = best_params
        if parents is None:
            parents = acqf.search_space.sample_normalized_params(_PARENTS, random)
        for _ in range(_ROUNDS):
            children = parents[random.randint(len(parents), size=_CHILDREN)]
            fresh = acqf.search_space.sample_normalized_params(_CHILDREN, random)
            changed = random.rand(*children.shape) < _CHANGED / children.shape[1]
            changed[np.arange(_CHILDREN), random.randint(children.shape[1], size=_CHILDREN)] = True
            children = np.where(changed, fresh, children)
            promise = acqf.eval_acqf_no_grad(children)
            parents = children[np.argsort(-promise, kind="stable")[:_PARENTS]]
        best: NDArray[np.float64] = parents[0]
        return best


def make(turn: Turn, problem: Problem) -> BaseSampler:
    return NearbyGpSampler(turn.draw(), problem)


def check(problem: Problem) -> None:
    """Raises InputError for more trials than it can bear."""
    if problem.trials > MOST_TRIALS:
        rule = f"bears {MOST_TRIALS} trials (2 s a proposal by then), and this run has {problem.trials}"
        raise InputError("--sampler", "gp", rule, "take nsga2, or fewer --trials")
