"""`grad_norm`: Abdelfattah et al., arXiv 2101.08134.

The Euclidean norm of each layer's weight gradient after one batch, summed over convolutions and linear layers, as in
the authors' code. Nothing was adapted to MobileViT.
"""

from collections.abc import Sequence

import torch
from torch import nn

from mvit_search.proxy.zero_cost._base import Batch, weight_gradients


def grad_norm(network: nn.Module, batches: Sequence[Batch], generator: torch.Generator) -> float:
    """The score of the first batch."""
    return sum(float(gradient.norm()) for _, gradient in weight_gradients(network, batches[0]))
