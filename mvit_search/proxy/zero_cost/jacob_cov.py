"""`jacob_cov`: Mellor et al., arXiv 2006.04647 version 1; as in the program of Abdelfattah et al., arXiv 2101.08134.

Each image's row of the Jacobian is the gradient of the sum of the outputs with respect to its pixels. With the
eigenvalues v of the rows' correlation matrix the score is -sum(log(v + k) + 1 / (v + k)), k = 1e-5: greatest, -N, where
all are uncorrelated. Nothing was adapted to MobileViT: it takes any network that has gradients. As in the published
code the batch norms take the batch's statistics, so the rows hold the images' effect on each other too.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mvit_search.proxy.zero_cost._base import Batch

_K = 1e-5


def jacob_cov(network: nn.Module, batches: Sequence[Batch], generator: torch.Generator) -> float:
    """The score of the first batch."""
    images = batches[0][0].clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(network(images).sum(), images)
    return correlation_score(gradient.flatten(1))


def correlation_score(rows: Tensor) -> float:
    """The score of a Jacobian's `rows` (N, pixels); NaN where one is constant and has no correlation."""
    correlation = torch.corrcoef(rows.double())
    if not bool(torch.isfinite(correlation).all()):
        return float("nan")
    # Rounding may leave an eigenvalue a little below zero.
    values = torch.linalg.eigvalsh(correlation).clamp_min(0) + _K
    return -float((values.log() + 1 / values).sum())
