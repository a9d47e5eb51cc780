"""Samplers: Optuna's, set up for this project's studies. One file each; this table is the registration.

A sampler is made anew for every proposal, from the run's seed and the proposal's index, so that a run
carried on after a crash proposes what an uninterrupted one would have.
"""

from collections.abc import Callable

from optuna.samplers import BaseSampler

from mvit_search.errors import UnknownNameError
from mvit_search.search.samplers import nsga2, random, tpe

SAMPLERS: dict[str, Callable[[int, int], BaseSampler]] = {
    "nsga2": nsga2.make,
    "tpe": tpe.make,
    "random": random.make,
}


def check_sampler(name: str) -> None:
    """Raises UnknownNameError, with the nearest name, for an unknown sampler."""
    if name not in SAMPLERS:
        raise UnknownNameError("sampler", name, SAMPLERS)


def make_sampler(name: str, seed: int, population: int) -> BaseSampler:
    """The sampler of that name; `population` is the size of a generation where it has any."""
    check_sampler(name)
    return SAMPLERS[name](seed, population)


__all__ = ["SAMPLERS", "check_sampler", "make_sampler"]
