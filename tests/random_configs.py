"""Random configs over every field, far beyond any search space: what the op table has to be right for."""

import math
import random

from mvit_search.architecture import ConvStage, MobileViTConfig, MobileViTStage


def random_config(rng: random.Random, *, max_image: int = 96) -> MobileViTConfig:
    """A small but odd network: any stage order, strides, attention, patches that do not divide, fusion on and off."""
    stages = [_conv(rng) if rng.random() < 0.4 else _mobilevit(rng) for _ in range(rng.randint(1, 4))]
    smallest = max(20, 2 * math.prod(stage.stride for stage in stages))
    return MobileViTConfig(
        image_size=(rng.randint(smallest, max_image), rng.randint(smallest, max_image)),
        stem_channels=rng.choice((4, 8, 12, 16)),
        head_expansion=rng.choice((0, 1, 2.5, 4)),
        activation=rng.choice(("silu", "relu", "hardswish")),
        stages=tuple(stages),
    )


def _conv(rng: random.Random) -> ConvStage:
    return ConvStage(
        out_channels=rng.choice((8, 12, 16, 24)),
        num_blocks=rng.randint(1, 3),
        stride=rng.randint(1, 2),
        expand_ratio=rng.choice((1, 1.5, 2, 4)),
    )


def _mobilevit(rng: random.Random) -> MobileViTStage:
    separable = rng.random() < 0.4
    heads = 1 if separable else rng.choice((1, 2, 3, 4))
    return MobileViTStage(
        out_channels=rng.choice((8, 16, 20)),
        stride=rng.randint(1, 2),
        expand_ratio=rng.choice((1, 2, 3.5)),
        transformer_dim=heads * rng.randint(2, 8),
        num_layers=rng.randint(1, 3),
        num_heads=heads,
        ffn_ratio=rng.choice((0.5, 1.3, 2, 4)),
        patch_h=rng.randint(1, 4),
        patch_w=rng.randint(1, 4),
        conv_kernel_size=rng.choice((1, 3, 5)),
        fusion=rng.random() < 0.6,
        attention="separable" if separable else "softmax",
    )
