"""`hub:PACKAGE[:Class]`: a sampler from OptunaHub; its package is downloaded once, as the user asks for it."""

import importlib
import os
from functools import lru_cache
from types import ModuleType

from optuna.samplers import BaseSampler

from mvit_search.errors import InputError
from mvit_search.search.samplers.imported import checked_class, of_class
from mvit_search.search.samplers.problem import Member


def member(name: str) -> Member | None:
    """How it is made and checked; None for a name that does not begin with `hub:`."""
    prefix, _, rest = name.partition(":")
    package, _, attribute = rest.partition(":")
    if prefix != "hub":
        return None
    if not package:
        raise InputError("--sampler", name, "must be hub:PACKAGE or hub:PACKAGE:Class", "see hub.optuna.org")
    folder = package if "/" in package else f"samplers/{package}"
    return of_class(name, lambda: _class_of(name, folder, attribute))


@lru_cache
def _class_of(name: str, package: str, attribute: str) -> type[BaseSampler]:
    module = _load(name, package)
    if attribute:
        if not hasattr(module, attribute):
            raise InputError("--sampler", name, f"package {package} has no {attribute!r}")
        return checked_class(name, vars(module)[attribute])
    found = [key for key, each in vars(module).items() if _is_own_sampler(each)]
    if len(found) != 1:
        listed = ", ".join(found) or "none"
        rule = f"package {package} has not one sampler but: {listed}"
        raise InputError("--sampler", name, rule, f"say which, hub:{package}:Class" if found else "")
    return checked_class(name, vars(module)[found[0]])


def _is_own_sampler(found: object) -> bool:
    """A package's module also holds the samplers of Optuna that it builds on."""
    return (
        isinstance(found, type) and issubclass(found, BaseSampler)
        and not found.__module__.startswith(("optuna.", "optunahub."))
    )  # fmt: skip


def _load(name: str, package: str) -> ModuleType:
    try:
        optunahub = importlib.import_module("optunahub")
    except ImportError:
        rule = "needs the package optunahub"
        raise InputError("--sampler", name, rule, "pip install optunahub") from None
    # Without an answer on file it would ask on the terminal whether it may send statistics.
    os.environ.setdefault("OPTUNAHUB_NO_ANALYTICS", "1")
    try:
        loaded: ModuleType = optunahub.load_module(package)
    except Exception as error:
        # No network, no such package, a package that lacks a dependency: all with exceptions of their own.
        rule = f"OptunaHub's {package} could not be loaded ({type(error).__name__}: {error})"
        raise InputError("--sampler", name, rule, "is there a network, and is the package spelt so?") from None
    return loaded
