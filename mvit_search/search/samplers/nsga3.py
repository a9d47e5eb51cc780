"""NSGA-III (Deb and Jain, 2014): for three objectives and more, where crowding distance says little."""

import math
import warnings

from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, NSGAIIISampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from mvit_search.search.samplers.generations import SteadyGenerations
from mvit_search.search.samplers.problem import Problem, Turn


class SteadyReferenceSampler(SteadyGenerations, NSGAIIISampler):
    """NSGA-III whose proposals depend on the study and the seed alone: see `SteadyGenerations`.

    Its selection of parents draws by chance. It does so from the run's seed and the generation, not the proposal's: the
    parents are kept with the study, whichever proposal or attempt came first.
    """

    def __init__(self, turn: Turn, problem: Problem) -> None:
        divisions = _divisions(problem.objectives, problem.population)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            super().__init__(population_size=problem.population, seed=turn.draw(), dividing_parameter=divisions)
        self._turn, self._problem = turn, problem

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._problem.varying()

    def select_elite(self, study: Study, generation: int, pool: list[FrozenTrial]) -> list[FrozenTrial]:
        random = self._rng.rng
        before = random.get_state()
        random.seed(self._turn.lasting(f"parents {generation}"))
        chosen = self._elite_population_selection_strategy(study, pool)
        random.set_state(before)
        return chosen


def make(turn: Turn, problem: Problem) -> BaseSampler:
    return SteadyReferenceSampler(turn, problem)


def _divisions(objectives: int, population: int) -> int:
    """How finely each axis is divided: the most for which there are no more reference points than a population.

    That is the proportion of the paper (section IV); Optuna's fixed 3 gives 4 points for two objectives.
    """
    divisions = 1
    while math.comb(divisions + objectives, objectives - 1) <= population:
        divisions += 1
    return divisions
