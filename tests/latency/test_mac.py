"""`mac` with fakes in the place of Core ML: every branch, and the fakes against the installed coremltools."""

import inspect
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from coremltools import ComputeUnit
from coremltools.models import MLModel, compute_device, compute_plan
from coremltools.models.ml_program.experimental import async_wrapper, remote_device
from PIL.Image import Image

from mvit_search.errors import InputError, WorkError
from mvit_search.latency import MacRuntime, Measurement, load_runtime, load_target
from mvit_search.latency.apple.package import read_package
from mvit_search.latency.apple.seam import NEURAL_ENGINE, CoreMl, Host, RemoteCoreMl
from mvit_search.latency.coreml import ConversionSettings
from mvit_search.latency.runtime import Placement
from tests.latency import fake_apple
from tests.latency.fake_apple import LINUX, MAC, Behaviour, PhoneBehaviour, fake_coreml, write_package
from tests.latency.networks import SHORT


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_package(tmp_path_factory.mktemp("mac") / "network.mlpackage")


def runtime(behaviour: Behaviour, units: str = "all", host: Host = MAC) -> MacRuntime:
    return MacRuntime(units, timing=SHORT, host=host, coreml=lambda: fake_coreml(behaviour))


def test_core_mls_own_time_is_what_counts(package: Path) -> None:
    # The first is the warm-up's.
    measurement = runtime(Behaviour(times_ms=(9.0, 1.5, 2.0, 2.5))).measure(package)
    assert (measurement.low_ms, measurement.p50_ms, measurement.high_ms) == (1.5, 2.0, 2.5)
    assert measurement.runs == 3


def test_protocol_says_where_and_how(package: Path) -> None:
    protocol = runtime(Behaviour(), "ane").measure(package).protocol
    assert (protocol.device, protocol.system) == ("Apple M3 (8 cores) in Mac15,3", "macOS 15.1")
    assert protocol.runtime.startswith("Core ML through coremltools 9.")
    assert (protocol.compute_units, protocol.precision, protocol.io) == ("CPU_AND_NE", "fp16", "float32 array")
    assert (protocol.threads, protocol.warmup) == (None, 1)


@pytest.mark.parametrize(
    ("units", "member"), [("all", "ALL"), ("ane", "CPU_AND_NE"), ("gpu", "CPU_AND_GPU"), ("cpu", "CPU_ONLY")]
)
def test_units_are_those_of_the_name(units: str, member: str, package: Path) -> None:
    behaviour = Behaviour()
    assert runtime(behaviour, units).measure(package).protocol.compute_units == member
    assert behaviour.units is ComputeUnit[member]


def test_names_of_the_units() -> None:
    assert [load_runtime(name).name for name in ("mac", "mac:all", "mac:ane")] == ["mac", "mac", "mac:ane"]
    with pytest.raises(InputError, match="compute units 'npu': must be one of all, ane, gpu, cpu; write mac:ane"):
        MacRuntime("npu")


def test_all_on_the_neural_engine_needs_no_note(package: Path) -> None:
    measurement = runtime(Behaviour()).measure(package)
    assert measurement.placement == (Placement(NEURAL_ENGINE, 4, 1.0, 1.0),)
    assert not any("Neural Engine" in note for note in measurement.notes)


def test_what_falls_off_the_neural_engine_is_counted_and_named(package: Path) -> None:
    """The plan has conv, softmax, linear, and a conditional with a reshape inside; constants have no place."""
    behaviour = Behaviour(placed_on=(NEURAL_ENGINE, "CPU", "GPU", NEURAL_ENGINE), costs=(0.5, 0.25, None, 0.25))
    measurement = runtime(behaviour, "ane").measure(package)
    assert measurement.placement == (
        Placement(NEURAL_ENGINE, 2, 0.5, 0.75),
        Placement("CPU", 1, 0.25, 0.25),
        Placement("GPU", 1, 0.25, 0.0),
    )
    fallen = "2 of 4 operators with 25 % of the estimated work are off the Neural Engine: softmax (1) linear (1)"
    assert fallen in measurement.notes
    assert Measurement.of(measurement.document()) == measurement


