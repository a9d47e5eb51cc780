"""Uniform draws: the baseline every other sampler has to beat."""

from optuna.samplers import BaseSampler, RandomSampler


def make(seed: int, population: int) -> BaseSampler:
    return RandomSampler(seed=seed)
