"""`synflow`: Tanaka et al., arXiv 2006.05467 ("Iterative Synaptic Flow Pruning"); summed over a network as a score by
Abdelfattah et al., arXiv 2101.08134.

With all weights made absolute and an image of ones, R = sum of the outputs is the sum over all paths from input to
output of the product of |w| along the path, and the score is the sum over weights of |w * dR/dw|. It looks at no data.

Adapted to MobileViT, in double precision (single overflows):
- norms and activations are left out: in a network of absolute weights and ones, ReLU changes nothing, and SiLU, which
  stands in its place here, is not linear. Biases are 0.
- a softmax is no sum of paths. Queries and keys are set to 0, so that attention averages its tokens and value and
  output weights carry the flow; weights of queries and keys do not count. In separable attention (MobileViTv2) the
  context that scales the values is 1 in the same way.
- the result is the natural logarithm: the sum itself grows with depth past 1e60. Ranks are the same.
"""

import math
from collections.abc import Sequence

import torch
from torch import nn

from mvit_search.architecture.blocks import Attention, SeparableAttention
from mvit_search.proxy.zero_cost._base import ACTIVATIONS, NORMS, Batch, replace_modules, weighted


def synflow(network: nn.Module, batches: Sequence[Batch], generator: torch.Generator) -> float:
    """The logarithm of the flow, at the size of the first batch's images."""
    total = flow(network, tuple(batches[0][0].shape[1:]))
    return math.log(total) if total > 0 else -math.inf


def flow(network: nn.Module, shape: tuple[int, ...]) -> float:
    """Sum over weights of |w * dR/dw| for one image of ones of `shape` (C, H, W); uses the network up."""
    linearise(network)
    device = next(network.parameters()).device
    result = network(torch.ones(1, *shape, dtype=torch.float64, device=device)).sum()
    weights = [layer.weight for layer in weighted(network)]
    gradients = torch.autograd.grad(result, weights, allow_unused=True)
    products = ((w.detach() * g).abs().sum() for w, g in zip(weights, gradients, strict=True) if g is not None)
    return float(sum(products))


@torch.no_grad()
def linearise(network: nn.Module) -> None:
    """Absolute weights in double precision, no biases, norms or activations, attention that averages."""
    replace_modules(network, (*NORMS, *ACTIVATIONS), nn.Identity)
    network.double()
    for parameter in network.parameters():
        parameter.abs_()
    for layer in weighted(network):
        if layer.bias is not None:
            layer.bias.zero_()
    for module in network.modules():
        if isinstance(module, Attention):
            queries_and_keys = 2 * module.qkv.in_features
            module.qkv.weight[:queries_and_keys] = 0
        elif isinstance(module, SeparableAttention):
            # One query, then as many keys as channels: keys of 1, averaged, are a context of 1.
            module.qkv.weight[: 1 + module.dim] = 0
            assert module.qkv.bias is not None
            module.qkv.bias[1 : 1 + module.dim] = 1
