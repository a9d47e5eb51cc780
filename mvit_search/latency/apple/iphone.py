"""Latency measured with Core ML on a cabled iPhone, through coremltools' remote devices.

What `perf_utils.MLModelBenchmarker` loops over is called here directly: by itself it runs once, warms up with one
run at most, makes no pictures, and never unloads a model. Written against coremltools 9.0 and tested with fakes; it
has not run on a phone yet.
"""

import asyncio
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mvit_search.architecture import MobileViTConfig
from mvit_search.errors import InputError, WorkError
from mvit_search.latency.apple.package import Package, arrays, read_package
from mvit_search.latency.apple.phones import Phone, PhoneSettings, choose, devicectl_devices, phones, prepare, quiet
from mvit_search.latency.apple.placement import NOWHERE, Placed, placed
from mvit_search.latency.apple.seam import (
    COMPUTE_UNITS,
    DEFAULT_CONVERSION,
    Host,
    RemoteCoreMl,
    conversion_word,
    coremltools_version,
    require_units,
    runtime_name,
)
from mvit_search.latency.coreml import ConversionSettings
from mvit_search.latency.runtime import Measurement, MeasuringProtocol
from mvit_search.latency.timing import Clock, TimingSettings, time_runs

IPHONE_TIMING = TimingSettings(warmup=5, min_runs=20, max_seconds=300.0)
"""A prediction takes seconds to ask for, whatever it takes to run."""
OLDEST_MACOS = 14
"""The first with an Xcode that has `devicectl`."""
_WEIGHTS = Path("Data") / "com.apple.CoreML" / "weights"


class PhoneLink:
    """A phone and the app on it, started when first needed and kept for the next measurement."""

    def __init__(self) -> None:
        self._phone: Phone | None = None
        self._device: Any = None
        self._folder: Path | None = None

    def phone(self, find: Callable[[], Phone]) -> Phone:
        """The phone; found once, so that a run stays on it."""
        if self._phone is None:
            self._phone = find()
        return self._phone

    def device(self, phone: Phone, settings: PhoneSettings, remote: RemoteCoreMl, *, clean: bool = False) -> Any:
        """The phone with a live session of the app; coremltools itself does not notice a dead one.

        Raises:
            InputError, WorkError: as `prepare`.
        """
        if clean or self._device is None or not self._device.session.is_alive():
            self._device = prepare(phone, settings, remote, folder=self._build_folder(settings), clean=clean)
        return self._device

    def close(self) -> None:
        """End the app's session, if there is one."""
        if self._device is not None:
            self._device.session.stop()
            self._device = None

    def _build_folder(self, settings: PhoneSettings) -> Path:
        if settings.folder is not None:
            settings.folder.mkdir(parents=True, exist_ok=True)
            return settings.folder
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="mvit-search-iphone-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        return self._folder


