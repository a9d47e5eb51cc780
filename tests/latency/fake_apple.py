"""Stand-ins for what coremltools does on Apple hardware alone, with the signatures of coremltools 9.0.

`test_the_fakes_have_the_signatures_of_coremltools` compares them with the installed package. What coremltools does
everywhere (enumerations, data classes, reading a package) is its own.
"""

import contextlib
import gc
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
from coremltools import ComputeUnit
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types
from coremltools.models import compute_device, compute_plan
from coremltools.models.ml_program.experimental.remote_device import (
    AppSigningCredentials,
    Device,
    DeviceState,
    DeviceType,
)

from mvit_search.latency.apple.seam import NEURAL_ENGINE, CoreMl, Host, RemoteCoreMl

MAC = Host("Darwin", (15, 1), "Apple M3 (8 cores) in Mac15,3")
LINUX = Host("Linux", (), "a processor")
UDID = "00008120-001A2B3C4D5E6F70"
UNITS = {
    NEURAL_ENGINE: compute_device.MLNeuralEngineComputeDevice,
    "GPU": compute_device.MLGPUComputeDevice,
    "CPU": compute_device.MLCPUComputeDevice,
}


@dataclass
class Behaviour:
    """What the fakes do; a test changes it."""

    times_ms: Sequence[float | None] = (2.0,)
    placed_on: Sequence[str] = (NEURAL_ENGINE,)
    costs: Sequence[float | None] = (0.5,)
    plan_error: Exception | None = None
    predict_error: Exception | None = None
    program: bool = True
    predictions: int = 0
    inputs: dict[str, Any] | None = None
    units: ComputeUnit | None = None

    def predict(self, data: dict[str, Any]) -> float | None:
        """The time of the next prediction."""
        if self.predict_error:
            raise self.predict_error
        self.inputs, self.predictions = data, self.predictions + 1
        return self.times_ms[(self.predictions - 1) % len(self.times_ms)]


def nanoseconds(time_ms: float | None) -> int | None:
    return None if time_ms is None else round(time_ms * 1e6)


def fake_plan_class(behaviour: Behaviour) -> type:
    class FakeComputePlan:
        """`compute_plan.MLComputePlan` of a program whose operators lie where `behaviour.placed_on` says."""

        @classmethod
        def load_from_path(cls, path: str, compute_units: ComputeUnit = ComputeUnit.ALL) -> "FakeComputePlan":
            if behaviour.plan_error:
                raise behaviour.plan_error
            return cls()

        def __init__(self, proxy: Any = None) -> None:
            self._operations = [operation(name) for name in ("ios15.conv", "softmax", "ios15.linear", "reshape")]
            self._constant = operation("const")

        @property
        def model_structure(self) -> compute_plan.MLModelStructure:
            inner = compute_plan.MLModelStructureProgramBlock([], [self._operations[-1]], [])
            outer = operation("cond", [inner])
            block = compute_plan.MLModelStructureProgramBlock([], [self._constant, *self._operations[:-1], outer], [])
            function = compute_plan.MLModelStructureProgramFunction([], block)
            program = compute_plan.MLModelStructureProgram({"main": function}) if behaviour.program else None
            return compute_plan.MLModelStructure(None, program, None)

        def get_compute_device_usage_for_mlprogram_operation(
            self, operation: Any
        ) -> compute_plan.MLComputePlanDeviceUsage | None:
            index = self._index(operation)
            if index is None:
                return None
            device = bare(UNITS[behaviour.placed_on[index % len(behaviour.placed_on)]])
            return compute_plan.MLComputePlanDeviceUsage(device, [device])

        def get_estimated_cost_for_mlprogram_operation(self, operation: Any) -> compute_plan.MLComputePlanCost | None:
            index = self._index(operation)
            cost = None if index is None else behaviour.costs[index % len(behaviour.costs)]
            return None if cost is None else compute_plan.MLComputePlanCost(cost)

        def _index(self, wanted: Any) -> int | None:
            return next((i for i, known in enumerate(self._operations) if known is wanted), None)

    return FakeComputePlan


def fake_mlmodel_class(behaviour: Behaviour) -> type:
    class FakeMLModel:
        """`models.MLModel`: reads a package as the real one does, and predicts as `behaviour` says."""

        def __init__(
            self, model: Any, is_temp_package: bool = False, mil_program: Any = None, skip_model_load: bool = False,
            compute_units: ComputeUnit = ComputeUnit.ALL, weights_dir: Any = None, function_name: Any = None,
            optimization_hints: dict[str, Any] | None = None,
        ) -> None:  # fmt: skip
            self._real = ct.models.MLModel(model, skip_model_load=True)
            self._loaded, self._last_ms = not skip_model_load, None
            behaviour.units = compute_units

        def get_spec(self) -> Any:
            return self._real.get_spec()

        def get_compiled_model_path(self) -> str:
            assert self._loaded
            return "network.mlmodelc"

        def predict(self, data: dict[str, Any], state: Any = None) -> dict[str, Any]:
            assert self._loaded
            self._last_ms = behaviour.predict(data)
            return {}

        @property
        def last_predict_duration_in_nano_seconds(self) -> int | None:
            return nanoseconds(self._last_ms)

    return FakeMLModel


class FakeSession:
    """`remote_device._AppSession`: the app on the phone."""

    def __init__(self) -> None:
        self.alive, self.stopped = True, False

    def is_alive(self) -> bool:
        return self.alive

    def stop(self) -> None:
        self.stopped = True