def test_on_the_processor_alone_nothing_has_fallen_off(package: Path) -> None:
    measurement = runtime(Behaviour(placed_on=("CPU",)), "cpu").measure(package)
    assert [share.unit for share in measurement.placement] == ["CPU"]
    assert not any("Neural Engine" in note for note in measurement.notes)


@pytest.mark.parametrize("behaviour", [Behaviour(plan_error=ValueError("not supported")), Behaviour(program=False)])
def test_no_plan_spoils_no_measurement(behaviour: Behaviour, package: Path) -> None:
    measurement = runtime(behaviour).measure(package)
    assert measurement.placement == ()
    assert any("compute plans need macOS 14.4" in note for note in measurement.notes)


@pytest.mark.parametrize(
    ("kind", "io", "shape"),
    [
        ("float32", "float32 array", (1, 3, 16, 16)), ("float16", "float32 array cast to float16", (1, 3, 16, 16)),
        ("int32", "int32 array", (1, 3, 16, 16)), ("image", "image", (16, 16)),
    ],
)  # fmt: skip
def test_inputs_are_made_as_the_package_wants_them(
    kind: str, io: str, shape: tuple[int, ...], tmp_path: Path
) -> None:  # fmt: skip
    behaviour = Behaviour()
    measurement = runtime(behaviour).measure(write_package(tmp_path / "network.mlpackage", kind))
    assert measurement.protocol.io == io
    assert behaviour.inputs is not None
    (given,) = behaviour.inputs.values()
    if isinstance(given, Image):
        assert (given.mode, given.size) == ("RGB", shape)
    else:
        # On a Mac coremltools makes fp32 of fp16 itself.
        assert (given.shape, given.dtype) == (shape, np.int32 if kind == "int32" else np.float32)


def test_package_that_cannot_be_fed_is_refused(package: Path) -> None:
    spec = MLModel(str(package), skip_model_load=True).get_spec()
    spec.description.input[0].type.stringType.SetInParent()
    with pytest.raises(InputError, match=r"network.mlpackage: image: .*cannot be made up \(stringType\)"):
        read_package(package, reads_as(spec))
    spec.description.state.add()
    with pytest.raises(InputError, match=r"network.mlpackage: keeps state between predictions"):
        read_package(package, reads_as(spec))


def reads_as(spec: Any) -> Any:
    """In the place of `MLModel`: every package has that specification."""
    return lambda path, skip_model_load: SimpleNamespace(get_spec=lambda: spec)


def test_failures_of_core_ml_are_work_errors(package: Path) -> None:
    failing = Behaviour(predict_error=RuntimeError("Error compiling model"))
    with pytest.raises(WorkError, match=r"Core ML could not run network.mlpackage \(Error compiling model\)"):
        runtime(failing).measure(package)
    with pytest.raises(WorkError, match="did not say how long"):
        runtime(Behaviour(times_ms=(None,))).measure(package)


def test_other_systems_are_told_what_to_do(package: Path) -> None:
    message = (
        "mac: needs macOS 13 or newer, and this is Linux; convert here and measure on a Mac: "
        "`mvit-search measure --plan` writes packages for one"
    )
    for act in (
        runtime(Behaviour(), host=LINUX).require_device,
        lambda: runtime(Behaviour(), host=LINUX).measure(package),
    ):
        with pytest.raises(InputError, match=message):
            act()
    with pytest.raises(InputError, match=r"mac:ane: needs macOS 13 or newer, and this is macOS 12\.6"):
        runtime(Behaviour(), "ane", Host("Darwin", (12, 6), "M1")).require_device()
    runtime(Behaviour(), host=Host("Darwin", (13,), "M1")).require_device()


@pytest.mark.skipif(Host.here().system == "Darwin", reason="this is a Mac")
@pytest.mark.parametrize("name", ["mac", "mac:ane", "iphone"])
def test_target_is_refused_before_any_work_where_there_is_no_mac(name: str) -> None:
    with pytest.raises(InputError, match=f"{name}: needs macOS 1"):
        load_target(name)


