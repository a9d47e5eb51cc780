"""`zico`: Li et al., arXiv 2301.11300.

For every layer the logarithm of the sum over its weights of mean |gradient| / standard deviation of the gradient, both
over batches; summed over layers. Large where gradients agree from batch to batch. As in the authors' code the standard
deviation is that of a population, and weights whose gradient does not vary are left out, and so are layers without
any other. The gradients are each batch's own; the authors' program lets those of later batches add up. Two batches are
the fewest that have a deviation. Nothing was adapted to MobileViT.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mvit_search.proxy.zero_cost._base import Batch, weight_gradients


def zico(network: nn.Module, batches: Sequence[Batch], generator: torch.Generator) -> float:
    """The score over all batches."""
    by_batch = [[gradient for _, gradient in weight_gradients(network, batch)] for batch in batches]
    return sum(steadiness(torch.stack(gradients)) for gradients in zip(*by_batch, strict=True))


def steadiness(gradients: Tensor) -> float:
    """One layer's part; `gradients` (batches, ...) of the same weights."""
    gradients = gradients.double().flatten(1)
    spread = gradients.std(dim=0, unbiased=False)
    varies = spread > 0
    ratio = gradients.abs().mean(dim=0)[varies] / spread[varies]
    total = ratio.sum()
    return float(total.log()) if total > 0 else 0.0
