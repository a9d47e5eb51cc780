"""State-dict key maps: the same weights under the names of CoreNet and of transformers.

The names of a library are one literal (`_CORENET`, `_TRANSFORMERS`); one walk over the config pairs them
with ours. transformers keeps query, key and value apart, which are one matrix (`qkv`) here and in CoreNet.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from mvit_search.architecture.config import ConvStage, MobileViTConfig, MobileViTStage
from mvit_search.errors import InputError

_NAMES_SHOWN = 4
_BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_WITH_BIAS = ("weight", "bias")  # a linear layer, a layer norm


class _Names(NamedTuple):
    """What a library calls each part. `{stage}`, `{block}`, `{layer}`: numbers, stages from `first_stage`."""

    first_stage: int
    # Inside a convolution with batch norm.
    conv: str
    norm: str
    # An inverted residual: where it stands, and its three convolutions.
    residual: str
    downsample: str
    expand: str
    depthwise: str
    project: str
    # A MobileViT block and its parts.
    block: str
    local: str
    to_dim: str
    transformer: str
    norm1: str
    qkv: tuple[str, ...]
    out: str
    norm2: str
    ffn: tuple[str, str]
    final_norm: str
    from_dim: str
    fuse: str
    # Before and after the stages.
    stem: str
    head: str
    classifier: str


_OURS = _Names(
    first_stage=0, conv="conv", norm="norm",
    residual="stages.{stage}.{block}", downsample="stages.{stage}.0",
    expand="expand", depthwise="depthwise", project="project",
    block="stages.{stage}.1", local="local", to_dim="to_dim",
    transformer="transformer.{layer}", norm1="norm1", qkv=("attention.qkv",), out="attention.out",
    norm2="norm2", ffn=("ffn.0", "ffn.2"), final_norm="norm", from_dim="from_dim", fuse="fuse",
    stem="stem", head="head.conv", classifier="head.classifier",
)  # fmt: skip

_CORENET = _Names(
    first_stage=1, conv="block.conv", norm="block.norm",
    residual="layer_{stage}.{block}.block", downsample="layer_{stage}.0.block",
    expand="exp_1x1", depthwise="conv_3x3", project="red_1x1",
    block="layer_{stage}.1", local="local_rep.conv_3x3", to_dim="local_rep.conv_1x1.block.conv",
    transformer="global_rep.{layer}", norm1="pre_norm_mha.0", qkv=("pre_norm_mha.1.qkv_proj",),
    out="pre_norm_mha.1.out_proj", norm2="pre_norm_ffn.0", ffn=("pre_norm_ffn.1", "pre_norm_ffn.4"),
    final_norm="global_rep.{layer}", from_dim="conv_proj", fuse="fusion",
    stem="conv_1", head="conv_1x1_exp", classifier="classifier.fc",
)  # fmt: skip

_TRANSFORMERS = _Names(
    first_stage=0, conv="convolution", norm="normalization",
    residual="mobilevit.encoder.layer.{stage}.layer.{block}",
    downsample="mobilevit.encoder.layer.{stage}.downsampling_layer",
    expand="expand_1x1", depthwise="conv_3x3", project="reduce_1x1",
    block="mobilevit.encoder.layer.{stage}", local="conv_kxk", to_dim="conv_1x1.convolution",
    transformer="transformer.layer.{layer}", norm1="layernorm_before",
    qkv=("attention.attention.query", "attention.attention.key", "attention.attention.value"),
    out="attention.output.dense", norm2="layernorm_after", ffn=("intermediate.dense", "output.dense"),
    final_norm="layernorm", from_dim="conv_projection", fuse="fusion",
    stem="mobilevit.conv_stem", head="mobilevit.conv_1x1_exp", classifier="classifier",
)  # fmt: skip


def from_corenet(state_dict: Mapping[str, Tensor], config: MobileViTConfig) -> dict[str, Tensor]:
    """A state dict of CoreNet's (or ml-cvnets') MobileViT under the names of `MobileViT(config)`.

    Raises:
        InputError: naming the missing and the surplus keys.
    """
    return _renamed(state_dict, config, _CORENET, _OURS)


def to_corenet(state_dict: Mapping[str, Tensor], config: MobileViTConfig) -> dict[str, Tensor]:
    """The state dict of `MobileViT(config)` under the names that an exported CoreNet plugin gives its parts.

    Raises:
        InputError: naming the missing and the surplus keys.
    """
    return _renamed(state_dict, config, _OURS, _CORENET)


def from_transformers(state_dict: Mapping[str, Tensor], config: MobileViTConfig) -> dict[str, Tensor]:
    """A state dict of transformers' `MobileViTForImageClassification` under the names of `MobileViT(config)`.

    Raises:
        InputError: naming the missing and the surplus keys.
    """
    return _renamed(state_dict, config, _TRANSFORMERS, _OURS)


def to_transformers(state_dict: Mapping[str, Tensor], config: MobileViTConfig) -> dict[str, Tensor]:
    """The state dict of `MobileViT(config)` under the names of `MobileViTForImageClassification`.

    Raises:
        InputError: naming the missing and the surplus keys.
    """
    return _renamed(state_dict, config, _OURS, _TRANSFORMERS)


def _renamed(
    state_dict: Mapping[str, Tensor], config: MobileViTConfig, source: _Names, target: _Names
) -> dict[str, Tensor]:
    groups = list(zip(_keys(config, source), _keys(config, target), strict=True))
    _check_keys(state_dict, {key for keys, _ in groups for key in keys})
    result: dict[str, Tensor] = {}
    for old, new in groups:
        tensors = [state_dict[key] for key in old]
        if len(old) > len(new):
            tensors = [torch.cat(tensors)]  # (d, d) three times -> (3d, d)
        elif len(old) < len(new):
            tensors = [part.clone() for part in tensors[0].chunk(len(new))]
        result.update(zip(new, tensors, strict=True))
    return result


def _check_keys(state_dict: Mapping[str, Tensor], expected: set[str]) -> None:
    missing = sorted(expected - state_dict.keys())
    surplus = sorted(state_dict.keys() - expected)
    if not missing and not surplus:
        return
    problems = [f"lacks {_shown(missing)}"] if missing else []
    problems += [f"has the unknown {_shown(surplus)}"] if surplus else []
    raise InputError("state_dict", None, " and ".join(problems), "is it the network of this config?")


def _shown(keys: list[str]) -> str:
    more = f" and {len(keys) - _NAMES_SHOWN} more" if len(keys) > _NAMES_SHOWN else ""
    return ", ".join(keys[:_NAMES_SHOWN]) + more


def _keys(config: MobileViTConfig, names: _Names) -> Iterator[tuple[str, ...]]:
    """All keys in the order of execution; a tuple of three where a library splits what is one tensor here."""
    yield from _conv_norm(names.stem, names)
    for index, stage in enumerate(config.stages):
        number = index + names.first_stage
        if isinstance(stage, ConvStage):
            for block in range(stage.num_blocks):
                yield from _residual(names.residual.format(stage=number, block=block), stage, names)
        else:
            yield from _residual(names.downsample.format(stage=number), stage, names)
            yield from _block(names.block.format(stage=number), stage, names)
    yield from _conv_norm(names.head, names)
    yield from _leaves((names.classifier,), _WITH_BIAS)


def _residual(place: str, stage: ConvStage | MobileViTStage, names: _Names) -> Iterator[tuple[str, ...]]:
    if stage.expand_ratio != 1:
        yield from _conv_norm(f"{place}.{names.expand}", names)
    yield from _conv_norm(f"{place}.{names.depthwise}", names)
    yield from _conv_norm(f"{place}.{names.project}", names)


def _block(place: str, stage: MobileViTStage, names: _Names) -> Iterator[tuple[str, ...]]:
    yield from _conv_norm(f"{place}.{names.local}", names)
    yield from _leaves((f"{place}.{names.to_dim}",), ("weight",))
    for layer in range(stage.num_layers):
        inner = f"{place}.{names.transformer.format(layer=layer)}"
        for part in (names.norm1, names.out, names.norm2, *names.ffn):
            yield from _leaves((f"{inner}.{part}",), _WITH_BIAS)
        yield from _leaves(tuple(f"{inner}.{part}" for part in names.qkv), _WITH_BIAS)
    # CoreNet numbers the last layer norm as one more transformer layer.
    yield from _leaves((f"{place}.{names.final_norm.format(layer=stage.num_layers)}",), _WITH_BIAS)
    yield from _conv_norm(f"{place}.{names.from_dim}", names)
    if stage.fusion:
        yield from _conv_norm(f"{place}.{names.fuse}", names)


def _conv_norm(place: str, names: _Names) -> Iterator[tuple[str, ...]]:
    yield from _leaves((f"{place}.{names.conv}",), ("weight",))
    yield from _leaves((f"{place}.{names.norm}",), _BATCH_NORM)


def _leaves(places: tuple[str, ...], leaves: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for leaf in leaves:
        yield tuple(f"{place}.{leaf}" for place in places)