@dataclass(frozen=True)
class IPhoneRuntime:
    """Runs an ML program with Core ML on a cabled iPhone, batch 1, and takes the phone's own time of each prediction.

    `units` is a word of `COMPUTE_UNITS`; without `settings` they are the environment's. `host`, `remote` and
    `details` are what tests replace.

    Raises:
        InputError: unknown units.
    """

    units: str = "all"
    timing: TimingSettings = IPHONE_TIMING
    conversion: ConversionSettings = DEFAULT_CONVERSION
    settings: PhoneSettings | None = None
    clock: Clock = field(default=time.perf_counter, repr=False)
    host: Host = field(default_factory=Host.here, repr=False)
    remote: Callable[[], RemoteCoreMl] = field(default=RemoteCoreMl.installed, repr=False)
    details: Callable[[], list[dict[str, Any]]] = field(default=devicectl_devices, repr=False)
    link: PhoneLink = field(default_factory=PhoneLink, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_units("iphone", self.units)

    @property
    def name(self) -> str:
        return runtime_name("iphone", self.units)

    @property
    def suffix(self) -> str:
        return ".mlpackage"

    @property
    def identity(self) -> str:
        """Raises InputError where no phone is connected: its model and system are part of it."""
        protocol = self._protocol("fp16", self.conversion.input, self._phone(self.remote()))
        words = (self.name, "coremltools", coremltools_version(), conversion_word(self.conversion), self.timing.word)
        return "-".join((*words, protocol.digest))

    def require_device(self) -> None:
        """Require a Mac with Xcode and one phone that is ready for development.

        Raises:
            InputError: with what is missing and what to do.
            WorkError: Xcode's tools failed.
        """
        self.host.require_macos(self.name, OLDEST_MACOS)
        self._phone(self.remote())

    def phones(self) -> list[Phone]:
        """Every iPhone that Xcode knows of.

        Raises:
            InputError: no Mac, or no Xcode.
            WorkError: Xcode's tools failed.
        """
        self.host.require_macos(self.name, OLDEST_MACOS)
        return phones(self.remote(), self.details)

    def prepare(self, *, clean: bool = False) -> Phone:
        """Build the app, install it and start it once, so that a measurement need only start it.

        Raises:
            InputError: what is missing, with what to do.
            WorkError: the app could not be built or started.
        """
        self.host.require_macos(self.name, OLDEST_MACOS)
        remote = self.remote()
        phone = self._phone(remote)
        self.link.device(phone, self._settings, remote, clean=clean)
        self.link.close()
        return phone

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
            InputError: no Mac, no phone that can measure, no static ML program, or one that takes pictures.
            WorkError: the app could not be started, or Core ML failed on the phone.
        """
        self.host.require_macos(self.name, OLDEST_MACOS)
        remote = self.remote()
        package = read_package(path, remote.local.mlmodel)
        _refuse_pictures(package)
        phone = self._phone(remote)
        device = self.link.device(phone, self._settings, remote)
        try:
            # One event loop for all of it: the model's connection keeps the loop that it began with.
            with quiet(), asyncio.Runner() as runner:
                return self._measure(runner, package, self._model(package, device, remote), phone, remote)
        except (InputError, WorkError):
            raise
        except Exception as error:  # private classes of coremltools, and ValueError
            raise WorkError(f"iphone: {package.path.name} could not be measured on {phone.model} ({error})") from error

    def _model(self, package: Package, device: Any, remote: RemoteCoreMl) -> Any:
        return remote.async_model.from_spec_or_path(
            spec_or_path=str(package.path.resolve()),
            weights_dir=str(package.path.resolve() / _WEIGHTS),
            compute_units=remote.local.compute_unit[COMPUTE_UNITS[self.units]],
            device=device,
        )

    def _measure(
        self, runner: asyncio.Runner, package: Package, model: Any, phone: Phone, remote: RemoteCoreMl
    ) -> Measurement:  # fmt: skip
        inputs = arrays(package, own_types=True)

        def predict_ms() -> float:
            runner.run(model.predict(inputs))
            duration = model.last_predict_duration_in_nano_seconds
            if duration is None:
                raise WorkError(f"iphone: the phone did not say how long {package.path.name} took")
            return float(duration) / 1e6

        runner.run(model.load())
        try:
            # Nothing of its surroundings: what the Mac does says little of the phone.
            timings = time_runs(predict_ms, self.timing, clock=self.clock)
            placement, note = self._placement(runner, model, remote)
        finally:
            runner.run(model.unload())
        protocol = self._protocol(package.precision, package.io(own_types=True), phone)
        return timings.measurement(protocol, placement=placement.placement, notes=(note,) if note else ())

    def _placement(self, runner: asyncio.Runner, model: Any, remote: RemoteCoreMl) -> tuple[Placed, str]:
        """Placement and what to say of it; a plan that cannot be had spoils no measurement."""
        try:
            found = placed(runner.run(model.retrieve_compute_plan()), remote.local.unit_classes)
        except Exception as error:  # as in `measure`
            return NOWHERE, f"which units ran it is unknown ({error})"
        return found, found.note() if self.units in ("all", "ane") else ""

    def _phone(self, remote: RemoteCoreMl) -> Phone:
        return self.link.phone(lambda: choose(phones(remote, self.details), self._settings.device))

    @property
    def _settings(self) -> PhoneSettings:
        return self.settings or PhoneSettings.from_environment()

    def _protocol(self, precision: str, io: str, phone: Phone) -> MeasuringProtocol:
        return MeasuringProtocol(
            runtime=f"Core ML through coremltools {coremltools_version()} model runner",
            device=phone.model,
            system=phone.system,
            compute_units=COMPUTE_UNITS[self.units],
            precision=precision,
            io=io,
            threads=None,
            warmup=self.timing.warmup,
            rule=f"{self.timing.rule}, one prediction every few seconds",
        )


def _refuse_pictures(package: Package) -> None:
    pictures = [given.name for given in package.inputs if given.is_image]
    if pictures:
        rule = "takes a picture, and coremltools' remote devices take arrays alone"
        advice = "convert it with arrays as inputs (coremltools' TensorType), as `mvit-search` does by default"
        raise InputError(f"{package.path.name}: {pictures[0]}", None, rule, advice)
