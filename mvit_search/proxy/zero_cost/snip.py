"""`snip`: Lee et al., arXiv 1810.02340, section 4.1 (connection sensitivity); summed over a network by Abdelfattah
et al., arXiv 2101.08134.

The sum over weights of |w * dL/dw|: what the loss of one batch would change, to first order, if the weight were cut.
The paper then divides by the sum, which would make every network's score 1; like Abdelfattah et al. we do not.
Nothing was adapted to MobileViT; weights are those of convolutions and linear layers, queries and keys among them.
"""

from collections.abc import Sequence

import torch
from torch import nn

from mvit_search.proxy.zero_cost._base import Batch, weight_gradients


def snip(network: nn.Module, batches: Sequence[Batch], generator: torch.Generator) -> float:
    """The score of the first batch, in units of the loss."""
    return sum(float((weight * gradient).abs().sum()) for weight, gradient in weight_gradients(network, batches[0]))
