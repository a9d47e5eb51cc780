"""`ProxyResult`: what one training gave."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ProxyResult:
    """One training of one candidate with one seed.

    Attributes:
        top1: share of held-out images classified correctly, 0..1.
        loss: mean cross-entropy on the held-out images, without label smoothing.
        epochs: epochs trained.
        steps: optimiser steps taken.
        seconds: wall-clock time of training and evaluation together.
        images_per_second: training images seen per second of training, evaluation left out.
    """

    top1: float
    loss: float
    epochs: int
    steps: int
    seconds: float
    images_per_second: float
