"""One buffer for all parameters, AdamW over it, and the learning rate along the way."""

import math

import torch
from torch import Tensor, nn

from mvit_search.proxy.recipe import Recipe

_REFERENCE_PARAMS = 2_000_000


class FlatParameters:
    """A network's parameters moved into two buffers: those that decay, and norms and biases (of rank 1), which do not.

    The parameters become views into them, and so do their gradients. A MobileViT has some 300 parameters, most of
    them tiny: clipping, AdamW and averaging then cost a few operators over two tensors instead of over 300.
    """

    def __init__(self, network: nn.Module) -> None:
        self.parameters = list(network.parameters())
        self.decayed = self._moved([p for p in self.parameters if p.ndim > 1])
        self.free = self._moved([p for p in self.parameters if p.ndim <= 1])

    @property
    def buffers(self) -> tuple[Tensor, Tensor]:
        return self.decayed, self.free

    @staticmethod
    @torch.no_grad()
    def _moved(parameters: list[nn.Parameter]) -> Tensor:
        total = sum(p.numel() for p in parameters)
        like = parameters[0]
        weights = torch.empty(total, dtype=like.dtype, device=like.device)
        gradients = torch.zeros_like(weights)
        start = 0
        for parameter in parameters:
            # Strides as they were: channels-last convolutions stay channels-last.
            place = (parameter.shape, parameter.stride(), start)
            weights.as_strided(*place).copy_(parameter)
            parameter.data = weights.as_strided(*place)
            parameter.grad = gradients.as_strided(*place)
            start += parameter.numel()
        weights.grad = gradients
        return weights

    def clear_gradients(self) -> None:
        """To zero, in place: a gradient that were dropped would come back outside the buffer."""
        for buffer in self.buffers:
            assert buffer.grad is not None
            buffer.grad.zero_()


class WeightAverage:
    """Exponential moving average of the weights (the paper's EMA)."""

    def __init__(self, flat: FlatParameters, decay: float) -> None:
        self._flat, self._decay = flat, decay
        self.averages = tuple(buffer.clone() for buffer in flat.buffers)

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Follow the weights after step number `steps`, from 1; a young average forgets its start faster."""
        decay = min(self._decay, (1 + steps) / (10 + steps))
        for average, buffer in zip(self.averages, self._flat.buffers, strict=True):
            average.lerp_(buffer, 1 - decay)


def adamw(flat: FlatParameters, recipe: Recipe) -> torch.optim.AdamW:
    """Weight decay on convolutions and matrices, none on norms and biases."""
    groups = [
        {"params": [flat.decayed], "weight_decay": recipe.weight_decay},
        {"params": [flat.free], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=True)


def peak_learning_rate(recipe: Recipe, params: int) -> float:
    """The recipe's, scaled to the network's size."""
    return recipe.learning_rate * float((params / _REFERENCE_PARAMS) ** (-recipe.width_power / 2))


def learning_rate_share(recipe: Recipe, before: float, after: float) -> float:
    """Share of the peak for a step that starts `before` epochs in and ends `after`: linear warm-up, then a cosine."""
    warmup = min(recipe.warmup_epochs, recipe.epochs / 2)
    if before < warmup:
        return recipe.start_share + (1 - recipe.start_share) * min(1.0, after / warmup)
    fall = 0.5 * (1 + math.cos(math.pi * min(1.0, (before - warmup) / (recipe.epochs - warmup))))
    return recipe.final_share + (1 - recipe.final_share) * fall
