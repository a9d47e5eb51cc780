"""A network with numbers in every weight, for programs that are measured, converted and compared but not used."""

import torch
from torch import nn

from mvit_search.architecture.config import MobileViTConfig
from mvit_search.architecture.network import MobileViT

_SIDE = 64  # of the images that batch norms take their statistics from, where the network can halve it often enough


def random_network(
    config: MobileViTConfig, num_classes: int = 1000, *, seed: int = 0, output_stride: int | None = None
) -> MobileViT:
    """The network in evaluation mode; the random state of the process stays as it was.

    Norms and biases get random numbers too: a scale of one, a shift of zero or a fresh batch norm would let a
    converter drop operators that a trained network has. Batch norms know the statistics of random images, without
    which the last layers of a deep network see next to nothing of the image.

    Raises:
        InputError: as `MobileViT`.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(seed)
        network = MobileViT(config, num_classes, output_stride=output_stride)
        for module in network.modules():
            _fill(module)
        side = max(_SIDE, 2 * config.total_stride)
        network.train()(torch.rand(2, 3, *(min(side, own) for own in config.image_size)))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1
    return network.eval()


def _fill(module: nn.Module) -> None:
    """Numbers in what `initialise` leaves at one or zero, or so small that the scores of an attention are all equal."""
    if isinstance(module, (nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)):
        module.weight.uniform_(0.5, 1.5)
        module.bias.uniform_(-0.5, 0.5)
    elif isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
        module.bias.uniform_(-0.5, 0.5)
    if isinstance(module, nn.Linear):
        module.weight.normal_(0, module.in_features**-0.5)
    if isinstance(module, nn.BatchNorm2d):
        module.momentum = 1  # the statistics of the next batch replace the first ones
