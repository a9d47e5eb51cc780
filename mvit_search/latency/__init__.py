"""How long a candidate runs: targets that predict, targets that measure, and always which of the two.

A predicted target is one file `targets/<name>.json` and needs no registration; a measured runtime is one
line of the table below. Nothing here loads torch or scipy until a measurement or a refit asks for it.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from mvit_search.errors import UnknownNameError
from mvit_search.latency.apple.iphone import IPhoneRuntime
from mvit_search.latency.apple.mac import MacRuntime
from mvit_search.latency.base import Latency, Target
from mvit_search.latency.cpu_onnx import CpuOnnxRuntime
from mvit_search.latency.cpu_torch import CpuTorchRuntime
from mvit_search.latency.predictor import PredictedTarget
from mvit_search.latency.runtime import LocalRuntime, MeasuredTarget, Measurement, MeasuringProtocol, Runtime
from mvit_search.latency.timing import TimingSettings

__all__ = [
    "CpuOnnxRuntime", "CpuTorchRuntime", "IPhoneRuntime", "Latency", "LocalRuntime", "MacRuntime", "MeasuredTarget",
    "Measurement", "MeasuringProtocol", "PredictedTarget", "Runtime", "Target", "TimingSettings", "load_runtime",
    "load_target", "runtime_names", "target_names",
]  # fmt: skip

_TARGETS = Path(__file__).resolve().parent / "targets"
_RUNTIMES: dict[str, Callable[[], LocalRuntime]] = {
    "cpu-torch": CpuTorchRuntime,
    "cpu-onnx": CpuOnnxRuntime,
    "mac": MacRuntime,
    "mac:ane": partial(MacRuntime, "ane"),
    "mac:gpu": partial(MacRuntime, "gpu"),
    "mac:cpu": partial(MacRuntime, "cpu"),
    "iphone": IPhoneRuntime,
    "iphone:ane": partial(IPhoneRuntime, "ane"),
    "iphone:gpu": partial(IPhoneRuntime, "gpu"),
    "iphone:cpu": partial(IPhoneRuntime, "cpu"),
}
_ALIASES = {"cpu": "cpu-torch", "mac:all": "mac", "iphone:all": "iphone"}


def target_names() -> tuple[str, ...]:
    """Every target of `load_target`: predicted ones by name, then the measured runtimes.

    `cpu` is accepted for `cpu-torch`, `mac:all` for `mac`, `iphone:all` for `iphone`.
    """
    predicted = sorted(path.stem for path in _TARGETS.glob("*.json"))
    return (*predicted, *_RUNTIMES)


def runtime_names() -> tuple[str, ...]:
    """Every runtime of `load_runtime`."""
    return tuple(_RUNTIMES)


def load_target(name: str) -> Target:
    """The target of that name, of the measurement server at that address, or of that file, ready to give latencies.

    A name that ends in `.json` is the path of a predicted target's file, as `calibrate` writes.

    Raises:
        UnknownNameError: with the nearest target name.
        InputError: the target's file is broken, or this machine cannot measure it, or the server does not answer or
            refuses its token; with the remedy.
    """
    if "://" in name:
        from mvit_search.latency.remote.target import connect

        return connect(name, load_runtime)
    if name.endswith(".json"):
        return PredictedTarget.load(Path(name))
    name = _ALIASES.get(name, name)
    if name not in target_names():
        raise UnknownNameError("target", name, target_names())
    if name not in _RUNTIMES:
        return PredictedTarget.load(_TARGETS / f"{name}.json")
    runtime = load_runtime(name)
    runtime.require_device()
    return MeasuredTarget(runtime)


def load_runtime(name: str) -> LocalRuntime:
    """The runtime of that name; its device need not be here, for writing needs none.

    Raises:
        UnknownNameError: with the nearest runtime name.
    """
    name = _ALIASES.get(name, name)
    if name not in _RUNTIMES:
        raise UnknownNameError("runtime", name, _RUNTIMES)
    return _RUNTIMES[name]()