def fake_device_class(behaviour: "PhoneBehaviour") -> type:
    class FakeDevice(Device):
        """`remote_device.Device`, whose phones are `behaviour.devices`."""

        @staticmethod
        def get_devices() -> list[Any]:
            if behaviour.list_error:
                raise behaviour.list_error
            return [FakeDevice(**facts) for facts in behaviour.devices]

        async def prepare_for_model_debugging(
            self, credentials: AppSigningCredentials | None = None, working_directory: Path | None = None,
            clean: bool = False,
        ) -> Any:  # fmt: skip
            if behaviour.prepare_error:
                raise behaviour.prepare_error
            behaviour.prepared.append((credentials, working_directory, clean))
            facts = {name: getattr(self, name) for name in self.__dataclass_fields__}
            return FakeDevice(**{**facts, "session": FakeSession()})

    return FakeDevice


def fake_async_model_class(behaviour: "PhoneBehaviour") -> type:
    class FakeAsyncModel:
        """`async_wrapper.MLModelAsyncWrapper` of a model on a phone."""

        @staticmethod
        def from_spec_or_path(
            spec_or_path: Any, weights_dir: str, compute_units: ComputeUnit = ComputeUnit.ALL,
            function_name: str | None = None, optimization_hints: dict[str, Any] | None = None, device: Any = None,
        ) -> "FakeAsyncModel":  # fmt: skip
            assert isinstance(spec_or_path, str)
            assert isinstance(weights_dir, str)
            assert device.session.is_alive()
            behaviour.model.units = compute_units
            return FakeAsyncModel()

        def __init__(self) -> None:
            self._last_ms: float | None = None

        async def load(self) -> None:
            behaviour.loaded += 1

        async def unload(self) -> None:
            behaviour.loaded -= 1

        async def predict(self, inputs: dict[str, Any], state: Any = None) -> dict[str, Any]:
            self._last_ms = behaviour.model.predict(inputs)
            return {}

        async def retrieve_compute_plan(self) -> Any:
            return fake_plan_class(behaviour.model).load_from_path("on the phone")  # type: ignore[attr-defined]

        @property
        def last_predict_duration_in_nano_seconds(self) -> int | None:
            return nanoseconds(self._last_ms)

    return FakeAsyncModel


@dataclass
class PhoneBehaviour:
    """What the fake phones do, and what was asked of them."""

    model: Behaviour
    devices: list[dict[str, Any]]
    list_error: Exception | None = None
    prepare_error: Exception | None = None
    prepared: list[Any] | None = None  # type: ignore[assignment]
    loaded: int = 0

    def __post_init__(self) -> None:
        self.prepared = []


def phone_facts(**changes: Any) -> dict[str, Any]:
    """The fields of a connected `remote_device.Device`."""
    facts = {
        "name": "its owner's phone", "type": DeviceType.IPHONE, "identifier": "11111111-2222-3333-4444-555555555555",
        "udid": UDID, "os_version": "17.5", "os_build_number": "21F79", "developer_mode_state": "enabled",
        "state": DeviceState.CONNECTED, "session": None,
    }  # fmt: skip
    return {**facts, **changes}


def devicectl_details(identifier: str = phone_facts()["identifier"], reality: str = "physical") -> list[dict[str, Any]]:
    """A device of `devicectl list devices --json-output`, as far as it is read."""
    hardware = {"marketingName": "iPhone 14 Pro", "productType": "iPhone15,2", "reality": reality}
    return [{"identifier": identifier, "hardwareProperties": hardware}]


def fake_coreml(behaviour: Behaviour) -> CoreMl:
    return CoreMl(fake_mlmodel_class(behaviour), ComputeUnit, fake_plan_class(behaviour), UNITS)


def fake_remote(behaviour: PhoneBehaviour) -> RemoteCoreMl:
    return RemoteCoreMl(
        device=fake_device_class(behaviour),
        credentials=AppSigningCredentials,
        device_type=DeviceType,
        device_state=DeviceState,
        async_model=fake_async_model_class(behaviour),
        local=fake_coreml(behaviour.model),
    )


def operation(name: str, blocks: Sequence[Any] = ()) -> compute_plan.MLModelStructureProgramOperation:
    return compute_plan.MLModelStructureProgramOperation(
        inputs={}, operator_name=name, outputs=[], blocks=list(blocks), __proxy__=None
    )


def bare(kind: type) -> Any:
    """A compute device without the proxy that macOS gives it."""
    return object.__new__(kind)


def write_package(path: Path, kind: str = "float32") -> Path:
    """A program of a few operators, of fp16, that takes `kind`: `image`, `float32`, `float16` or `int32`."""
    target = ct.target.iOS16 if kind == "float16" else ct.target.iOS15
    element = {"float16": types.fp16, "int32": types.int32}.get(kind, types.fp32)

    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 3, 16, 16), dtype=element)], opset_version=target)
    def program(image: Any) -> Any:
        if kind == "int32":
            image = mb.cast(x=image, dtype="fp32")
        return mb.relu(x=mb.mul(x=image, y=element_two(kind)))

    inputs = [ct.ImageType(name="image", shape=(1, 3, 16, 16))] if kind == "image" else None
    # coremltools warns of ranges, and of its own temporary folder when that goes.
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        model = ct.convert(
            program, convert_to="mlprogram", inputs=inputs, minimum_deployment_target=target, skip_model_load=True
        )
        model.save(str(path))
        del model
        gc.collect()
    return path


def element_two(kind: str) -> np.floating[Any]:
    return np.float16(2) if kind == "float16" else np.float32(2)
