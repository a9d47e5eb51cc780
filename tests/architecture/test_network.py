import random

import pytest
import torch

from mvit_search.architecture import PRESETS, MobileViTConfig, MobileViTStage
from mvit_search.architecture.blocks import fold, unfold
from mvit_search.architecture.network import MobileViT
from tests.random_configs import random_config


def test_unfold_puts_the_same_pixel_of_every_patch_into_one_sequence():
    height, width, ph, pw = 4, 6, 2, 3
    image = torch.arange(height * width, dtype=torch.float32).reshape(1, 1, height, width)
    tokens = unfold(image, ph, pw)
    assert tokens.shape == (ph * pw, 4, 1)
    # Pixel (1, 2) of each of the 2 x 2 patches, row by row.
    wanted = [float(image[0, 0, 1 + ph * row, 2 + pw * column]) for row in range(2) for column in range(2)]
    assert tokens[1 * pw + 2, :, 0].tolist() == wanted


@pytest.mark.parametrize("patch", [(1, 1), (2, 2), (4, 2), (3, 5)])
def test_fold_undoes_unfold(patch):
    x = torch.randn(3, 7, 12, 10)
    assert torch.equal(fold(unfold(x, *patch), *patch, 12, 10), x)


@pytest.mark.parametrize("seed", range(12))
def test_random_configs_run_and_learn(seed):
    config = random_config(random.Random(seed), max_image=48)
    model = MobileViT(config, num_classes=5)
    logits = model(torch.randn(2, 3, *config.image_size))
    assert logits.shape == (2, 5)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_pixel_reaches_every_output_of_a_block_only_through_attention():
    """With 1x1 convolutions, what a far pixel changes is what attention carries: same place in its patch."""
    stage = MobileViTStage(out_channels=8, stride=1, transformer_dim=8, num_heads=2, num_layers=1, conv_kernel_size=1)
    model = MobileViT(MobileViTConfig(stem_channels=8, image_size=(16, 16), stages=(stage,)), 2).eval()
    block = model.stages[0][1]
    x = torch.randn(1, 8, 8, 8)
    changed = x.clone()
    changed[0, :, 0, 0] += 1
    difference = (block(x) - block(changed)).abs().sum(dim=1)[0]
    touched = difference > 1e-7
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[::2, ::2] = True
    assert torch.equal(touched, expected)


def test_convolutions_start_as_corenets_do():
    torch.manual_seed(0)
    model = MobileViT(PRESETS["mobilevit-xs"])
    conv = model.stages[4][1].fuse.conv.weight
    assert conv.std().item() == pytest.approx((2 / (conv.shape[0] * 9)) ** 0.5, rel=0.02)
    assert model.head.classifier.bias.abs().max() == 0
    assert model.head.classifier.weight.std().item() == pytest.approx(0.02, rel=0.05)
