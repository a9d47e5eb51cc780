"""What a latency can be asked of: a config, a Core ML package, or an ONNX file."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from mvit_search.analysis.latency_explanation import LatencyExplanation, explain_network, explain_program
from mvit_search.analysis.profile_facts import NetworkProfile, network_profile
from mvit_search.architecture import PRESETS, MobileViTConfig
from mvit_search.errors import InputError
from mvit_search.latency import (
    Latency,
    MeasuredTarget,
    PredictedTarget,
    Target,
    load_runtime,
    runtime_names,
    target_names,
)  # fmt: skip
from mvit_search.latency.mil import Program, read_program
from mvit_search.latency.remote.target import RemoteTarget
from mvit_search.records import resolve

_PACKAGE, _ONNX = ".mlpackage", ".onnx"
_CORE_ML = (_PACKAGE, ".mlmodel", ".mlmodelc")
_CONFIGS = (".yaml", ".yml", ".json")


class Subject(Protocol):
    """A network whose latency is asked for."""

    @property
    def name(self) -> str:
        """What to call it."""

    @property
    def words(self) -> str:
        """Name, image size and what else shapes it."""

    @property
    def unknown_operators(self) -> dict[str, int]:
        """Types of operators that no table knows, and how many there are of each."""

    def latency(self, target: Target) -> Latency:
        """Predict or measure it.

        Raises:
            InputError: the target cannot run it; names one that can.
            WorkError: the measurement failed.
        """

    def explanation(self, target: PredictedTarget) -> LatencyExplanation:
        """Take the prediction apart.

        Raises:
            InputError: as `latency`.
        """


def subject_of(
    reference: str, results_dir: Path, image_size: tuple[int, int] | None, num_classes: int | None
) -> Subject:
    """What `reference` means: a preset, config file or candidate, as everywhere, or a model's file.

    `image_size` and `num_classes` are the config's own, and the papers', where None.

    Raises:
        UnknownNameError: an unknown preset, run or selector, with the nearest name.
        InputError: a file that cannot be read or is none of these, or a size asked of a file that has its own.
    """
    path = Path(reference)
    suffix = path.suffix.lower()
    if reference not in PRESETS and (suffix in (*_CORE_ML, _ONNX) or _is_model_or_stranger(path)):
        _require_own_sizes(image_size, num_classes)
        return _model_file(path, suffix)
    found = resolve(reference, results_dir)
    config = found.config.with_image_size(*image_size) if image_size else found.config
    return ConfigSubject(found.name, config, num_classes)


@dataclass(frozen=True)
class ConfigSubject:
    """A network of this project."""

    name: str
    config: MobileViTConfig
    num_classes: int | None

    @property
    def words(self) -> str:
        height, width = self.config.image_size
        return f"{self.name}, {height}x{width} px, {self.num_classes or 1000} classes"

    @property
    def unknown_operators(self) -> dict[str, int]:
        return {}

    def latency(self, target: Target) -> Latency:
        return self._profile(target).latency

    def explanation(self, target: PredictedTarget) -> LatencyExplanation:
        return explain_network(self._profile(target), target)

    def _profile(self, target: Target) -> NetworkProfile:
        return network_profile(self.name, self.config, target, num_classes=self.num_classes)


@dataclass(frozen=True)
class PackageSubject:
    """A Core ML program of any family."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @cached_property
    def program(self) -> Program:
        """Its operators, read once.

        Raises:
            InputError: as `read_program`.
        """
        return read_program(self.path)

    @property
    def words(self) -> str:
        height, width = self.program.image_size
        return f"{self.name}, {height}x{width} px, {len(self.program.ops)} operators"

    @property
    def unknown_operators(self) -> dict[str, int]:
        return dict(self.program.unknown)

    def latency(self, target: Target) -> Latency:
        if isinstance(target, PredictedTarget):
            return target.latency_of_program(self.program)
        return _measured(self.path, _PACKAGE, target)

    def explanation(self, target: PredictedTarget) -> LatencyExplanation:
        return explain_program(self.name, self.program, self.latency(target), target)


@dataclass(frozen=True)
class OnnxSubject:
    """An ONNX file, which can be measured but not predicted."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def words(self) -> str:
        return self.name

    @property
    def unknown_operators(self) -> dict[str, int]:
        return {}

    def latency(self, target: Target) -> Latency:
        return _measured(self.path, _ONNX, target)

    def explanation(self, target: PredictedTarget) -> LatencyExplanation:
        raise _cannot_run(_ONNX, target)


def _model_file(path: Path, suffix: str) -> Subject:
    if suffix == _ONNX:
        if not path.is_file():
            raise InputError(str(path), None, "does not exist", "give an ONNX file, a Core ML package or a config")
        return OnnxSubject(path)
    package = PackageSubject(path)
    _ = package.program  # a file that cannot be read is refused before anything is measured
    return package


def _is_model_or_stranger(path: Path) -> bool:
    """Whether it is a Core ML package whatever its name; a file or folder that nothing here reads is refused.

    Raises:
        InputError: it is one, or on the way to it stands a folder that may not be entered.
    """
    try:
        if path.is_dir() and not (path / "run.json").is_file():
            return True  # `read_program` says what is missing if it is no package
        if path.is_file() and path.suffix.lower() not in _CONFIGS:
            configs = ", ".join(_CONFIGS)
            rule = f"is neither a Core ML package ({_PACKAGE}) nor an ONNX file ({_ONNX}) nor a config ({configs})"
            raise InputError(str(path), None, rule, "convert the model, or rename the file")
    except OSError as error:
        raise InputError(str(path), None, f"cannot be read ({error.strerror})") from None
    return False


def _require_own_sizes(image_size: tuple[int, int] | None, num_classes: int | None) -> None:
    for option, value in (("--image-size", image_size), ("--num-classes", num_classes)):
        if value is not None:
            raise InputError(option, None, "is for configs: a model's file has its own", "leave the option out")


def _measured(path: Path, suffix: str, target: Target) -> Latency:
    """Time the file at `path` with a runtime that runs such files, of this machine or of a measurement server."""
    if isinstance(target, MeasuredTarget) and target.runtime.suffix == suffix:
        return target.runtime.measure(path).latency(target.name)
    if isinstance(target, RemoteTarget) and target.suffix == suffix:
        return target.latency_of_file(path, path.name)
    raise _cannot_run(suffix, target)


def _suffix_of(target: Target) -> str | None:
    """What a measuring target runs; None of one that predicts."""
    if isinstance(target, MeasuredTarget):
        return target.runtime.suffix
    return target.suffix if isinstance(target, RemoteTarget) else None


def _cannot_run(suffix: str, target: Target) -> InputError:
    # Variants of a runtime, as `mac:ane`, run what it runs.
    able = [name for name in runtime_names() if ":" not in name and load_runtime(name).suffix == suffix]
    if suffix == _PACKAGE:
        able = [name for name in target_names() if name not in runtime_names()] + able
    takes = "predicts from configs and Core ML packages" if isinstance(target, PredictedTarget) else "measures configs"
    if (own := _suffix_of(target)) in (_PACKAGE, _ONNX):
        takes = f"measures configs and {own} files"
    advice = f"for {suffix} give --target {', '.join(able)}"
    return InputError("--target", target.name, f"{takes}, not {suffix} files", advice)
