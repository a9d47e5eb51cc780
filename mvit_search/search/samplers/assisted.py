"""NSGA-II assisted by a model: of several children the one that the front is expected to gain most from.

What a candidate costs is known before it is trained; only its value is not. So each proposal is chosen from `CHILDREN`
children of NSGA-II: a Gaussian process over the parameters, fitted to the values of finished trials, says what value to
expect and how surely; with that value, raised by its standard deviation, the child that adds most to the hypervolume is
proposed. Known as pre-selection by a surrogate (Jin: Surrogate-assisted evolutionary computation, Swarm and
Evolutionary Computation 1(2), 2011); the optimism is that of upper confidence bounds (Srinivas et al. 2010).
"""

from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from mvit_search.records.pareto import hypervolume_added
from mvit_search.search.samplers.nsga2 import SteadySampler
from mvit_search.search.samplers.problem import Problem, Turn

Array = NDArray[np.float64]

CHILDREN = 16
LEARNT_FROM = 250
"""Finished trials, the latest: the fit takes the cube of it."""
LEAST = 8
OPTIMISM = (1.0, 3.0)
"""Standard deviations; the second where no child is expected to add anything with the first."""
NOISE = (0.1, 0.3, 1.0)
"""Variances of the noise over that of the values; the likeliest is taken."""


class AssistedSampler(SteadySampler):
    """See the module. Before a generation is finished it draws as NSGA-II does."""

    def __init__(self, seed: int, problem: Problem) -> None:
        super().__init__(seed, problem)
        self._rng_of_gaps = np.random.default_rng(seed)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        parents = self.get_parent_population(study, self.get_trial_generation(study, trial))
        if not parents:
            return {}
        first = self._child_generation_strategy(study, search_space, parents)
        trials = study._storage.get_all_trials(study._study_id, deepcopy=False)
        latest = (one for one in reversed(trials) if one.state == TrialState.COMPLETE)
        finished = list(islice(latest, LEARNT_FROM))[::-1]
        if len(finished) < LEAST:
            return first
        more = (self._child_generation_strategy(study, search_space, parents) for _ in range(CHILDREN - 1))
        known = {_key(one.params, search_space) for one in trials[-2 * LEARNT_FROM :]}
        children = {_key(child, search_space): child for child in self._whole([first, *more], search_space)}
        fresh = [child for key, child in children.items() if key not in known]
        return self._best(fresh, finished, search_space) or first

    def _whole(self, children: Sequence[dict[str, Any]], space: dict[str, BaseDistribution]) -> list[dict[str, Any]]:
        """Children with what NSGA-II leaves to be drawn anew: its mutations."""
        whole = []
        for child in children:
            drawn = {name: _draw(each, self._rng_of_gaps) for name, each in space.items() if name not in child}
            whole.append({**child, **drawn})
        return whole

    def _best(
        self, children: list[dict[str, Any]], finished: Sequence[FrozenTrial], space: dict[str, BaseDistribution]
    ) -> dict[str, Any] | None:
        """The child to propose; None if none keeps the limits."""
        places = Places(space)
        seen = places.of([trial.params for trial in finished])
        costs = np.array([trial.values[1:] for trial in finished])
        known = self._costs(children, seen, costs, places)
        able = [(child, cost) for child, cost in zip(children, known, strict=True) if cost is not None]
        if not able:
            return None
        values = np.array([trial.values[0] for trial in finished])
        model = Process.fitted(seen, values)
        expected, deviation = model.predicted(places.of([child for child, _ in able]))
        low, wide = (0.0, 1.0) if values.min() >= 0 and values.max() <= 1 else (values.min(), np.ptp(values) or 1.0)
        worst = 1.1 * costs.max(axis=0)
        smoothed, _ = model.predicted(seen)
        others = [(*cost, (value - low) / wide) for cost, value in zip(costs.tolist(), smoothed.tolist(), strict=True)]
        for optimism in OPTIMISM:
            hoped = (expected + optimism * deviation - low) / wide
            gains = [
                hypervolume_added((*cost, value), others, *worst)
                for (_, cost), value in zip(able, hoped.tolist(), strict=True)
            ]
            if max(gains) > 0:
                break
        return able[int(np.argmax(gains))][0]

    def _costs(
        self, children: Sequence[dict[str, Any]], seen: Array, costs: Array, places: "Places"
    ) -> list[tuple[float, ...] | None]:
        """Known exactly where the problem says how; else expected, as values are."""
        if self._problem.costs is not None:
            fixed = {name: each for name, each in self._problem.distributions.items() if each.single()}
            single = {name: _draw(each, self._rng_of_gaps) for name, each in fixed.items()}
            return [self._problem.costs({**single, **child}) for child in children]
        at = places.of(children)
        logs = [Process.fitted(seen, np.log(np.maximum(column, 1e-12))).predicted(at)[0] for column in costs.T]
        return [tuple(row) for row in np.exp(np.array(logs).T).tolist()]


