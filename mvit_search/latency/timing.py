"""The timing loop that every runtime shares: warm up, repeat until the median is known, look for a drifting clock.

The 95 % interval of the median is made of order statistics, as far from the middle as the *batch means* of
"above or below the median" spread. That assumes no distribution, so that two modes or a tail of interruptions do
no harm; and it assumes no independence: runs come in slow and fast spells (frequency, neighbours, caches), and the
textbook interval, which takes neighbours for independent, then holds the median far less often than it says.
docs/measuring.md has the coverage on synthetic clocks.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles, variance

from mvit_search.errors import InputError, WorkError
from mvit_search.latency.runtime import Measurement, MeasuringProtocol, Placement

Clock = Callable[[], float]
"""Seconds since some moment."""

_BATCHES = 12
_STUDENT_T = 2.201
"""97.5 % quantile for one degree of freedom less than batches."""
_NORMAL = 1.960
_GROWTH = 1.25
"""Runs from one look at the interval to the next: looking after every run would stop at the luckiest moment."""
_FEWEST_RUNS = 3
_DRIFT_PERCENT = 5.0
"""What is worth a note. The medians of two thirds of a settled measurement differ by less by chance."""


@dataclass(frozen=True)
class TimingSettings:
    """When a measurement begins and ends.

    Attributes:
        warmup: runs before the first that counts.
        min_runs: runs that count, at least, before the interval is looked at.
        max_seconds: limit of the runs that count, and of the warm-up too.
        goal_percent: the width of the median's 95 % interval, in percent of the median, that ends it.

    Raises:
        InputError: a number is out of range.
    """

    warmup: int = 10
    min_runs: int = 30
    max_seconds: float = 10.0
    goal_percent: float = 3.0

    def __post_init__(self) -> None:
        for field, smallest in (("warmup", 0), ("min_runs", _FEWEST_RUNS), ("max_seconds", 0), ("goal_percent", 0)):
            value = getattr(self, field)
            if not smallest <= value < float("inf"):
                raise InputError(field, value, f"must be a finite number of at least {smallest}")

    @property
    def rule(self) -> str:
        """When measuring ends, in words, for `MeasuringProtocol.rule`."""
        return (
            f"at least {self.min_runs} runs until the 95 % interval of the median is under {self.goal_percent:g} % "
            f"of it, or {self.max_seconds:g} s"
        )

    @property
    def word(self) -> str:
        """The same as part of an identity."""
        return f"warmup-{self.warmup}-runs-{self.min_runs}-goal-{self.goal_percent:g}-seconds-{self.max_seconds:g}"


@dataclass(frozen=True)
class Timings:
    """The runs that counted, milliseconds in order of time.

    Attributes:
        settled: whether the interval came under the goal before the time limit.
        notes: what a reader must know.
    """

    times_ms: tuple[float, ...]
    settled: bool
    notes: tuple[str, ...]

    def measurement(
        self, protocol: MeasuringProtocol, *, placement: tuple[Placement, ...] = (), notes: tuple[str, ...] = ()
    ) -> Measurement:
        """What the runs come to under `protocol`; `notes` are the runtime's own."""
        deciles = quantiles(self.times_ms, n=10, method="inclusive")
        low, high = median_interval(self.times_ms)
        middle = median(self.times_ms)
        return Measurement(
            # Interpolated deciles of equal values can leave them by a rounding.
            p10_ms=min(deciles[0], middle),
            p50_ms=middle,
            p90_ms=max(deciles[8], middle),
            low_ms=low,
            high_ms=high,
            runs=len(self.times_ms),
            drift_percent=drift_percent(self.times_ms),
            settled=self.settled,
            protocol=protocol,
            notes=(*self.notes, *notes),
            placement=placement,
        )


def time_runs(run_ms: Callable[[], float], settings: TimingSettings, *, clock: Clock = time.perf_counter) -> Timings:
    """Warm up, then repeat `run_ms`, which runs the network once and says how long that took, until it settles.

    It has settled when the interval is under the goal at two looks in a row; a quarter more runs lie between looks.

    Raises:
        WorkError: a run took no time that can be measured.
    """
    warmed = _warm_up(run_ms, settings, clock)
    times_ms, settled = _repeat(run_ms, settings, clock)
    notes = (_warmup_note(warmed, settings), _width_note(times_ms, settled, settings), _drift_note(times_ms))
    return Timings(tuple(times_ms), settled, tuple(note for note in notes if note))


