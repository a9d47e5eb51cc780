"""`module:Class`: any sampler with Optuna's interface that can be imported here."""

import importlib
import inspect
import warnings
from collections.abc import Callable
from functools import lru_cache

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler

from mvit_search.errors import InputError
from mvit_search.search.samplers.problem import Member, Problem, Turn


def member(name: str) -> Member | None:
    """How it is made and checked; None for a name that is not so written."""
    module, colon, attribute = name.partition(":")
    if not (colon and module and attribute):
        return None
    return of_class(name, lambda: _class_of(module, attribute))


def of_class(name: str, load: Callable[[], type[BaseSampler]]) -> Member:
    """Of a sampler that another one wrote: what it is given is what its constructor takes."""

    def make(turn: Turn, problem: Problem) -> BaseSampler:
        return _made(name, load(), turn, problem)

    def check(problem: Problem) -> None:
        _rehearse(name, make, problem)

    return Member(make, check)


@lru_cache
def _class_of(module: str, attribute: str) -> type[BaseSampler]:
    name = f"{module}:{attribute}"
    try:
        found = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        rule = f"there is no module {error.name!r}"
        raise InputError("--sampler", name, rule, "install it, or put its folder on PYTHONPATH") from None
    except AttributeError:
        raise InputError("--sampler", name, f"module {module} has no {attribute!r}") from None
    except Exception as error:
        # A module of the user's can fail in any way when it is run.
        raise InputError("--sampler", name, f"importing it failed ({type(error).__name__}: {error})") from None
    return checked_class(name, found)


def checked_class(name: str, found: object) -> type[BaseSampler]:
    """Raises InputError for what is not a sampler's class."""
    if not (isinstance(found, type) and issubclass(found, BaseSampler)):
        raise InputError("--sampler", name, "is no subclass of optuna.samplers.BaseSampler")
    return found


def _made(name: str, kind: type[BaseSampler], turn: Turn, problem: Problem) -> BaseSampler:
    takes = inspect.signature(kind).parameters
    known = {
        "seed": turn.draw(), "population_size": problem.population, "n_startup_trials": problem.population,
    }  # fmt: skip
    given = {key: value for key, value in known.items() if key in takes}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return kind(**given)
    except Exception as error:
        rule = f"cannot be made with {', '.join(given) or 'no arguments'} ({type(error).__name__}: {error})"
        raise InputError("--sampler", name, rule) from None


def _rehearse(name: str, make: Callable[[Turn, Problem], BaseSampler], problem: Problem) -> None:
    """Three proposals on a study of nothing: many samplers know one objective only, or other kinds of parameters."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study = optuna.create_study(directions=["minimize"] * problem.objectives)
            for index in range(3):
                study.sampler = make(Turn(0, index), problem._replace(population=2))
                trial = study.ask(dict(problem.distributions))
                study.tell(trial, [float(index)] * problem.objectives)
    except InputError:
        raise
    except Exception as error:
        rule = f"cannot propose in this run ({type(error).__name__}: {error})"
        raise InputError("--sampler", name, rule) from None
