"""The network equals timm's, weight for weight: presets, oblong images, patches that differ from stage to stage."""

import dataclasses
from typing import Any

import pytest
import torch
from random_weights import assert_same_logits, random_weights, two_images
from torch import nn

from mvit_search.architecture import PRESETS, MobileViTConfig, MobileViTStage, preset
from mvit_search.architecture.network import MobileViT
from mvit_search.architecture.weights import from_timm, guess_layout, same_tensors, to_timm
from tests.timm_import import timm_or_skip

# timm's name of a preset; mobilevitv2-0.75 is mobilevitv2_075.
TIMM_NAMES = {
    name: f"mobilevitv2_{round(100 * float(name.split('-')[1])):03}" if "v2" in name else name.replace("-", "_")
    for name in PRESETS
}
PATCHES = {"8,4,2": ((8, 8), (4, 4), (2, 2)), "3,3,3": ((3, 3),) * 3, "4x2": ((4, 2), (2, 4), (2, 1))}


def timm_twin(name: str, patches: tuple[tuple[int, int], ...] | None = None, num_classes: int = 1000) -> nn.Module:
    """timm's network of that preset, with other patches in its last three stages; nothing is downloaded."""
    timm = timm_or_skip()
    if patches is None:
        network = timm.create_model(TIMM_NAMES[name], num_classes=num_classes)
        return random_weights(network, seed=1)
    from timm.models.byobnet import ByobNet
    from timm.models.mobilevit import model_cfgs

    stock = model_cfgs[TIMM_NAMES[name]]
    pairs = zip(stock.blocks[2:], patches, strict=True)
    blocks = stock.blocks[:2] + tuple((residual, with_patch(block, patch)) for (residual, block), patch in pairs)
    network = ByobNet(dataclasses.replace(stock, blocks=blocks), num_classes=num_classes)
    return random_weights(network, seed=1)


def with_patch(block: Any, patch: tuple[int, int]) -> Any:
    return dataclasses.replace(block, block_kwargs={**block.block_kwargs, "patch_size": patch})


def with_patches(config: MobileViTConfig, patches: tuple[tuple[int, int], ...]) -> MobileViTConfig:
    changed = (stage.model_copy(update={"patch_h": height, "patch_w": width})
               for stage, (height, width) in zip(config.stages[2:], patches, strict=True)
               if isinstance(stage, MobileViTStage))  # fmt: skip
    return config.model_copy(update={"stages": (*config.stages[:2], *changed)})


def assert_equal(config: MobileViTConfig, twin: nn.Module, num_classes: int, *sizes: tuple[int, int]) -> None:
    assert guess_layout(twin.state_dict(), config).layout == "timm"
    network = MobileViT(config, num_classes).eval()
    network.load_state_dict(from_timm(twin.state_dict(), config), strict=True)
    for size in sizes:
        images = two_images(*size)
        with torch.no_grad():
            assert_same_logits(network(images), twin(images))
    assert same_tensors(to_timm(network.state_dict(), config), twin.state_dict())


@pytest.mark.parametrize("name", PRESETS)
def test_logits_equal_those_of_timm(name: str) -> None:
    twin = timm_twin(name)
    config = preset(name)
    assert sum(p.numel() for p in twin.parameters()) == sum(p.numel() for p in MobileViT(config).parameters())

    # At 224 x 320 the last map is 7 x 10, at 200 x 256 the maps are 25, 13 and 7 px high: the patch divides none.
    assert_equal(config, twin, 1000, (256, 256), (224, 320), (200, 256))


@pytest.mark.parametrize("patches", PATCHES.values(), ids=PATCHES)
@pytest.mark.parametrize("name", ["mobilevit-xxs", "mobilevit-s", "mobilevitv2-0.5", "mobilevitv2-1.0"])
def test_logits_equal_those_of_timm_with_mixed_patches(name: str, patches: tuple[tuple[int, int], ...]) -> None:
    twin = timm_twin(name, patches, num_classes=37)

    config = with_patches(preset(name), patches)
    assert_equal(config, twin, 37, (224, 320), (200, 256))

    # Not every patch would do: the same weights with 2 x 2 patches say something else.
    stock = MobileViT(preset(name), 37).eval()
    stock.load_state_dict(from_timm(twin.state_dict(), config))
    images = torch.randn(1, 3, 224, 320)
    with torch.no_grad():
        assert (stock(images) - twin(images)).abs().max() > 5e-3


def test_timm_loads_what_is_converted_to_its_names() -> None:
    twin = timm_twin("mobilevitv2-0.75", num_classes=5)
    config = preset("mobilevitv2-0.75")
    network = random_weights(MobileViT(config, 5), seed=9)

    twin.load_state_dict(to_timm(network.state_dict(), config), strict=True)

    images = two_images(192, 160)
    with torch.no_grad():
        assert_same_logits(network(images), twin(images))
