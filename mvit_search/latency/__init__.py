"""How long a candidate runs: targets that predict, targets that measure, and always which of the two.

A predicted target is one file `targets/<name>.json` and needs no registration; a measured runtime is one
line of the table below. Nothing here loads torch or scipy until a measurement or a refit asks for it.
"""

from collections.abc import Callable
from pathlib import Path

from mvit_search.errors import UnknownNameError
from mvit_search.latency.base import Latency, Target
from mvit_search.latency.cpu import CpuTarget
from mvit_search.latency.predictor import PredictedTarget

__all__ = ["CpuTarget", "Latency", "PredictedTarget", "Target", "load_target", "target_names"]

_TARGETS = Path(__file__).resolve().parent / "targets"
_RUNTIMES: dict[str, Callable[[], Target]] = {
    "cpu": CpuTarget,
}


def target_names() -> tuple[str, ...]:
    """Every target that `load_target` knows: predicted ones by name, then the measured runtimes."""
    predicted = sorted(path.stem for path in _TARGETS.glob("*.json"))
    return (*predicted, *_RUNTIMES)


def load_target(name: str) -> Target:
    """The target of that name.

    Raises:
        UnknownNameError: with the nearest target name.
        InputError: the target's file is broken.
    """
    if name not in target_names():
        raise UnknownNameError("target", name, target_names())
    runtime = _RUNTIMES.get(name)
    return runtime() if runtime else PredictedTarget.load(_TARGETS / f"{name}.json")
