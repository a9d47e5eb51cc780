"""Waiting for a target that does not answer, and what may stand in for it."""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

from mvit_search._quantities import format_seconds
from mvit_search.architecture import MobileViTConfig
from mvit_search.errors import TargetUnavailable
from mvit_search.latency import Latency, Target

_LONGEST_PAUSE_S = 30.0


class StandIn:
    """A predictor brought to the scale of the target that it stands in for.

    A phone's predicted milliseconds beside another machine's measured ones would put the predicted networks on
    the front, or all of them off it. So predictions are multiplied by the median of measured over predicted,
    of the networks that were measured; the interval goes from the smallest of these ratios to the largest.
    """

    def __init__(self, predictor: Target) -> None:
        self._predictor = predictor
        self._ratios: dict[str, float] = {}

    @property
    def ready(self) -> bool:
        """Whether anything was measured that its scale could be taken from."""
        return bool(self._ratios)

    def learn(self, config: MobileViTConfig, num_classes: int, measured: Latency) -> None:
        """Note how a measured latency compares."""
        self._ratios[config.digest()] = measured.ms / self._predictor.latency(config, num_classes).ms

    def latency(self, config: MobileViTConfig, num_classes: int, absent: str) -> Latency:
        """A prediction in place of the target named `absent`, marked as such."""
        predicted = self._predictor.latency(config, num_classes)
        ratios = list(self._ratios.values())
        scale = statistics.median(ratios)
        source = (
            f"predicted: stands in for {absent}, which did not answer, {predicted.target}'s prediction"
            f" times {scale:.3g} (median over {len(ratios)} measured networks)"
        )
        return Latency(
            scale * predicted.ms, min(ratios) * predicted.low_ms, max(ratios) * predicted.high_ms, source, absent,
            predicted.protocol,
        )  # fmt: skip


class Patience(NamedTuple):
    """How long to wait for a target.

    Attributes:
        deadline: on the clock, when waiting ends for good.
        stand_in: what is taken after `seconds` without an answer; None waits until the deadline.
    """

    deadline: float
    stand_in: StandIn | None = None
    seconds: float = 300.0


class PatientTarget:
    """A target that is asked again until it answers, telling so each time.

    After its patience was used up once, a stand-in is taken after a single try, until the target is back.
    """

    def __init__(
        self, target: Target, patience: Patience, tell: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        self._target, self._patience, self._tell = target, patience, tell
        self._clock, self._sleep = clock, sleep
        self._absent = False

    @property
    def name(self) -> str:
        return self._target.name

    @property
    def measured(self) -> bool:
        return self._target.measured

    @property
    def calibration(self) -> str:
        return self._target.calibration

    def latency(self, config: MobileViTConfig, num_classes: int = 1000) -> Latency:
        """The target's latency, or its stand-in's.

        Raises:
            TargetUnavailable: the deadline has passed.
            InputError, WorkError: as the target says.
        """
        begin, tries = self._clock(), 0
        stand_in = self._patience.stand_in
        while True:
            try:
                latency = self._target.latency(config, num_classes)
            except TargetUnavailable as error:
                tries += 1
                impatient = self._absent or self._clock() - begin >= self._patience.seconds
                if stand_in and stand_in.ready and impatient:
                    return self._stood_in(stand_in, config, num_classes, error)
                self._wait(tries, error)
            else:
                self._returned(tries, begin)
                if stand_in:
                    stand_in.learn(config, num_classes, latency)
                return latency

    def _wait(self, tries: int, error: TargetUnavailable) -> None:
        left = self._patience.deadline - self._clock()
        if left <= 0:
            raise TargetUnavailable(f"time is up while waiting for the measurement server: {error}") from error
        words = str(error).removeprefix(f"{self.name}: ")
        times = "try" if tries == 1 else "tries"
        self._tell(f"waiting for the measurement server {self.name} ({tries} {times}, last error: {words})")
        pause = max(min(2.0 ** min(tries - 1, 10), _LONGEST_PAUSE_S), error.retry_after_s or 0.0)
        self._sleep(min(pause, left))

    def _stood_in(
        self, stand_in: StandIn, config: MobileViTConfig, num_classes: int, error: TargetUnavailable
    ) -> Latency:
        self._absent = True
        words = str(error).removeprefix(f"{self.name}: ")
        self._tell(f"the measurement server {self.name} does not answer ({words}): predicted instead")
        return stand_in.latency(config, num_classes, self.name)

    def _returned(self, tries: int, begin: float) -> None:
        if tries or self._absent:
            waited = f" after {format_seconds(self._clock() - begin)}" if tries else ""
            self._tell(f"the measurement server {self.name} is back{waited}")
        self._absent = False
