"""What each library calls the parts of a network: one literal a library, one walk over the config.

A layout is checked against the libraries' blocks, not their stock models: it names a block that the library has, at any
width, depth, kernel and patch. Where a library's block always has a part that the config leaves out, or never one that
it asks for, the config has no such names.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from mvit_search.architecture.config import Attention, ConvStage, MobileViTConfig, MobileViTStage, Stage
from mvit_search.errors import InputError, UnknownNameError

Layout = Literal["ours", "corenet", "timm", "transformers"]
LAYOUTS: tuple[Layout, ...] = ("ours", "corenet", "timm", "transformers")

COUNTER = "num_batches_tracked"
"""The one leaf that no evaluation reads; many exported checkpoints leave it out."""
_BATCH_NORM = ("weight", "bias", "running_mean", "running_var", COUNTER)
_WITH_BIAS = ("weight", "bias")  # a linear layer, a layer norm, a convolution without batch norm


class _Block(NamedTuple):
    """A MobileViT block's parts, below the block. `{layer}`: the transformer layer's number."""

    local: str
    to_dim: str
    transformer: str
    norm1: str
    qkv: tuple[str, ...]  # three names where a library splits what is one matrix here
    out: str
    norm2: str
    ffn: tuple[str, str]
    final_norm: str
    from_dim: str
    fuse: str | None  # None: the library's block has no fusion
    always_fuses: bool = False


class _Names(NamedTuple):
    """What a library calls each part. `{stage}`, `{block}`: numbers, stages from `first_stage`."""

    library: str
    # Inside a convolution with batch norm.
    conv: str
    norm: str
    # Before and after the stages. A head of None: the library's network has no last 1x1 convolution.
    stem: str
    head: str | None
    classifier: str
    # An inverted residual: where it stands, and its three convolutions.
    residual: str
    downsample: str
    expand: str
    depthwise: str
    project: str
    # A MobileViT block: where it stands, and its parts by the kind of attention.
    block: str
    blocks: dict[Attention, _Block]
    first_stage: int = 0
    classifier_without_head: str | None = None  # where it differs
    always_expands: bool = False


_OUR_BLOCK = _Block(
    local="local", to_dim="to_dim", transformer="transformer.{layer}", norm1="norm1", qkv=("attention.qkv",),
    out="attention.out", norm2="norm2", ffn=("ffn.0", "ffn.2"), final_norm="norm", from_dim="from_dim", fuse="fuse",
)  # fmt: skip

_OURS = _Names(
    library="this project", conv="conv", norm="norm", stem="stem", head="head.conv", classifier="head.classifier",
    residual="stages.{stage}.{block}", downsample="stages.{stage}.0",
    expand="expand", depthwise="depthwise", project="project",
    block="stages.{stage}.1", blocks={"softmax": _OUR_BLOCK, "separable": _OUR_BLOCK},
)  # fmt: skip

# ml-cvnets gave CoreNet these names: its releases 0.1 to 0.4 have the same.
_CORENET = _Names(
    library="CoreNet", conv="block.conv", norm="block.norm", stem="conv_1", head="conv_1x1_exp",
    # MobileViT names the layers of its classifier; MobileViTv2, which has no head convolution, counts them.
    classifier="classifier.fc", classifier_without_head="classifier.1",
    residual="layer_{stage}.{block}.block", downsample="layer_{stage}.0.block", first_stage=1,
    expand="exp_1x1", depthwise="conv_3x3", project="red_1x1",
    block="layer_{stage}.1",
    blocks={
        "softmax": _Block(
            local="local_rep.conv_3x3", to_dim="local_rep.conv_1x1.block.conv",
            transformer="global_rep.{layer}", norm1="pre_norm_mha.0", qkv=("pre_norm_mha.1.qkv_proj",),
            out="pre_norm_mha.1.out_proj", norm2="pre_norm_ffn.0", ffn=("pre_norm_ffn.1", "pre_norm_ffn.4"),
            final_norm="global_rep.{layer}", from_dim="conv_proj", fuse="fusion",
        ),
        "separable": _Block(
            local="local_rep.0", to_dim="local_rep.1.block.conv",
            transformer="global_rep.{layer}", norm1="pre_norm_attn.0", qkv=("pre_norm_attn.1.qkv_proj.block.conv",),
            out="pre_norm_attn.1.out_proj.block.conv", norm2="pre_norm_ffn.0",
            ffn=("pre_norm_ffn.1.block.conv", "pre_norm_ffn.3.block.conv"),
            final_norm="global_rep.{layer}", from_dim="conv_proj", fuse=None,
        ),
    },
)  # fmt: skip

_TIMM = _Names(
    library="timm", conv="conv", norm="bn", stem="stem", head="final_conv", classifier="head.fc",
    residual="stages.{stage}.{block}", downsample="stages.{stage}.0", always_expands=True,
    expand="conv1_1x1", depthwise="conv2_kxk", project="conv3_1x1",
    block="stages.{stage}.1",
    blocks={
        "softmax": _Block(
            local="conv_kxk", to_dim="conv_1x1", transformer="transformer.{layer}", norm1="norm1", qkv=("attn.qkv",),
            out="attn.proj", norm2="norm2", ffn=("mlp.fc1", "mlp.fc2"), final_norm="norm", from_dim="conv_proj",
            fuse="conv_fusion",
        ),
        "separable": _Block(
            local="conv_kxk", to_dim="conv_1x1", transformer="transformer.{layer}", norm1="norm1",
            qkv=("attn.qkv_proj",), out="attn.out_proj", norm2="norm2", ffn=("mlp.fc1", "mlp.fc2"),
            final_norm="norm", from_dim="conv_proj", fuse=None,
        ),
    },
)  # fmt: skip

_TRANSFORMERS_V1 = _Names(
    library="transformers", conv="convolution", norm="normalization",
    stem="mobilevit.conv_stem", head="mobilevit.conv_1x1_exp", classifier="classifier",
    residual="mobilevit.encoder.layer.{stage}.layer.{block}",
    downsample="mobilevit.encoder.layer.{stage}.downsampling_layer", always_expands=True,
    expand="expand_1x1", depthwise="conv_3x3", project="reduce_1x1",
    block="mobilevit.encoder.layer.{stage}",
    blocks={
        "softmax": _Block(
            local="conv_kxk", to_dim="conv_1x1.convolution", transformer="transformer.layer.{layer}",
            norm1="layernorm_before",
            qkv=("attention.attention.query", "attention.attention.key", "attention.attention.value"),
            out="attention.output.dense", norm2="layernorm_after", ffn=("intermediate.dense", "output.dense"),
            final_norm="layernorm", from_dim="conv_projection", fuse="fusion", always_fuses=True,
        ),
    },
)  # fmt: skip

_TRANSFORMERS_V2 = _Names(
    library="transformers", conv="convolution", norm="normalization",
    stem="mobilevitv2.conv_stem", head=None, classifier="classifier",
    residual="mobilevitv2.encoder.layer.{stage}.layer.{block}",
    downsample="mobilevitv2.encoder.layer.{stage}.downsampling_layer", always_expands=True,
    expand="expand_1x1", depthwise="conv_3x3", project="reduce_1x1",
    block="mobilevitv2.encoder.layer.{stage}",
    blocks={
        "separable": _Block(
            local="conv_kxk", to_dim="conv_1x1.convolution", transformer="transformer.layer.{layer}",
            norm1="layernorm_before", qkv=("attention.qkv_proj.convolution",), out="attention.out_proj.convolution",
            norm2="layernorm_after", ffn=("ffn.conv1.convolution", "ffn.conv2.convolution"),
            final_norm="layernorm", from_dim="conv_projection", fuse=None,
        ),
    },
)  # fmt: skip


def layout_keys(config: MobileViTConfig, layout: Layout) -> list[tuple[str, ...]]:
    """All keys of the network in that layout, in the order of execution, the same order in every layout.

    A tuple of three stands where a library splits what is one tensor here, along the first axis.

    Raises:
        UnknownNameError: no such layout.
        InputError: the library has no block of that kind; names the stage and the rule.
    """
    names = _names(config, layout)
    for index, stage in enumerate(config.stages):
        _check_stage(f"stages.{index}", stage, names)
    return list(_keys(config, names))


def classifier_weight(config: MobileViTConfig, layout: Layout) -> str:
    """The key of the (classes, channels) matrix, whose rows count the classes."""
    return f"{_classifier(config, _names(config, layout))}.weight"


def _names(config: MobileViTConfig, layout: Layout) -> _Names:
    if layout not in LAYOUTS:
        raise UnknownNameError("layout", layout, LAYOUTS)
    if layout != "transformers":
        return {"ours": _OURS, "corenet": _CORENET, "timm": _TIMM}[layout]
    return _transformers(config)


def _transformers(config: MobileViTConfig) -> _Names:
    """transformers has two models, each with one kind of attention; the first stage of that sort decides."""
    kinds = [(index, stage.attention) for index, stage in enumerate(config.stages) if isinstance(stage, MobileViTStage)]
    family = kinds[0][1] if kinds else "softmax"
    for index, attention in kinds:
        if attention != family:
            rule = f"transformers has no network with both kinds, and stages.{kinds[0][0]} is {family}"
            raise InputError(f"stages.{index}.attention", attention, rule, "use the layout of corenet or timm")
    has_head = config.head_channels is not None
    if family == "softmax" and not has_head:
        rule = "transformers' MobileViT always has a last 1x1 convolution"
        raise InputError("head_expansion", config.head_expansion, rule, "use the layout of corenet or timm")
    if family == "separable" and has_head:
        rule = "transformers' MobileViTV2 has no last 1x1 convolution"
        raise InputError("head_expansion", config.head_expansion, rule, "use the layout of corenet or timm")
    return _TRANSFORMERS_V1 if family == "softmax" else _TRANSFORMERS_V2


def _check_stage(field: str, stage: Stage, names: _Names) -> None:
    if names.always_expands and stage.expand_ratio == 1:
        rule = f"{names.library}'s inverted residual always has its first 1x1 convolution"
        raise InputError(f"{field}.expand_ratio", stage.expand_ratio, rule, "use the layout of corenet")
    if isinstance(stage, ConvStage):
        return
    block = names.blocks[stage.attention]
    if stage.fusion and block.fuse is None:
        rule = f"{names.library}'s block with separable attention has no fusion convolution"
        raise InputError(f"{field}.fusion", stage.fusion, rule, "only the layout of ours has a name for it")
    if not stage.fusion and block.always_fuses:
        rule = f"{names.library}'s MobileViT block always has its fusion convolution"
        raise InputError(f"{field}.fusion", stage.fusion, rule, "use the layout of corenet or timm")


def _keys(config: MobileViTConfig, names: _Names) -> Iterator[tuple[str, ...]]:
    yield from _conv_norm(names.stem, names)
    for number, stage in enumerate(config.stages, start=names.first_stage):
        if isinstance(stage, ConvStage):
            for block in range(stage.num_blocks):
                yield from _residual(names.residual.format(stage=number, block=block), stage, names)
        else:
            yield from _residual(names.downsample.format(stage=number), stage, names)
            yield from _block(names.block.format(stage=number), stage, names)
    if config.head_channels is not None and names.head is not None:
        yield from _conv_norm(names.head, names)
    yield from _leaves((_classifier(config, names),), _WITH_BIAS)


def _classifier(config: MobileViTConfig, names: _Names) -> str:
    return names.classifier if config.head_channels is not None else names.classifier_without_head or names.classifier


def _residual(place: str, stage: Stage, names: _Names) -> Iterator[tuple[str, ...]]:
    if stage.expand_ratio != 1:
        yield from _conv_norm(f"{place}.{names.expand}", names)
    yield from _conv_norm(f"{place}.{names.depthwise}", names)
    yield from _conv_norm(f"{place}.{names.project}", names)


def _block(place: str, stage: MobileViTStage, names: _Names) -> Iterator[tuple[str, ...]]:
    block = names.blocks[stage.attention]
    yield from _conv_norm(f"{place}.{block.local}", names)
    yield from _leaves((f"{place}.{block.to_dim}",), ("weight",))
    for layer in range(stage.num_layers):
        inner = f"{place}.{block.transformer.format(layer=layer)}"
        for part in (block.norm1, block.out, block.norm2, *block.ffn):
            yield from _leaves((f"{inner}.{part}",), _WITH_BIAS)
        yield from _leaves(tuple(f"{inner}.{part}" for part in block.qkv), _WITH_BIAS)
    # CoreNet numbers the last layer norm as one more transformer layer.
    yield from _leaves((f"{place}.{block.final_norm.format(layer=stage.num_layers)}",), _WITH_BIAS)
    yield from _conv_norm(f"{place}.{block.from_dim}", names)
    if stage.fusion and block.fuse is not None:
        yield from _conv_norm(f"{place}.{block.fuse}", names)


def _conv_norm(place: str, names: _Names) -> Iterator[tuple[str, ...]]:
    yield from _leaves((f"{place}.{names.conv}",), ("weight",))
    yield from _leaves((f"{place}.{names.norm}",), _BATCH_NORM)


def _leaves(places: tuple[str, ...], leaves: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for leaf in leaves:
        yield tuple(f"{place}.{leaf}" for place in places)
