"""The contract of every runtime: those of this processor as they are, Apple's with fakes in their devices' place."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from mvit_search.errors import InputError
from mvit_search.latency import (
    CpuOnnxRuntime,
    CpuTorchRuntime,
    IPhoneRuntime,
    LocalRuntime,
    MacRuntime,
    MeasuredTarget,
    Measurement,
    load_runtime,
    runtime_names,
)
from mvit_search.latency.apple.phones import PhoneSettings
from tests.latency.fake_apple import (
    MAC,
    Behaviour,
    PhoneBehaviour,
    devicectl_details,
    fake_coreml,
    fake_remote,
    phone_facts,
)
from tests.latency.networks import SHORT, TINY

QUICK: dict[str, Callable[[], LocalRuntime]] = {
    "cpu-torch": lambda: CpuTorchRuntime(threads=1, timing=SHORT),
    "cpu-onnx": lambda: CpuOnnxRuntime(threads=1, timing=SHORT),
    "mac:ane": lambda: MacRuntime("ane", timing=SHORT, host=MAC, coreml=lambda: fake_coreml(Behaviour())),
    "iphone": lambda: IPhoneRuntime(
        timing=SHORT, settings=PhoneSettings(team_id="A1B2C3D4E5"), host=MAC, details=devicectl_details,
        remote=lambda: fake_remote(PhoneBehaviour(Behaviour(), [phone_facts()])),
    ),
}  # fmt: skip


@pytest.fixture(params=QUICK)
def runtime(request: pytest.FixtureRequest) -> LocalRuntime:
    return QUICK[request.param]()


@pytest.mark.parametrize("name", runtime_names())
def test_every_runtime_is_made_by_its_name_without_its_device(name: str) -> None:
    assert load_runtime(name).name == name
    assert load_runtime(name).suffix in (".json", ".onnx", ".mlpackage")
    assert name.partition(":")[0] in {quick.partition(":")[0] for quick in QUICK}, "a runtime outside this contract"


def test_what_is_written_is_measured(runtime: LocalRuntime, tmp_path: Path) -> None:
    runtime.require_device()
    path = tmp_path / f"network{runtime.suffix}"
    runtime.write(TINY, 4, path)
    measurement = runtime.measure(path)
    assert 0 < measurement.p10_ms <= measurement.p50_ms <= measurement.p90_ms
    assert measurement.low_ms <= measurement.p50_ms <= measurement.high_ms
    assert measurement.runs >= 3
    assert Measurement.of(json.loads(json.dumps(measurement.document()))) == measurement
    empty = {name for name, value in asdict(measurement.protocol).items() if value in ("", None)}
    assert empty <= {"threads"}
    assert measurement.protocol.warmup == SHORT.warmup
    assert SHORT.rule in measurement.protocol.rule


def test_file_of_another_kind_is_refused(runtime: LocalRuntime, tmp_path: Path) -> None:
    for content in (b"", b"{}", b"no network"):
        path = tmp_path / f"network{runtime.suffix}"
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"network|must hold"):
            runtime.measure(path)
    with pytest.raises(InputError):
        runtime.measure(tmp_path / f"missing{runtime.suffix}")


def test_identity_is_one_word_that_keeps(runtime: LocalRuntime) -> None:
    assert runtime.identity.startswith(f"{runtime.name}-")
    assert SHORT.word in runtime.identity
    assert not set(runtime.identity) & set(" /\n")
    assert runtime.identity == QUICK[runtime.name]().identity


def test_as_a_target_it_gives_a_measured_latency(runtime: LocalRuntime) -> None:
    target = MeasuredTarget(runtime)
    latency = target.latency(TINY, num_classes=4)
    assert latency.source.startswith("measured: ")
    assert latency.target == target.name == runtime.name
    assert target.measured
    assert target.calibration == runtime.identity
    assert "batch 1" in latency.protocol


def test_measurement_that_cannot_be_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "network.json"
    runtime = QUICK["cpu-torch"]()
    runtime.write(TINY, 4, path)
    good = runtime.measure(path)
    for field, value in (("p50_ms", float("nan")), ("p10_ms", 0.0), ("high_ms", float("inf")), ("runs", 0)):
        with pytest.raises(InputError, match=f"measurement: {field} .*must be finite and above zero"):
            replace(good, **{field: value})
    with pytest.raises(InputError, match=r"measurement: p50_ms .*must lie between p10_ms and p90_ms"):
        replace(good, p10_ms=2 * good.p90_ms)
    document = good.document()
    for broken in ({**document, "extra": 1}, {**document, "protocol": {}}, {"p50_ms": 1.0}, [document]):
        with pytest.raises(TypeError):
            Measurement.of(broken)  # type: ignore[arg-type]
