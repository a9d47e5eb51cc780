"""The picture of an architecture: an SVG of image, stem, stages and head, drawn to scale and told in words as well."""

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from mvit_search.analysis.profile_facts import CLASSIFICATION, NetworkProfile, stage_kind
from mvit_search.architecture import ConvStage, MobileViTStage

_COLUMN, _COLUMNS = 133, 8
_TALLEST, _WIDEST, _MOST_SLABS, _GAP = 130, 20, 5, 3
_LINE, _TEXT_TOP, _IMAGE_WIDTH = 16, 24, 60.0


class Slab(NamedTuple):
    """One block of a stage: what kind of operator it is made of, and how wide."""

    kind: str
    channels: int


class Column(NamedTuple):
    """A stage as it is drawn.

    Attributes:
        side: geometric mean of its output's height and width in pixels.
        lines: what is written below it; the first is its name.
    """

    side: float
    slabs: tuple[Slab, ...]
    lines: tuple[str, ...]


def picture_columns(profile: NetworkProfile) -> tuple[Column, ...]:
    """Image, stem, stages and head in the order of the network."""
    config = profile.config
    height, width = config.image_size
    image = Column(math.sqrt(height * width), (Slab("image", 3),), ("Image", f"3 × {height} × {width}", "", "stride 1"))
    stem = profile.layers[0]
    columns = [
        image,
        Column(_side(stem.shape), (Slab("ends", stem.shape[0]),),
               ("Stem", _shape_words(stem.shape), "convolution", f"stride {stem.stride}")),
    ]  # fmt: skip
    columns += [_stage_column(profile, index, stage) for index, stage in enumerate(config.stages)]
    return (*columns, _head_column(profile))


def picture_svg(profile: NetworkProfile, identifier: str) -> str:
    """The picture; `identifier` must be unique in its page."""
    columns = picture_columns(profile)
    rows = math.ceil(len(columns) / _COLUMNS)
    each = math.ceil(len(columns) / rows)
    widest = max(slab.channels for column in columns for slab in column.slabs)
    tallest = columns[0].side
    drawn, top = [], 4
    for begin in range(0, len(columns), each):
        part = columns[begin : begin + each]
        scale = _Scale(tallest, widest)
        drawn.append(_row(part, top, scale, begin > 0, begin + each < len(columns)))
        top += _TALLEST + _TEXT_TOP + _LINE * max(len(column.lines) for column in part) + 14
    width = each * _COLUMN
    words = "; ".join(", ".join(filter(None, column.lines)) for column in columns)
    return (
        f'<svg class="architecture" role="img" aria-labelledby="{identifier}-title {identifier}-words" width="{width}"'
        f' height="{top}" viewBox="0 0 {width} {top}" xmlns="http://www.w3.org/2000/svg">'
        f'<title id="{identifier}-title">{escape(f"Architecture of {profile.name}")}</title>'
        f'<desc id="{identifier}-words">{escape(words)}</desc>{"".join(drawn)}</svg>'
    )


class _Scale(NamedTuple):
    """Square-root scales, so that 8 pixels and 256 both show."""

    tallest: float
    widest: int

    def height(self, side: float) -> float:
        return max(3.0, _TALLEST * math.sqrt(side / self.tallest))

    def width(self, slab: Slab) -> float:
        """The image stands upright, not edge on."""
        return _IMAGE_WIDTH if slab.kind == "image" else max(2.0, _WIDEST * math.sqrt(slab.channels / self.widest))


def _stage_column(profile: NetworkProfile, index: int, stage: ConvStage | MobileViTStage) -> Column:
    own = [row for row in profile.layers if row.name.startswith(f"stages.{index}.")]
    last = own[-1]
    ops = [op for row in own for op in row.own_operators(profile.ops)]
    dilation = max(op.dilation for op in ops)
    lines = [f"Stage {index}", _shape_words(last.shape)]
    if isinstance(stage, ConvStage):
        slabs = [Slab("conv", stage.out_channels)] * min(stage.num_blocks, _MOST_SLABS)
        lines += ["inverted residuals", f"stride {last.stride}", _counted(stage.num_blocks, "block")]
    else:
        kind = stage_kind(stage)
        layers = [Slab(kind, stage.transformer_dim)] * min(stage.num_layers, _MOST_SLABS - 1)
        slabs = [Slab("conv", stage.out_channels), *layers]
        lines += ["MobileViT" if kind == "softmax" else "MobileViTv2", f"stride {last.stride}"]
        lines += [f"{_counted(stage.num_layers, 'layer')}, d {stage.transformer_dim}"]
        lines += [_counted(stage.num_heads, "head")] if kind == "softmax" else []
        lines += [f"patch {stage.patch_h} × {stage.patch_w}"]
    if dilation > 1:
        lines.append(f"dilation {dilation}")
    return Column(_side(last.shape), tuple(slabs), tuple(lines))


