"""The timing loop on clocks of the test's: does the interval hold the median, and is drift noticed?"""

import math
import random
from collections.abc import Callable, Iterator
from itertools import count
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvit_search.errors import InputError, WorkError
from mvit_search.latency import MeasuringProtocol
from mvit_search.latency.timing import (
    TimingSettings,
    drift_percent,
    median_interval,
    time_runs,
    timed,
)

PROTOCOL = MeasuringProtocol("a runtime 1.0", "a device", "a system 1", "CPU", "fp32", "float32 array", 1, 2, "a rule")
TRUE_MS = 10.0
times = st.lists(st.floats(1e-6, 1e6), min_size=3, max_size=200)


def independent(seed: int, spread: float = 0.1) -> Iterator[float]:
    """Run times, log-normal about 10 ms."""
    chance = random.Random(seed)
    return (TRUE_MS * math.exp(chance.gauss(0, spread)) for _ in count())


def in_spells(seed: int, stickiness: float = 0.8) -> Iterator[float]:
    """Run times about 10 ms, each like the one before: a first-order autoregression."""
    chance = random.Random(seed)
    state = chance.gauss(0, 1)
    while True:
        yield TRUE_MS * math.exp(0.1 * state)
        state = stickiness * state + math.sqrt(1 - stickiness**2) * chance.gauss(0, 1)


class Machine:
    """Run times one after another, and a clock that they take up."""

    def __init__(self, times_ms: Iterator[float]) -> None:
        self.now, self.runs, self._times_ms = 0.0, 0, times_ms

    def run_ms(self) -> float:
        self.runs += 1
        time_ms = next(self._times_ms)
        self.now += time_ms / 1e3
        return time_ms

    def clock(self) -> float:
        return self.now


def coverage(
    series: Callable[[int], Iterator[float]], runs: int, interval: Callable[..., tuple[float, float]]
) -> float:
    held = 0
    for seed in range(300):
        source = series(seed)
        low, high = interval([next(source) for _ in range(runs)])
        held += low <= TRUE_MS <= high
    return held / 300


def textbook_interval(times_ms: list[float]) -> tuple[float, float]:
    """Order statistics for independent values."""
    ordered, number = sorted(times_ms), len(times_ms)
    reach = 1.96 * math.sqrt(number) / 2
    return ordered[math.floor(number / 2 - reach) - 1], ordered[math.ceil(number / 2 + reach)]


@pytest.mark.parametrize("runs", [48, 200])
def test_interval_of_independent_runs_holds_the_median_95_times_in_a_hundred(runs: int) -> None:
    assert 0.93 <= coverage(independent, runs, median_interval) <= 0.995


def test_interval_of_runs_in_spells_holds_it_where_the_textbook_one_does_not() -> None:
    assert coverage(in_spells, 400, median_interval) >= 0.89
    assert coverage(in_spells, 400, textbook_interval) <= 0.65


def test_stopping_when_it_looks_narrow_does_not_spoil_the_interval() -> None:
    settings = TimingSettings(warmup=0, min_runs=30, max_seconds=1e6, goal_percent=5)
    held = 0
    for seed in range(200):
        machine = Machine(independent(seed))
        result = time_runs(machine.run_ms, settings, clock=machine.clock).measurement(PROTOCOL)
        assert result.settled
        assert 100 * (result.high_ms - result.low_ms) / result.p50_ms <= 5
        held += result.low_ms <= TRUE_MS <= result.high_ms
    assert held >= 184


@given(times)
def test_interval_is_two_of_the_values_about_the_median(times_ms: list[float]) -> None:
    low, high = median_interval(times_ms)
    assert {low, high} <= set(times_ms)
    assert low <= median(times_ms) <= high


@given(times)
def test_any_runs_make_a_measurement(times_ms: list[float]) -> None:
    machine = Machine(iter(times_ms))
    # The clock stands at the sum of the runs, so the limit is reached with the last run, give or take rounding.
    settings = TimingSettings(warmup=0, min_runs=10**6, max_seconds=0.999999 * sum(times_ms) / 1e3)
    result = time_runs(machine.run_ms, settings, clock=machine.clock).measurement(PROTOCOL)
    assert result.p10_ms <= result.p50_ms <= result.p90_ms
    assert result.runs == machine.runs
    assert not result.settled


