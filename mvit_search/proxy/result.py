"""`ProxyResult`: what one training gave."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rung:
    """What a training had come to after some of its epochs.

    Attributes:
        epoch: epochs trained so far.
        top1: share of held-out images classified correctly, 0..1.
        loss: mean cross-entropy on the held-out images, without label smoothing.
        image_steps: training images seen so far, an image counted each time that it is seen.
        seconds: wall-clock time of training and scoring so far.
        cpu_seconds: processor time of this process over the same, all threads together.
    """

    epoch: int
    top1: float
    loss: float
    image_steps: int
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class ProxyResult:
    """One training of one candidate with one seed.

    Attributes:
        rungs: the scores on the way, the final one last; none if it was stopped before the first.
        steps: optimiser steps taken.
        images_per_second: training images seen per second of training, scoring left out.
        largest_batch: images that went through the network at once: the recipe's batch, or what fitted in memory.
    """

    rungs: tuple[Rung, ...]
    steps: int
    images_per_second: float
    largest_batch: int

    @property
    def top1(self) -> float:
        """Share of held-out images classified correctly at the end, 0..1."""
        return self.rungs[-1].top1

    @property
    def loss(self) -> float:
        """Mean cross-entropy on the held-out images at the end, without label smoothing."""
        return self.rungs[-1].loss

    @property
    def epochs(self) -> int:
        """Epochs trained when it was last scored."""
        return self.rungs[-1].epoch

    @property
    def seconds(self) -> float:
        """Wall-clock time of training and scoring together."""
        return self.rungs[-1].seconds
