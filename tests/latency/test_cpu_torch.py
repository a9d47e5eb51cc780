"""`cpu-torch`: what it reads and writes, and what it leaves as it was."""

import json
from pathlib import Path

import pytest
import torch

from mvit_search.errors import InputError, WorkError
from mvit_search.latency import CpuTorchRuntime, TimingSettings, load_target
from mvit_search.latency.cpu_torch import read_network
from tests.latency.networks import SHORT, TINY


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "network.json"
    CpuTorchRuntime().write(TINY, 4, path)
    return path


def test_cpu_is_another_name_of_it() -> None:
    assert load_target("cpu").name == "cpu-torch"
    assert load_target("cpu").calibration == load_target("cpu-torch").calibration


def test_file_is_the_config_and_its_class_count(network: Path) -> None:
    assert read_network(network) == (TINY, 4)
    assert json.loads(network.read_text())["config"]["image_size"] == [32, 32]


def test_median_and_percentiles_of_an_injected_clock(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of 1, 2, ... 11 ms."""
    monkeypatch.setattr("mvit_search.latency.surroundings.reference_loop", lambda clock: lambda: 1.0)
    now, run_ms = 0.0, 0

    def run(network: torch.nn.Module, image: torch.Tensor) -> torch.Tensor:
        nonlocal now, run_ms
        if torch.is_inference_mode_enabled():  # else it is being built
            run_ms += 1
            now += run_ms * 1e-3
        return image

    monkeypatch.setattr("mvit_search.architecture.network.MobileViT.forward", run)
    timing = TimingSettings(warmup=0, min_runs=11, max_seconds=0.066)
    measurement = CpuTorchRuntime(threads=1, timing=timing, clock=lambda: now).measure(network)
    assert (measurement.p10_ms, measurement.p50_ms, measurement.p90_ms) == pytest.approx((2, 6, 10))
    assert measurement.latency("cpu-torch").source.split("; ")[0].endswith("CPU, 1 thread, median of 11")


def test_threads_and_random_state_are_left_as_they_were(network: Path) -> None:
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    CpuTorchRuntime(threads=threads + 1, timing=SHORT).measure(network)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not torch.is_inference_mode_enabled()


def test_runs_on_the_threads_it_says(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()

    def run(network: torch.nn.Module, image: torch.Tensor) -> torch.Tensor:
        if torch.is_inference_mode_enabled():  # else it is being built
            seen.add(torch.get_num_threads())
        return image

    monkeypatch.setattr("mvit_search.architecture.network.MobileViT.forward", run)
    measurement = CpuTorchRuntime(threads=3, timing=SHORT).measure(network)
    assert seen == {measurement.protocol.threads} == {3}


def test_failure_is_a_work_error_and_restores_the_threads(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("mvit_search.architecture.network.MobileViT.forward", fails)
    threads = torch.get_num_threads()
    with pytest.raises(WorkError, match="out of memory"):
        CpuTorchRuntime(threads=threads + 1).measure(network)
    assert torch.get_num_threads() == threads


def test_protocol_is_in_the_identity() -> None:
    one, two = CpuTorchRuntime(threads=1), CpuTorchRuntime(threads=2)
    assert one.identity != two.identity
    assert "threads-1" in one.identity
    assert one.protocol.digest in one.identity
    assert "1 thread," in one.protocol.words
    assert "2 threads," in two.protocol.words


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "must hold the keys 'config' and 'num_classes'"),
        ('{"config": {}}', "must hold the keys"),
        ('{"config": {}, "num_classes": 0}', "num_classes 0: must be a whole number from 1"),
        ('{"config": {}, "num_classes": true}', "num_classes True: must be a whole number"),
        ('{"config": {}, "num_classes": 4}', "stages: is required"),
    ],
)
def test_file_that_is_no_network_is_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "network.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        CpuTorchRuntime().measure(path)


def test_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        CpuTorchRuntime().write(TINY, 4, tmp_path / "missing" / "network.json")


def test_no_threads_are_refused() -> None:
    with pytest.raises(InputError, match="threads 0: must be at least 1"):
        CpuTorchRuntime(threads=0)