def test_percentiles_interval_and_protocol_of_known_runs() -> None:
    machine = Machine(iter([float(ms) for ms in range(1, 12)]))
    settings = TimingSettings(warmup=0, min_runs=11, max_seconds=0.066)
    result = time_runs(machine.run_ms, settings, clock=machine.clock).measurement(PROTOCOL, notes=("own note",))
    assert (result.p10_ms, result.p50_ms, result.p90_ms) == pytest.approx((2, 6, 10))
    assert (result.low_ms, result.high_ms) == (1, 11)  # too few runs for anything but all of them
    assert result.protocol is PROTOCOL
    assert result.notes[-1] == "own note"


def test_equal_runs_settle_at_the_second_look() -> None:
    machine = Machine(iter([5.0] * 100))
    result = time_runs(machine.run_ms, TimingSettings(warmup=4, min_runs=20), clock=machine.clock)
    assert result.settled
    assert len(result.times_ms) == 25
    assert machine.runs == 29
    assert result.notes == ()


def test_time_limit_ends_it_with_a_note() -> None:
    machine = Machine(independent(1, spread=0.5))
    settings = TimingSettings(warmup=0, min_runs=20, max_seconds=0.5)
    result = time_runs(machine.run_ms, settings, clock=machine.clock)
    assert not result.settled
    assert machine.now < 0.6
    assert any(note.startswith("after 0.5 s the median's interval is") for note in result.notes)


def test_slow_network_warms_up_no_longer_than_the_limit() -> None:
    machine = Machine(iter([4000.0] * 20))
    result = time_runs(machine.run_ms, TimingSettings(warmup=10, min_runs=5, max_seconds=10), clock=machine.clock)
    assert "3 of 10 warm-up runs in 10 s" in result.notes
    assert len(result.times_ms) == 3


@given(st.floats(8, 60), st.booleans(), st.integers(0, 10**6))
def test_drift_is_noticed(percent: float, faster: bool, seed: int) -> None:
    """The pace changes steadily, so that the thirds' medians are two thirds of it apart."""
    source, runs = independent(seed, spread=0.01), 120
    change = -min(percent, 40) / 100 if faster else percent / 100
    drifting = [next(source) * (1 + 1.5 * change * run / runs) for run in range(runs)]
    machine = Machine(iter(drifting))
    settings = TimingSettings(warmup=0, min_runs=runs, goal_percent=0, max_seconds=0.999 * sum(drifting) / 1e3)
    result = time_runs(machine.run_ms, settings, clock=machine.clock)
    word = "faster" if faster else "slower"
    assert any(note.startswith("drift: the last third") and word in note for note in result.notes)
    assert (drift_percent(result.times_ms) < 0) is faster


def test_steady_noise_is_seldom_called_drift() -> None:
    settings = TimingSettings(warmup=0, min_runs=60, max_seconds=1e6)
    notes = [
        time_runs(Machine(independent(seed, 0.04)).run_ms, settings, clock=lambda: 0.0).notes for seed in range(100)
    ]
    assert sum(bool(note) for note in notes) <= 5


def test_timed_counts_milliseconds_of_the_clock() -> None:
    now = iter([1.0, 1.25])
    assert timed(lambda: None, lambda: next(now))() == 250


@pytest.mark.parametrize("nothing", [0.0, -1.0, float("nan"), float("inf")])
def test_a_run_that_takes_no_time_is_an_error(nothing: float) -> None:
    with pytest.raises(WorkError, match="no time"):
        time_runs(lambda: nothing, TimingSettings(warmup=0), clock=lambda: 0.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("warmup", -1), ("min_runs", 2), ("max_seconds", -1.0), ("max_seconds", float("inf")), ("goal_percent", -0.1),
        ("goal_percent", float("nan")),
    ],
)  # fmt: skip
def test_numbers_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(InputError, match=field):
        TimingSettings(**{field: value})  # type: ignore[arg-type]


def test_rule_and_word_hold_every_number() -> None:
    settings = TimingSettings(warmup=7, min_runs=11, max_seconds=2.5, goal_percent=1.5)
    assert settings.word == "warmup-7-runs-11-goal-1.5-seconds-2.5"
    assert settings.rule == "at least 11 runs until the 95 % interval of the median is under 1.5 % of it, or 2.5 s"
