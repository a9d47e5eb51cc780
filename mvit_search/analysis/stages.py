"""A candidate's architecture for people: one line, or one row a stage."""

from typing import NamedTuple

from mvit_search.architecture import ConvStage, MobileViTConfig, MobileViTStage
from mvit_search.architecture.ops import Assembly

STAGE_COLUMNS = (
    "Stage", "Kind", "Output", "Channels", "Stride", "Expand ratio", "Blocks or layers", "Dim d", "Heads",
    "FFN ratio", "Patch h × w", "Kernel n", "Fusion",
)  # fmt: skip
_NONE = "–"


class StageRow(NamedTuple):
    """Cells under `STAGE_COLUMNS`; what a kind of stage does not have is a dash."""

    stage: str
    kind: str
    output: str
    channels: str
    stride: str
    expand_ratio: str
    depth: str
    transformer_dim: str
    num_heads: str
    ffn_ratio: str
    patch: str
    conv_kernel_size: str
    fusion: str


def stage_rows(config: MobileViTConfig) -> tuple[StageRow, ...]:
    """Stem, stages and head in network order, with the feature map each hands on (height × width)."""
    network = Assembly(config)
    ends = network.backbone()
    _, height, width = network.shapes[0]
    rows = [_plain("stem", "convolution", height, width, config.stem_channels, stride=2)]
    for index, (stage, end) in enumerate(zip(config.stages, ends, strict=True)):
        _, height, width = network.shapes[end]
        rows.append(_stage_row(index, stage, f"{height} × {width}"))
    if config.head_channels is None:
        return tuple(rows)
    return (*rows, _plain("head", "1 × 1 convolution", height, width, config.head_channels, stride=1))


def stage_summary(config: MobileViTConfig) -> str:
    """`32 · 48×3 · 64 d96 L2 · 80 d120 L4 · 96 d144 L3`: channels, then blocks, or dim and layers."""
    return " · ".join(
        f"{s.out_channels}×{s.num_blocks}"
        if isinstance(s, ConvStage)
        else f"{s.out_channels} d{s.transformer_dim} L{s.num_layers}"
        for s in config.stages
    )


def _stage_row(index: int, stage: ConvStage | MobileViTStage, output: str) -> StageRow:
    channels, stride, expand = str(stage.out_channels), str(stage.stride), f"{stage.expand_ratio:g}"
    if isinstance(stage, ConvStage):
        blocks = f"{stage.num_blocks} block{'s' if stage.num_blocks > 1 else ''}"
        return StageRow(str(index), "inverted residuals", output, channels, stride, expand, blocks, *[_NONE] * 6)
    layers = f"{stage.num_layers} layer{'s' if stage.num_layers > 1 else ''}"
    separable = stage.attention == "separable"
    return StageRow(
        str(index), "MobileViTv2" if separable else "MobileViT", output, channels, stride, expand, layers,
        str(stage.transformer_dim), _NONE if separable else str(stage.num_heads), f"{stage.ffn_ratio:g}",
        f"{stage.patch_h} × {stage.patch_w}",
        str(stage.conv_kernel_size), "yes" if stage.fusion else "no",
    )  # fmt: skip


def _plain(stage: str, kind: str, height: int, width: int, channels: int, stride: int) -> StageRow:
    return StageRow(stage, kind, f"{height} × {width}", str(channels), str(stride), *[_NONE] * 8)
