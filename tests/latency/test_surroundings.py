"""What the processor did besides, with readings of the test's and this machine's own."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from mvit_search.latency import surroundings
from mvit_search.latency.surroundings import Surroundings, others_seconds, reference_loop


def remarks(
    *, seconds: float = 2.0, reference_ms: Sequence[float] = (2, 2), others: Sequence[float | None] = (7, 7)
) -> tuple[str, ...]:
    """Those of two cores over `seconds`, with what is read before and after."""
    clock, pace, used = iter((5.0, 5.0 + seconds)), iter(reference_ms), iter(others)
    around = Surroundings(
        lambda: next(clock), reference_ms=lambda: next(pace), others=lambda: next(used), cores=2
    )  # fmt: skip
    return around.remarks()


def test_quiet_machine_needs_no_remark() -> None:
    assert remarks() == ()
    assert remarks(reference_ms=(2, 2.1), others=(7, 7.3)) == ()


def test_processor_that_changed_its_pace_is_told() -> None:
    slower = ("the processor itself was 30 % slower after the runs than before",)
    assert remarks(reference_ms=(2.0, 2.6)) == slower
    assert remarks(reference_ms=(2.0, 1.5)) == (slower[0].replace("30 % slower", "25 % faster"),)


def test_share_of_others_is_of_all_cores() -> None:
    assert remarks(others=(7, 8)) == ("other processes took 25 % of the processor meanwhile",)


@pytest.mark.parametrize(("others", "seconds"), [((None, None), 2.0), ((7.0, None), 2.0), ((7.0, 9.0), 0.0)])
def test_what_is_not_told_is_not_remarked(others: Sequence[float | None], seconds: float) -> None:
    assert remarks(others=others, seconds=seconds) == ()


def test_reference_loop_takes_some_time() -> None:
    assert 0.05 < reference_loop()() < 1000


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_own_work_is_not_that_of_others() -> None:
    """Others may well be busy, but on no more cores than there are."""
    begin, used_before = time.perf_counter(), others_seconds()
    while time.perf_counter() - begin < 0.2:
        pass
    used = others_seconds()
    assert used is not None
    assert used_before is not None
    ticks = 0.1  # both counters are rounded
    assert -ticks <= used - used_before <= (surroundings.os.cpu_count() or 1) * (time.perf_counter() - begin) + ticks


@pytest.mark.parametrize("content", [None, "", "cpu  a b", "cpu  1 2 3"])
def test_system_that_does_not_tell(content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = tmp_path / "stat"
    if content is not None:
        stat.write_text(content)
    monkeypatch.setattr(surroundings, "_STAT", stat)
    assert others_seconds() is None


def test_seconds_of_others_are_all_but_idle_and_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 10 20 9999 9999 1 2 3 50 50\ncpu0 1 1 1 1\n")
    monkeypatch.setattr(surroundings, "_STAT", stat)
    monkeypatch.setattr(surroundings.os, "sysconf", lambda name: 100)
    monkeypatch.setattr(surroundings.time, "process_time", lambda: 0.36)
    assert others_seconds() == pytest.approx(1.0)
