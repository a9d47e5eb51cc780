"""What else happened on this machine while runs were timed: did the processor change its pace, did others use it?"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mvit_search.latency.timing import Clock, pace, timed

_REFERENCE_PERCENT = 10.0
_OTHERS_PERCENT = 10.0
_STAT = Path("/proc/stat")
_IDLE_COLUMNS = (3, 4)
"""`idle` and `iowait` of the first line of /proc/stat."""
_COUNTED_COLUMNS = 8
"""Guests, behind them, are in `user` already."""


def reference_loop(clock: Clock = time.perf_counter) -> Callable[[], float]:
    """Milliseconds of some fixed arithmetic on one core: the best of five, as what interrupts it only adds."""
    loop = timed(lambda: sum(range(50_000)), clock)
    return lambda: min(loop() for _ in range(5))


def others_seconds() -> float | None:
    """Processor seconds that all processes but this one have used since the start; None where Linux does not tell."""
    try:
        columns = [int(word) for word in _STAT.read_text(encoding="ascii").split("\n", 1)[0].split()[1:]]
    except (OSError, ValueError):
        return None
    if len(columns) < _COUNTED_COLUMNS:
        return None
    busy = sum(ticks for place, ticks in enumerate(columns[:_COUNTED_COLUMNS]) if place not in _IDLE_COLUMNS)
    return busy / os.sysconf("SC_CLK_TCK") - time.process_time()


@dataclass(frozen=True)
class _Moment:
    now: float
    reference_ms: float
    others_seconds: float | None


class Surroundings:
    """Watches from when it is made until its remarks are asked for."""

    def __init__(
        self, clock: Clock = time.perf_counter, *, reference_ms: Callable[[], float] | None = None,
        others: Callable[[], float | None] = others_seconds, cores: int | None = None,
    ) -> None:  # fmt: skip
        self._clock, self._others = clock, others
        self._reference_ms = reference_ms or reference_loop(clock)
        self._cores = cores or os.cpu_count() or 1
        self._begin = self._moment()

    def remarks(self) -> tuple[str, ...]:
        """What a reader of the timings must know; nothing on a quiet machine."""
        end = self._moment()
        remarks = (self._pace_remark(end), self._others_remark(end))
        return tuple(remark for remark in remarks if remark)

    def _moment(self) -> _Moment:
        return _Moment(self._clock(), self._reference_ms(), self._others())

    def _pace_remark(self, end: _Moment) -> str:
        change = 100 * (end.reference_ms / self._begin.reference_ms - 1)
        if abs(change) <= _REFERENCE_PERCENT:
            return ""
        return f"the processor itself was {abs(change):.0f} % {pace(change)} after the runs than before"

    def _others_remark(self, end: _Moment) -> str:
        passed = self._cores * (end.now - self._begin.now)
        if end.others_seconds is None or self._begin.others_seconds is None or passed <= 0:
            return ""
        share = 100 * (end.others_seconds - self._begin.others_seconds) / passed
        return f"other processes took {share:.0f} % of the processor meanwhile" if share > _OTHERS_PERCENT else ""
