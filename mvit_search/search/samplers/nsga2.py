"""NSGA-II (Deb et al., 2002): the default. Optuna's own default population of 50 is larger than most runs."""

from optuna.samplers import BaseSampler, NSGAIISampler


def make(seed: int, population: int) -> BaseSampler:
    return NSGAIISampler(population_size=population, seed=seed)