class Places:
    """Where parameters lie: numbers in 0..1 of their range, categories 1 apart."""

    def __init__(self, space: dict[str, BaseDistribution]) -> None:
        self._axes = {name: _axis(each) for name, each in space.items()}

    def of(self, params: Sequence[dict[str, Any]]) -> Array:
        """(n, coordinates)."""
        return np.array([[x for name, axis in self._axes.items() for x in axis[one[name]]] for one in params])


class Process(NamedTuple):
    """A Gaussian process with a smooth and a linear part; values are set to mean 0 and deviation 1.

    Attributes:
        seen: (n, coordinates) that it was fitted to.
        weights: n; `factor`: the lower triangle of the covariance.
        scale: variance of the process over that of the values.
    """

    seen: Array
    weights: Array
    factor: Array
    scale: float
    mean: float
    deviation: float

    @classmethod
    def fitted(cls, seen: Array, values: Array) -> Self:
        """The likeliest of `NOISE`, the scale worked out for each."""
        mean, deviation = float(values.mean()), float(values.std()) or 1.0
        standard = (values - mean) / deviation
        smooth = _covariance(seen, seen)
        found: list[tuple[float, Array, Array, float]] = []
        for noise in NOISE:
            factor = np.asarray(np.linalg.cholesky(smooth + noise * np.eye(len(seen))), dtype=np.float64)
            weights = np.asarray(np.linalg.solve(factor.T, np.linalg.solve(factor, standard)), dtype=np.float64)
            scale = max(float(standard @ weights) / len(seen), 1e-9)
            likelihood = -len(seen) / 2 * np.log(scale) - np.log(np.diagonal(factor)).sum()
            found.append((float(likelihood), weights, factor, scale))
        _, weights, factor, scale = max(found, key=lambda one: one[0])
        return cls(seen, weights, factor, scale, mean, deviation)

    def predicted(self, places: Array) -> tuple[Array, Array]:
        """Expected values and their standard deviations, the noise left out."""
        across = _covariance(places, self.seen)
        own = np.array([_covariance(place[None], place[None])[0, 0] for place in places])
        left = np.maximum(own - (np.linalg.solve(self.factor, across.T) ** 2).sum(axis=0), 0.0)
        return self.mean + self.deviation * (across @ self.weights), self.deviation * np.sqrt(self.scale * left)


def _covariance(one: Array, other: Array) -> Array:
    """Smooth over the distance that two draws have on average, plus half as much that is linear."""
    width = one.shape[1]
    squares = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1) - 2 * one @ other.T
    return np.asarray(np.exp(-1.5 * squares / width) + 6 / width * (one - 0.5) @ (other - 0.5).T)


def _axis(distribution: BaseDistribution) -> dict[Any, tuple[float, ...]]:
    if isinstance(distribution, IntDistribution):
        low, high = distribution.low, distribution.high
        return {value: ((value - low) / ((high - low) or 1),) for value in range(low, high + 1, distribution.step)}
    assert isinstance(distribution, CategoricalDistribution)
    choices = distribution.choices
    numbers = [choice for choice in choices if isinstance(choice, (int, float)) and not isinstance(choice, bool)]
    if len(numbers) == len(choices) and len(choices) > 1:
        least, most = min(numbers), max(numbers)
        return {number: ((number - least) / (most - least),) for number in numbers}
    return {choice: tuple(0.5**0.5 if choice == other else 0.0 for other in choices) for choice in choices}


def _draw(distribution: BaseDistribution, rng: np.random.Generator) -> Any:
    choices = list(_axis(distribution))
    return choices[int(rng.integers(len(choices)))]


def _key(params: dict[str, Any], space: dict[str, BaseDistribution]) -> tuple[Any, ...]:
    return tuple(params.get(name) for name in space)


def make(turn: Turn, problem: Problem) -> BaseSampler:
    return AssistedSampler(turn.draw(), problem)