def test_identity_has_what_a_run_is_pinned_to() -> None:
    plain = runtime(Behaviour())
    assert plain.identity.startswith("mac-coremltools-9.")
    assert "-paper-iOS15-array-warmup-1-" in plain.identity
    other = MacRuntime(timing=SHORT, conversion=ConversionSettings(layout="ane"), host=MAC)
    assert "-ane-iOS15-" in other.identity
    newer = Host("Darwin", (15, 2), MAC.chip)
    assert len({plain.identity, other.identity, runtime(Behaviour(), host=newer).identity}) == 3


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    """Names, kinds and defaults; types may be narrower in a fake."""
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


def compared() -> Iterator[tuple[Any, Any, str]]:
    """Fake class, real class, and each name that the runtimes call."""
    phone = PhoneBehaviour(Behaviour(), [])
    classes = (
        (fake_apple.fake_mlmodel_class(Behaviour()), MLModel,
         ("__init__", "get_spec", "predict", "get_compiled_model_path", "last_predict_duration_in_nano_seconds")),
        (fake_apple.fake_plan_class(Behaviour()), compute_plan.MLComputePlan,
         ("load_from_path", "model_structure", "get_compute_device_usage_for_mlprogram_operation",
          "get_estimated_cost_for_mlprogram_operation")),
        (fake_apple.fake_device_class(phone), remote_device.Device, ("get_devices", "prepare_for_model_debugging")),
        (fake_apple.fake_async_model_class(phone), async_wrapper.MLModelAsyncWrapper,
         ("from_spec_or_path", "load", "unload", "predict", "retrieve_compute_plan",
          "last_predict_duration_in_nano_seconds")),
        (fake_apple.FakeSession, remote_device._AppSession, ("is_alive", "stop")),
    )  # fmt: skip
    for fake, real, names in classes:
        yield from ((fake, real, name) for name in names)


@pytest.mark.parametrize(
    ("fake", "real", "name"), list(compared()), ids=lambda value: getattr(value, "__name__", value)
)
def test_the_fakes_have_the_signatures_of_coremltools(fake: Any, real: Any, name: str) -> None:
    ours, theirs = inspect.getattr_static(fake, name), inspect.getattr_static(real, name)
    assert type(ours) is type(theirs)
    if isinstance(theirs, property):
        return
    ours, theirs = getattr(fake, name), getattr(real, name)
    assert inspect.iscoroutinefunction(ours) is inspect.iscoroutinefunction(theirs)
    ours, theirs = parameters(ours), parameters(theirs)
    if name == "predict":  # the abstract method of the wrapper has no default for state, the ones on devices have
        ours, theirs = [(p[0], p[1]) for p in ours], [(p[0], p[1]) for p in theirs]  # type: ignore[misc]
    assert ours == theirs


def test_data_classes_and_enumerations_are_as_they_are_used() -> None:
    assert set(fake_apple.phone_facts()) == {field.name for field in fields(remote_device.Device)}
    credentials = {"development_team", "provisioning_profile_uuid", "bundle_identifier"}
    assert credentials == {field.name for field in fields(remote_device.AppSigningCredentials)}
    assert {field.name for field in fields(compute_plan.MLComputePlanDeviceUsage)} >= {"preferred_compute_device"}
    assert {field.name for field in fields(compute_plan.MLComputePlanCost)} == {"weight"}
    assert {member.name for member in ComputeUnit} == {"ALL", "CPU_ONLY", "CPU_AND_GPU", "CPU_AND_NE"}


def test_installed_coremltools_has_every_name() -> None:
    remote = RemoteCoreMl.installed()
    assert remote.local == CoreMl.installed()
    assert remote.local.mlmodel is MLModel
    assert remote.local.unit_classes[NEURAL_ENGINE] is compute_device.MLNeuralEngineComputeDevice
    assert remote.async_model is async_wrapper.MLModelAsyncWrapper


def test_missing_coremltools_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "coremltools", None)
    for installed in (CoreMl.installed, RemoteCoreMl.installed):
        with pytest.raises(InputError, match=r"coremltools: needs coremltools, which is not installed; pip install"):
            installed()
