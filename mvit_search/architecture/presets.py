"""The paper's three models as literals (arXiv 2110.02178, Table 4 and section 3.2)."""

from mvit_search.architecture.config import ConvStage, MobileViTConfig, MobileViTStage
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


PRESETS: dict[str, MobileViTConfig] = {
    "mobilevit-xxs": _mobilevit((16, 24, 48, 64, 80), (64, 80, 96), expand_ratio=2.0),
    "mobilevit-xs": _mobilevit((32, 48, 64, 80, 96), (96, 120, 144), expand_ratio=4.0),
    "mobilevit-s": _mobilevit((32, 64, 96, 128, 160), (144, 192, 240), expand_ratio=4.0),
}


def preset(name: str) -> MobileViTConfig:
    """The preset of that name.

    Raises:
        UnknownNameError: with the nearest preset name.
    """
    if name not in PRESETS:
        raise UnknownNameError("preset", name, PRESETS)
    return PRESETS[name]
