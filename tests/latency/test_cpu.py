"""The measured target: what it returns, and what it leaves as it was."""

from collections.abc import Callable
from itertools import count

import pytest
import torch

from mvit_search.architecture import ConvStage, MobileViTConfig, MobileViTStage
from mvit_search.errors import InputError, WorkError
from mvit_search.latency import CpuTarget

TINY = MobileViTConfig(
    image_size=(32, 32),
    stages=(ConvStage(out_channels=8), MobileViTStage(out_channels=16, transformer_dim=16, num_layers=1)),
)


def ticks(*steps: float) -> Callable[[], float]:
    """A clock that advances by each step in turn, and by the last one from then on."""
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += steps[min(next(calls), len(steps) - 1)]
        return now

    calls = count()
    return clock


def test_median_and_percentiles_of_an_injected_clock() -> None:
    # Two readings a run; the first reading starts the whole. Runs of 1, 2, ... 11 ms.
    steps = [0.0] + [step for run in range(1, 12) for step in (0.0, run * 1e-3)]
    target = CpuTarget(threads=1, warmup=0, repeats=11, seconds=0, clock=ticks(*steps))
    latency = target.latency(TINY, num_classes=4)
    assert (latency.low_ms, latency.ms, latency.high_ms) == pytest.approx((2, 6, 10))
    assert latency.source.startswith("measured: cpu, torch 2.")
    assert latency.source.endswith("1 thread, median of 11")


def test_repeats_until_the_time_is_over() -> None:
    # Each reading is 1/64 s after the last, so a run ends 2/64 s after the one before (exact in binary).
    target = CpuTarget(threads=1, warmup=0, repeats=3, seconds=10 / 64, clock=ticks(1 / 64))
    assert target.latency(TINY, num_classes=4).source.endswith("median of 5")


def test_threads_and_random_state_are_left_as_they_were() -> None:
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    CpuTarget(threads=threads + 1, warmup=0, repeats=2, seconds=0).latency(TINY, num_classes=4)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not torch.is_inference_mode_enabled()


def test_failure_is_a_work_error_and_restores_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("mvit_search.architecture.network.MobileViT.forward", fails)
    threads = torch.get_num_threads()
    with pytest.raises(WorkError, match="out of memory"):
        CpuTarget(threads=threads + 1).latency(TINY)
    assert torch.get_num_threads() == threads


def test_protocol_is_in_the_calibration() -> None:
    assert CpuTarget(threads=1).calibration != CpuTarget(threads=2).calibration
    assert "threads-1" in CpuTarget(threads=1).calibration
    assert "1 thread;" in CpuTarget(threads=1).protocol
    assert "2 threads;" in CpuTarget(threads=2).protocol


@pytest.mark.parametrize(
    ("field", "value"),
    [("threads", 0), ("warmup", -1), ("repeats", 1), ("seconds", -1.0), ("seconds", float("nan"))],
)
def test_numbers_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(InputError, match=field):
        CpuTarget(**{field: value})  # type: ignore[arg-type]
