"""What a latency is and what a target does: the seam between the search and every way to know a latency."""

from typing import NamedTuple, Protocol

from mvit_search.architecture import MobileViTConfig


class Latency(NamedTuple):
    """A latency that says how it is known.

    Attributes:
        ms: milliseconds for one image.
        low_ms: lower end of the interval: the 10th percentile of the runs if measured; if predicted, of what
            the left-out errors allow.
        high_ms: upper end: the 90th percentile likewise.
        source: one phrase for people, which starts with `predicted:` or `measured:`.
        target: name of the target.
        protocol: how the figure, or the figures behind a prediction, were measured.
    """

    ms: float
    low_ms: float
    high_ms: float
    source: str
    target: str
    protocol: str


class Target(Protocol):
    """A device, or a model of one, that gives latencies."""

    @property
    def name(self) -> str:
        """The name that `load_target` knows it by."""

    @property
    def measured(self) -> bool:
        """Whether `latency` runs the network rather than predicts."""

    @property
    def calibration(self) -> str:
        """Identity of the predictor's coefficients, or of the measuring protocol: runs are pinned to it."""

    def latency(self, config: MobileViTConfig, num_classes: int = 1000) -> Latency:
        """Latency of the network for one image of `config.image_size`."""
