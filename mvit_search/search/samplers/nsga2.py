"""NSGA-II (Deb et al., 2002): the default. Optuna's own default population of 50 is larger than most runs."""

from optuna.samplers import BaseSampler, NSGAIISampler
from optuna.study import Study
from optuna.trial import FrozenTrial


class SteadySampler(NSGAIISampler):
    """NSGA-II whose parents always stand in one order.

    Optuna hands them over by crowding when it has just chosen them, and by number once they are on file. Parents are
    drawn by their place, so a run that is killed in the first proposal of a generation would go on with another one.
    """

    def get_parent_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        return sorted(super().get_parent_population(study, generation), key=lambda trial: trial.number)


def make(seed: int, population: int) -> BaseSampler:
    return SteadySampler(population_size=population, seed=seed)
