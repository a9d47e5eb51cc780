"""The published models: MobileViT (arXiv 2110.02178, Table 4), MobileViTv2 (arXiv 2206.02680, appendix)."""

from mvit_search.architecture.config import ConvStage, MobileViTConfig, MobileViTStage
from mvit_search.architecture.rows import make_divisible
from mvit_search.errors import UnknownNameError


def _mobilevit(
    widths: tuple[int, int, int, int, int], dims: tuple[int, int, int], expand_ratio: float
) -> MobileViTConfig:
    layers = (2, 4, 3)
    return MobileViTConfig(
        stages=(
            ConvStage(out_channels=widths[0], num_blocks=1, stride=1, expand_ratio=expand_ratio),
            ConvStage(out_channels=widths[1], num_blocks=3, stride=2, expand_ratio=expand_ratio),
            *(
                MobileViTStage(out_channels=width, expand_ratio=expand_ratio, transformer_dim=dim, num_layers=depth)
                for width, dim, depth in zip(widths[2:], dims, layers, strict=True)
            ),
        )
    )


def _mobilevitv2(width: float) -> MobileViTConfig:
    """All widths are one multiplier times those of MobileViTv2-1.0, rounded as its authors' code does."""
    dims = [make_divisible(base * width) for base in (128, 192, 256)]
    return MobileViTConfig(
        stem_channels=make_divisible(min(max(32 * width, 16), 64)),
        head_expansion=0.0,
        stages=(
            ConvStage(out_channels=make_divisible(64 * width, 16), num_blocks=1, stride=1, expand_ratio=2.0),
            ConvStage(out_channels=make_divisible(128 * width), num_blocks=2, stride=2, expand_ratio=2.0),
            *(
                MobileViTStage(
                    out_channels=2 * dim, expand_ratio=2.0, transformer_dim=dim, num_layers=depth,
                    attention="separable", fusion=False,
                )
                for dim, depth in zip(dims, (2, 4, 3), strict=True)
            ),
        ),
    )  # fmt: skip


PRESETS: dict[str, MobileViTConfig] = {
    "mobilevit-xxs": _mobilevit((16, 24, 48, 64, 80), (64, 80, 96), expand_ratio=2.0),
    "mobilevit-xs": _mobilevit((32, 48, 64, 80, 96), (96, 120, 144), expand_ratio=4.0),
    "mobilevit-s": _mobilevit((32, 64, 96, 128, 160), (144, 192, 240), expand_ratio=4.0),
    **{f"mobilevitv2-{width}": _mobilevitv2(width) for width in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)},
}


def preset(name: str) -> MobileViTConfig:
    """The preset of that name.

    Raises:
        UnknownNameError: with the nearest preset name.
    """
    if name not in PRESETS:
        raise UnknownNameError("preset", name, PRESETS)
    return PRESETS[name]
