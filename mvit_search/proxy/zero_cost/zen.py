"""`zen`: Lin et al., arXiv 2102.01063, algorithm 1.

With Gaussian weights and a Gaussian image x, how far the features before the pooling move when x becomes x + 0.01 e,
as the logarithm of the distance summed over the features; plus, for every batch norm, the logarithm of the scale
that it took away (root of the mean variance of its channels). The mean over repeats. It looks at no data.

Adapted to MobileViT:
- as in the paper, links around a block are left out: those of the inverted residuals. The transformer's stay, for its
  layers are nothing without them.
- layer and group norms take scale away as batch norm does, so theirs is added in the same way.
- all weights are drawn with variance 1, but for those of queries and keys (1 / inputs): with variance 1 a softmax
  picks one token, and the smallest change of the image picks another.
- the distance is the sum of absolute values, as in the authors' program; the paper writes the Frobenius norm.
- a norm's variance is that of the image x alone. The published code reads a running average over x and x + 0.01 e.
- 16 images and 4 repeats, where the authors' program has 16 and 32: the spread over repeats is small here.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mvit_search.architecture.blocks import Attention, InvertedResidual, SeparableAttention
from mvit_search.architecture.network import MobileViT
from mvit_search.proxy.zero_cost._base import NORMS, Batch, weighted

_STEP = 0.01
_IMAGES = 16
_REPEATS = 4


class BeforePooling(nn.Module):
    """A network up to the features that its head would average."""

    def __init__(self, network: MobileViT) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.head.conv(self.network.features(images)[-1])  # type: ignore[no-any-return]


def zen(network: nn.Module, batches: Sequence[Batch], generator: torch.Generator) -> float:
    """The score at the size of the first batch's images."""
    body = BeforePooling(network) if isinstance(network, MobileViT) else network
    for module in body.modules():
        if isinstance(module, InvertedResidual):
            module.residual = False
    return sum(one_repeat(body, batches[0][0], generator) for _ in range(_REPEATS)) / _REPEATS


@torch.no_grad()
def one_repeat(body: nn.Module, like: Tensor, generator: torch.Generator) -> float:
    """The score with weights and images drawn once; `like` gives the images' shape and device."""
    draw_weights(body, generator)
    shape = (min(len(like), _IMAGES), *like.shape[1:])
    images = torch.randn(shape, generator=generator).to(like)
    moved = images + _STEP * torch.randn(shape, generator=generator).to(like)
    scales: list[float] = []
    hooks = [
        module.register_forward_pre_hook(lambda module, inputs: scales.append(_log_scale(module, inputs[0])))
        for module in body.modules()
        if isinstance(module, NORMS)
    ]
    try:
        features = body(images)
    finally:
        for hook in hooks:
            hook.remove()
    distance = (body(moved) - features).double().abs().flatten(1).sum(dim=1).mean()
    return math.log(distance) + sum(scales) if distance > 0 else -math.inf


@torch.no_grad()
def draw_weights(body: nn.Module, generator: torch.Generator) -> None:
    """Gaussian weights, no biases."""
    for layer in weighted(body):
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
        if layer.bias is not None:
            layer.bias.zero_()
    for module in body.modules():
        if isinstance(module, Attention):
            inputs = module.qkv.in_features
            module.qkv.weight[: 2 * inputs] /= math.sqrt(inputs)
        elif isinstance(module, SeparableAttention):
            module.qkv.weight[:1] /= math.sqrt(module.dim)


def _log_scale(norm: nn.Module, x: Tensor) -> float:
    """Logarithm of the root of the mean variance that `norm` divides by."""
    x = x.double()
    if isinstance(norm, nn.BatchNorm2d):
        variance = x.var(dim=(0, 2, 3), unbiased=False)
    elif isinstance(norm, nn.LayerNorm):
        variance = x.var(dim=-1, unbiased=False)
    else:
        assert isinstance(norm, nn.GroupNorm)
        variance = x.reshape(len(x), norm.num_groups, -1).var(dim=-1, unbiased=False)
    mean = float(variance.mean())
    return 0.5 * math.log(mean) if mean > 0 else -math.inf