def _head_column(profile: NetworkProfile) -> Column:
    classes = f"{profile.num_classes} class{'es' if profile.num_classes > 1 else ''}"
    last = [row for row in profile.layers if row.name.startswith("stages.")][-1]
    width = profile.config.head_channels
    if profile.task == CLASSIFICATION and width:
        shape = (width, *last.shape[1:])
        return Column(_side(shape), (Slab("ends", width),), ("Head", _shape_words(shape), "1 × 1, pooling", classes))
    if profile.task == CLASSIFICATION:
        channels = last.shape[0]
        return Column(1, (Slab("ends", channels),), ("Head", f"{channels} × 1 × 1", "pooling", classes))
    shown = profile.layers[-1].shape
    if profile.task == "segmentation":
        size = _side(shown)
        return Column(
            size, (Slab("ends", 256), Slab("ends", shown[0])), ("Head", _shape_words(shown), "DeepLabv3", classes)
        )
    boxes = f"{shown[0]:,} boxes"
    return Column(_side(last.shape), (Slab("ends", 512),) * 3, ("Head", boxes, "SSDLite, six maps", classes))


def _row(columns: Sequence[Column], top: float, scale: _Scale, comes_from: bool, goes_on: bool) -> str:
    """One row of the picture; its columns stand on one middle line."""
    middle = top + _TALLEST / 2
    parts = []
    for index, column in enumerate(columns):
        centre = (index + 0.5) * _COLUMN
        half = _group_width(column, scale) / 2
        parts.append(_slabs(column, centre - half, middle, scale))
        parts.append(_words(column.lines, centre, top + _TALLEST + _TEXT_TOP))
        if index or comes_from:
            before = (index - 0.5) * _COLUMN + _group_width(columns[index - 1], scale) / 2 if index else 0
            parts.append(_arrow(before + 5, centre - half - 5, middle))
    if goes_on:
        end = len(columns) * _COLUMN
        parts.append(_arrow(end - _COLUMN / 2 + _group_width(columns[-1], scale) / 2 + 5, end - 4, middle))
    return "".join(parts)


def _group_width(column: Column, scale: _Scale) -> float:
    return sum(scale.width(slab) for slab in column.slabs) + _GAP * (len(column.slabs) - 1)


def _slabs(column: Column, left: float, middle: float, scale: _Scale) -> str:
    height = scale.height(column.side)
    drawn = []
    for slab in column.slabs:
        width = scale.width(slab)
        drawn.append(
            f'<rect class="{slab.kind}" x="{left:.1f}" y="{middle - height / 2:.1f}" width="{width:.1f}"'
            f' height="{height:.1f}" rx="1.5"/>'
        )
        left += width + _GAP
    return "".join(drawn)


def _words(lines: Sequence[str], centre: float, top: float) -> str:
    return "".join(
        f'<text class="{("name", "shape", "fact")[min(index, 2)]}" x="{centre:.1f}" y="{top + _LINE * index:.1f}">'
        f"{escape(line)}</text>"
        for index, line in enumerate(lines)
        if line
    )


def _arrow(start: float, end: float, y: float) -> str:
    if end - start < 8:
        return ""
    return (
        f'<path class="arrow" d="M{start:.1f} {y:.1f}H{end - 5:.1f}"/>'
        f'<path class="tip" d="M{end:.1f} {y:.1f}l-6 -3.5v7z"/>'
    )


def _side(shape: Sequence[int]) -> float:
    return math.sqrt(shape[1] * shape[2])


def _shape_words(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'s' if number > 1 else ''}"
