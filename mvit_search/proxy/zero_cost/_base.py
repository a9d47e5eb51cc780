"""What scores of a network have in common.

A score is a function `(network, batches, generator) -> float`. The network is its own to use up: weights, statistics
and modules may be changed. It stands in training mode, so that batch norm takes the batch's statistics, as in the
published implementations. Batches are (images (B, 3, H, W), labels (B,)) pairs; random numbers come from `generator`.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Batch = tuple[Tensor, Tensor]
Measure = Callable[[nn.Module, Sequence[Batch], torch.Generator], float]

WEIGHTED = (nn.Conv2d, nn.Linear)
"""Layers whose weights count, as in the published implementations: no norms, no biases."""

NORMS = (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)
ACTIVATIONS = (nn.SiLU, nn.ReLU, nn.Hardswish, nn.GELU)


def weighted(network: nn.Module) -> Iterator[nn.Conv2d | nn.Linear]:
    """Every convolution and linear layer, in order."""
    for module in network.modules():
        if isinstance(module, WEIGHTED):
            yield module


def weight_gradients(network: nn.Module, batch: Batch) -> list[tuple[Tensor, Tensor]]:
    """(weight, gradient of the batch's mean cross-entropy) of every weighted layer that has a part in the output."""
    images, labels = batch
    weights = [layer.weight for layer in weighted(network)]
    loss = F.cross_entropy(network(images), labels)
    found = torch.autograd.grad(loss, weights, allow_unused=True)
    return [(weight.detach(), g) for weight, g in zip(weights, found, strict=True) if g is not None]


def replace_modules(network: nn.Module, kinds: tuple[type[nn.Module], ...], make: Callable[[], nn.Module]) -> None:
    """Put `make()` in the place of every module of `kinds` below `network`."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, kinds):
                setattr(parent, name, make())
