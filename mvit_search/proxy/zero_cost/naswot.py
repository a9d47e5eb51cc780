"""`naswot`: Mellor et al., arXiv 2006.04647 as published at ICML 2021, section 3, equations 1 and 2.

Every activation unit is on or off for an image, which gives the image a binary code. K[i, j] is the number of units
that images i and j have in common (units less the Hamming distance), and the score is log |det K|: the more
differently the images are coded, the larger.

Adapted to MobileViT: a unit counts as on where its input is above zero. For ReLU that is the paper's code; SiLU and
Hardswish are smooth gates about the same point. Units are those of activation modules, in convolutions and in the
transformers' feed-forward alike; softmax has none, and the ReLU within separable attention is not counted.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mvit_search.proxy.zero_cost._base import ACTIVATIONS, Batch


@torch.no_grad()
def naswot(network: nn.Module, batches: Sequence[Batch], generator: torch.Generator) -> float:
    """The score of the first batch."""
    images = batches[0][0]
    count = len(images)
    kernel = torch.zeros(count, count, dtype=torch.float64, device=images.device)

    def add(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        # Tokens come as (B*P, N, d) with the image outermost, so that this holds for them too.
        kernel.add_(agreement(inputs[0].reshape(count, -1) > 0))

    hooks = [m.register_forward_pre_hook(add) for m in network.modules() if isinstance(m, ACTIVATIONS)]
    try:
        network(images)
    finally:
        for hook in hooks:
            hook.remove()
    return log_determinant(kernel)


def agreement(codes: Tensor) -> Tensor:
    """(N, units) booleans -> (N, N) numbers of units in which two rows agree."""
    signs = codes.float().mul_(2).sub_(1)
    return (codes.shape[1] + (signs @ signs.T).double()) / 2


def log_determinant(kernel: Tensor) -> float:
    """log |det|; -inf for a singular kernel, as two images of one code give."""
    return float(torch.linalg.slogdet(kernel).logabsdet)
