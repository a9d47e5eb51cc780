"""Uniform draws: the baseline every other sampler has to beat."""

from optuna.samplers import BaseSampler, RandomSampler

from mvit_search.search.samplers.problem import Problem, Turn


def make(turn: Turn, problem: Problem) -> BaseSampler:
    return RandomSampler(seed=turn.draw())
