"""Scoring a network on held-out images, with batch-norm statistics taken anew."""

import itertools
import math

import torch
from torch import nn
from torch.nn import functional as F

from mvit_search.data import ImageSet
from mvit_search.errors import TrainingDiverged
from mvit_search.proxy.batches import Batches

_EVALUATION_BATCH = 256
_RECALIBRATION_BATCH = 128


@torch.no_grad()
def recalibrate(
    network: nn.Module, batches: Batches, generator: torch.Generator, largest_batch: int = _RECALIBRATION_BATCH
) -> None:
    """Take batch-norm statistics anew with the present weights, all batches weighing the same."""
    views = batches.recalibration(min(_RECALIBRATION_BATCH, largest_batch), generator)
    first = next(views, None)
    if first is None:
        return
    for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.reset_running_stats()
        norm.momentum = None  # None = cumulative average
    network.train()
    for images in itertools.chain((first,), views):  # one after the other: all together may not fit
        network(images)


@torch.no_grad()
def evaluate(
    network: nn.Module, batches: Batches, data: ImageSet, largest_batch: int = _EVALUATION_BATCH
) -> tuple[float, float]:
    """(top-1 as 0..1, mean cross-entropy) on the held-out images.

    Raises:
        TrainingDiverged: the loss is NaN or infinite.
    """
    network.eval()
    device = next(network.parameters(), torch.empty(0)).device
    correct, loss = torch.zeros((), dtype=torch.int64, device=device), torch.zeros((), device=device)
    for images, labels in batches.held_out(data, min(_EVALUATION_BATCH, largest_batch)):
        logits = network(images)
        correct += (logits.argmax(dim=1) == labels).sum()
        loss += F.cross_entropy(logits, labels, reduction="sum")
    require_finite(float(loss), "held-out loss")
    return int(correct) / len(data.val_labels), float(loss) / len(data.val_labels)


def require_finite(loss: float, what: str) -> None:
    """Raises TrainingDiverged where the loss is NaN or infinite."""
    if not math.isfinite(loss):
        raise TrainingDiverged(f"{what} is {loss}")
