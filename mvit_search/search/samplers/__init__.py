"""Samplers: Optuna's, set up for this project's studies. One file each; this table is the registration.

A sampler is made anew for every proposal and keeps nothing of its own: what it proposes depends on the study, the
run's seed, and which proposal it is. So a run carried on after a crash proposes what an uninterrupted one would have.
What it has to remember, it keeps with the study (system attributes of trials and study).
"""

from optuna.samplers import BaseSampler

from mvit_search.errors import UnknownNameError
from mvit_search.search.samplers import assisted, gp, grid, hub, imported, nsga2, nsga3, random, tpe
from mvit_search.search.samplers.choice import Choice, choose
from mvit_search.search.samplers.grid import Exhausted
from mvit_search.search.samplers.problem import Member, Problem, Turn

AUTO = "auto"


SAMPLERS: dict[str, Member] = {
    "nsga2": Member(nsga2.make),
    "nsga3": Member(nsga3.make),
    "assisted": Member(assisted.make),
    "tpe": Member(tpe.make),
    "gp": Member(gp.make, gp.check),
    "random": Member(random.make),
    "grid": Member(grid.make, grid.check),
}

EXHAUSTIVE = frozenset({"grid"})
"""Those that go through the space and raise `Exhausted` at its end: their attempts must not be limited."""


def check_sampler(name: str, problem: Problem) -> None:
    """Whether `name` is a sampler, and one that this run can use. May load what the user named.

    Raises:
        UnknownNameError: with the nearest name, for an unknown sampler.
        InputError: more trials or candidates than it can bear; a module, class or package that is none.
    """
    _member(name).check(problem)


def make_sampler(name: str, turn: Turn, problem: Problem) -> BaseSampler:
    """The sampler of that name, for one proposal; `auto` must have been resolved by `choose`.

    Raises:
        UnknownNameError, InputError: as `check_sampler`.
    """
    return _member(name).make(turn, problem)


def _member(name: str) -> Member:
    member = SAMPLERS.get(name) or hub.member(name) or imported.member(name)
    if member is None:
        raise UnknownNameError("sampler", name, [*SAMPLERS, AUTO, "module:Class", "hub:PACKAGE"])
    return member


__all__ = [
    "AUTO", "EXHAUSTIVE", "SAMPLERS", "Choice", "Exhausted", "Member", "Problem", "Turn", "check_sampler", "choose",
    "make_sampler",
]  # fmt: skip
