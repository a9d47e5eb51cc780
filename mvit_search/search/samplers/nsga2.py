"""NSGA-II (Deb et al., 2002): the default. Optuna's own default population of 50 is larger than most runs."""

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, NSGAIISampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from mvit_search.search.samplers.generations import SteadyGenerations
from mvit_search.search.samplers.problem import Problem, Turn


class SteadySampler(SteadyGenerations, NSGAIISampler):
    """NSGA-II whose proposals depend on the study and the seed alone: see `SteadyGenerations`."""

    def __init__(self, seed: int, problem: Problem) -> None:
        super().__init__(population_size=problem.population, seed=seed)
        self._problem = problem

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._problem.varying()

    def select_elite(self, study: Study, generation: int, pool: list[FrozenTrial]) -> list[FrozenTrial]:
        return self._elite_population_selection_strategy(study, pool)


def make(turn: Turn, problem: Problem) -> BaseSampler:
    return SteadySampler(turn.draw(), problem)
