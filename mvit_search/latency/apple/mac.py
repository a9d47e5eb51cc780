"""Latency measured with Core ML on the Mac that this runs on, for each compute unit.

Written against coremltools 9.0 and tested with fakes; it has not run on a Mac yet.
"""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mvit_search.architecture import MobileViTConfig
from mvit_search.errors import WorkError
from mvit_search.latency.apple.package import Package, pictures_and_arrays, read_package
from mvit_search.latency.apple.placement import NOWHERE, Placed, placed
from mvit_search.latency.apple.seam import (
    COMPUTE_UNITS,
    DEFAULT_CONVERSION,
    CoreMl,
    Host,
    conversion_word,
    coremltools_version,
    require_units,
    runtime_name,
)
from mvit_search.latency.coreml import ConversionSettings
from mvit_search.latency.runtime import Measurement, MeasuringProtocol
from mvit_search.latency.surroundings import Surroundings
from mvit_search.latency.timing import Clock, TimingSettings, time_runs

MAC_TIMING = TimingSettings(warmup=50, min_runs=100, max_seconds=10.0)
OLDEST_MACOS = 13
"""The first where `CPU_AND_NE` can be asked for."""
_PLAN_MACOS = "macOS 14.4"


@dataclass(frozen=True)
class MacRuntime:
    """Runs an ML program with Core ML here, batch 1, and takes Core ML's own time of each prediction.

    That time is of `[MLModel predictionFromFeatures:error:]` alone: Python's conversions do not count. `units` is a
    word of `COMPUTE_UNITS`; `host` and `coreml` are what tests replace.

    Raises:
        InputError: unknown units.
    """

    units: str = "all"
    timing: TimingSettings = MAC_TIMING
    conversion: ConversionSettings = DEFAULT_CONVERSION
    clock: Clock = field(default=time.perf_counter, repr=False)
    host: Host = field(default_factory=Host.here, repr=False)
    coreml: Callable[[], CoreMl] = field(default=CoreMl.installed, repr=False)

    def __post_init__(self) -> None:
        require_units("mac", self.units)

    @property
    def name(self) -> str:
        return runtime_name("mac", self.units)

    @property
    def suffix(self) -> str:
        return ".mlpackage"

    @property
    def identity(self) -> str:
        protocol = self._protocol("fp16", self.conversion.input)
        words = (self.name, "coremltools", coremltools_version(), conversion_word(self.conversion), self.timing.word)
        return "-".join((*words, protocol.digest))

    def require_device(self) -> None:
        """Require macOS 13.

        Raises:
            InputError: with what to do instead.
        """
        self.host.require_macos(self.name, OLDEST_MACOS)

    def write(self, config: MobileViTConfig, num_classes: int, path: Path) -> None:
        """Convert the network, with random weights, to a package. Linux will do.

        Raises:
            InputError: coremltools is not installed, or `path` cannot be written.
            WorkError: it could not be converted.
        """
        from mvit_search.latency.coreml import write_package

        write_package(config, replace(self.conversion, num_classes=num_classes), path)

    def measure(self, path: Path) -> Measurement:
        """Time one prediction of the package at `path`, and say which unit was to run what.

        Raises:
            InputError: no Mac, or no static ML program.
            WorkError: Core ML could not load or run it.
        """
        self.require_device()
        coreml = self.coreml()
        package = read_package(path, coreml.mlmodel)
        unit = coreml.compute_unit[COMPUTE_UNITS[self.units]]
        # Core ML's reason for not loading a model comes as a warning, and again as the error of the first prediction.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            model = coreml.mlmodel(str(path), compute_units=unit)
        around = Surroundings(self.clock)
        timings = time_runs(_prediction(model, package), self.timing, clock=self.clock)
        remarks = around.remarks()
        placement, note = self._placement(coreml, model, unit)
        protocol = self._protocol(package.precision, package.io(own_types=False))
        return timings.measurement(protocol, placement=placement.placement, notes=(*remarks, note) if note else remarks)

    def _placement(self, coreml: CoreMl, model: Any, unit: Any) -> tuple[Placed, str]:
        """Placement and what to say of it; none where this macOS has no compute plans."""
        try:
            plan = coreml.compute_plan.load_from_path(model.get_compiled_model_path(), compute_units=unit)
            found = placed(plan, coreml.unit_classes)
        # A proxy that is not there, or that is and fails: it raises what it likes.
        except Exception as error:
            return NOWHERE, f"which units ran it is unknown: compute plans need {_PLAN_MACOS} ({error})"
        return found, found.note() if self.units in ("all", "ane") else ""

    def _protocol(self, precision: str, io: str) -> MeasuringProtocol:
        return MeasuringProtocol(
            runtime=f"Core ML through coremltools {coremltools_version()}",
            device=self.host.chip,
            system=self.host.words,
            compute_units=COMPUTE_UNITS[self.units],
            precision=precision,
            io=io,
            threads=None,
            warmup=self.timing.warmup,
            rule=self.timing.rule,
        )


def _prediction(model: Any, package: Package) -> Callable[[], float]:
    """One prediction on random input, as something that says how many milliseconds Core ML took."""
    inputs = pictures_and_arrays(package)

    def predict_ms() -> float:
        try:
            model.predict(inputs)
        # RuntimeError, or a bare Exception where Core ML could not load the model.
        except Exception as error:
            raise WorkError(f"mac: Core ML could not run {package.path.name} ({error})") from error
        duration = model.last_predict_duration_in_nano_seconds
        if duration is None:
            raise WorkError(f"mac: Core ML did not say how long {package.path.name} took")
        return float(duration) / 1e6

    return predict_ms
