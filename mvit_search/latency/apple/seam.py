"""What is used of Apple's systems and of coremltools to measure, as small objects that tests put fakes in place of.

Written against the source of coremltools 9.0. None of it has run on Apple hardware: tests drive it with fakes, and
compare the fakes' signatures with the installed package.
"""

import logging
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from typing import Any

from mvit_search.errors import InputError
from mvit_search.latency import machine
from mvit_search.latency.coreml import ConversionSettings

DEFAULT_CONVERSION = ConversionSettings()
COMPUTE_UNITS: Mapping[str, str] = {
    "all": "ALL", "ane": "CPU_AND_NE", "gpu": "CPU_AND_GPU", "cpu": "CPU_ONLY",
}  # fmt: skip
"""Word in a target's name -> member of `coremltools.ComputeUnit`."""

NEURAL_ENGINE = "Neural Engine"
ELSEWHERE = (
    "convert here and measure on a Mac: `mvit-search measure --plan` writes packages for one, and "
    "`mvit-search device serve` on it takes them from here"
)
_PIP = "pip install 'coremltools>=9.0,<10'"


@dataclass(frozen=True)
class Host:
    """The machine that measures.

    Attributes:
        system: as `platform.system()` says: `Darwin`, `Linux`, ...
        version: macOS' version, (15, 1); empty elsewhere.
        chip: name of its chip, for people.
    """

    system: str
    version: tuple[int, ...]
    chip: str

    @classmethod
    def here(cls) -> "Host":
        """This machine."""
        version = tuple(int(part) for part in platform.mac_ver()[0].split(".") if part.isdigit())
        model = machine.sysctl("hw.model") if version else ""
        return cls(platform.system(), version, machine.processor() + (f" in {model}" if model else ""))

    @property
    def words(self) -> str:
        """`macOS 15.1`, or what runs here instead."""
        return f"macOS {'.'.join(map(str, self.version))}" if self.version else self.system

    def require_macos(self, target: str, oldest: int) -> None:
        """Require macOS of that major version or newer.

        Raises:
            InputError: with what to do instead.
        """
        if self.system != "Darwin" or self.version < (oldest,):
            rule = f"needs macOS {oldest} or newer, and this is {self.words}"
            raise InputError(target, None, rule, ELSEWHERE)


@dataclass(frozen=True)
class CoreMl:
    """The names of coremltools that measuring on a Mac calls.

    Attributes:
        mlmodel: `coremltools.models.MLModel`.
        compute_unit: `coremltools.ComputeUnit`.
        compute_plan: `coremltools.models.compute_plan.MLComputePlan`.
        unit_classes: word for a unit -> its class in `coremltools.models.compute_device`.
    """

    mlmodel: Any
    compute_unit: Any
    compute_plan: Any
    unit_classes: Mapping[str, Any]

    @classmethod
    def installed(cls) -> "CoreMl":
        """Those of the installed package; importing takes seconds.

        Raises:
            InputError: coremltools is not installed.
        """
        _quieten()
        try:
            import coremltools
            from coremltools.models import compute_device
            from coremltools.models.compute_plan import MLComputePlan
        except ModuleNotFoundError as error:
            raise _not_installed(error.name) from None
        return cls(
            mlmodel=coremltools.models.MLModel,
            compute_unit=coremltools.ComputeUnit,
            compute_plan=MLComputePlan,
            unit_classes={
                NEURAL_ENGINE: compute_device.MLNeuralEngineComputeDevice,
                "GPU": compute_device.MLGPUComputeDevice,
                "CPU": compute_device.MLCPUComputeDevice,
            },
        )


@dataclass(frozen=True)
class RemoteCoreMl:
    """The names of `coremltools.models.ml_program.experimental` that measuring on a phone calls.

    Attributes:
        device: `remote_device.Device`.
        credentials: `remote_device.AppSigningCredentials`.
        device_type, device_state: enumerations of `remote_device`.
        async_model: `async_wrapper.MLModelAsyncWrapper`.
        local: what is used for phones and Macs alike.
    """

    device: Any
    credentials: Any
    device_type: Any
    device_state: Any
    async_model: Any
    local: CoreMl

    @classmethod
    def installed(cls) -> "RemoteCoreMl":
        """Those of the installed package.

        Raises:
            InputError: coremltools is not installed, or one without remote devices.
        """
        local = CoreMl.installed()
        try:
            from coremltools.models.ml_program.experimental import async_wrapper, remote_device
        except ModuleNotFoundError as error:
            raise _not_installed(error.name) from None
        return cls(
            device=remote_device.Device,
            credentials=remote_device.AppSigningCredentials,
            device_type=remote_device.DeviceType,
            device_state=remote_device.DeviceState,
            async_model=async_wrapper.MLModelAsyncWrapper,
            local=local,
        )


def require_units(target: str, units: str) -> None:
    """Raises InputError for a word that is not in `COMPUTE_UNITS`."""
    if units not in COMPUTE_UNITS:
        raise InputError("compute units", units, f"must be one of {', '.join(COMPUTE_UNITS)}", f"write {target}:ane")


def runtime_name(target: str, units: str) -> str:
    """`mac` for all units, else `mac:ane`."""
    return target if units == "all" else f"{target}:{units}"


def conversion_word(conversion: ConversionSettings) -> str:
    """What is converted, as part of an identity."""
    return f"{conversion.layout}-{conversion.deployment_target}-{conversion.input}"


def coremltools_version() -> str:
    """Without importing it.

    Raises:
        InputError: it is not installed.
    """
    try:
        return installed_version("coremltools")
    except PackageNotFoundError:
        raise _not_installed("coremltools") from None


def _quieten() -> None:
    # Elsewhere than on a Mac, importing it says seven times that a library of macOS is not there.
    logging.getLogger("coremltools").setLevel(logging.ERROR)


def _not_installed(module: str | None) -> InputError:
    return InputError("coremltools", None, f"needs {module}, which is not installed", _PIP)