def timed(run: Callable[[], object], clock: Clock = time.perf_counter) -> Callable[[], float]:
    """`run` as something that says how many milliseconds it took."""

    def run_ms() -> float:
        before = clock()
        run()
        return 1e3 * (clock() - before)

    return run_ms


def median_interval(times_ms: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the median of autocorrelated values: two of the values, milliseconds.

    Fewer values than it takes give the least and the greatest.
    """
    ordered = sorted(times_ms)
    count, middle = len(ordered), median(ordered)
    if count < _BATCHES:
        return ordered[0], ordered[-1]
    sides = [((value > middle) - (value < middle)) / 2 for value in times_ms]
    # Standard deviation of how many values lie below the true median: at least that of independent ones.
    spread = max(_NORMAL * math.sqrt(count / 4), _STUDENT_T * math.sqrt(count * _long_run_variance(sides)))
    low, high = math.floor(count / 2 - spread) - 1, math.ceil(count / 2 + spread)
    return ordered[max(low, 0)], ordered[min(high, count - 1)]


def drift_percent(times_ms: Sequence[float]) -> float:
    """How much slower (above zero) the last third is than the first, by medians, percent."""
    third = max(len(times_ms) // 3, 1)
    return 100 * (median(times_ms[-third:]) / median(times_ms[:third]) - 1)


def pace(percent: float) -> str:
    """`slower` for a change above zero, else `faster`."""
    return "slower" if percent > 0 else "faster"


def _long_run_variance(values: Sequence[float]) -> float:
    """Variance of the mean, times the number of values, by the means of consecutive batches."""
    size = len(values) // _BATCHES
    recent = values[len(values) - size * _BATCHES :]
    means = [sum(recent[begin : begin + size]) / size for begin in range(0, size * _BATCHES, size)]
    return size * variance(means)


def _warm_up(run_ms: Callable[[], float], settings: TimingSettings, clock: Clock) -> int:
    """Runs made: a network that takes seconds does not get them all."""
    begin = clock()
    for done in range(settings.warmup):
        if done and clock() - begin >= settings.max_seconds:
            return done
        run_ms()
    return settings.warmup


def _repeat(run_ms: Callable[[], float], settings: TimingSettings, clock: Clock) -> tuple[list[float], bool]:
    times_ms: list[float] = []
    begin, next_look, narrow = clock(), settings.min_runs, False
    while True:
        times_ms.append(_measurable(run_ms()))
        if len(times_ms) >= next_look:
            narrow_before, narrow = narrow, _width_percent(times_ms) <= settings.goal_percent
            if narrow and narrow_before:
                return times_ms, True
            next_look = max(len(times_ms) + 1, int(_GROWTH * len(times_ms)))
        if len(times_ms) >= _FEWEST_RUNS and clock() - begin >= settings.max_seconds:
            return times_ms, False


def _measurable(time_ms: float) -> float:
    if not 0 < time_ms < float("inf"):
        raise WorkError(f"timing: a run took {time_ms} ms, which is no time; the clock is too coarse or went back")
    return time_ms


def _width_percent(times_ms: Sequence[float]) -> float:
    low, high = median_interval(times_ms)
    return 100 * (high - low) / median(times_ms)


def _warmup_note(warmed: int, settings: TimingSettings) -> str:
    if warmed == settings.warmup:
        return ""
    return f"{warmed} of {settings.warmup} warm-up runs in {settings.max_seconds:g} s"


def _width_note(times_ms: Sequence[float], settled: bool, settings: TimingSettings) -> str:
    if settled:
        return ""
    wide = f"after {settings.max_seconds:g} s the median's interval is {_percent(_width_percent(times_ms))} % wide"
    return f"{wide} where {settings.goal_percent:g} % was the goal"


def _drift_note(times_ms: Sequence[float]) -> str:
    drift = drift_percent(times_ms)
    if abs(drift) <= _DRIFT_PERCENT:
        return ""
    return f"drift: the last third of the runs is {abs(drift):.0f} % {pace(drift)} than the first"


def _percent(value: float) -> str:
    """Two digits: `4.1`, `37`, `560`."""
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"
