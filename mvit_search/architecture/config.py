"""`MobileViTConfig`: the only description of a network.

Its fields are the network's constructor arguments, one to one. What cannot be built cannot be
constructed: every rule is checked here, and the error names the field, the value and the rule.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from mvit_search.errors import InputError

# CoreNet caps the last 1x1 convolution at this width (MobileNetV3-large's).
MAX_HEAD_CHANNELS = 960


def _integral(value: Any) -> Any:
    """4.0 and 4 are the same candidate, whichever of them a YAML file says."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _square(value: Any) -> Any:
    """A side stands for the square."""
    return (value, value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _broken(field: str, rule: str) -> PydanticCustomError:
    """A rule between fields, and the one of them to mend."""
    return PydanticCustomError("rule", "{rule}", {"rule": rule, "field": field})


# The upper bounds are far outside anything mobile: they refuse absurd sizes before memory is taken.
Channels = Annotated[int, BeforeValidator(_integral), Field(ge=1, le=8192)]
Depth = Annotated[int, BeforeValidator(_integral), Field(ge=1, le=64)]
Stride = Annotated[int, BeforeValidator(_integral), Field(ge=1, le=2)]
Patch = Annotated[int, BeforeValidator(_integral), Field(ge=1, le=64)]
Pixels = Annotated[int, BeforeValidator(_integral), Field(ge=16, le=8192)]
Ratio = Annotated[float, Field(gt=0, le=16, allow_inf_nan=False)]
# Below 1 the block would narrow, and leaving the expansion out (at 1) would cost more than having it.
ExpandRatio = Annotated[float, Field(ge=1, le=16, allow_inf_nan=False)]
# Adding zero makes -0.0 the 0.0 that it equals: one candidate, one digest.
HeadRatio = Annotated[float, Field(ge=0, le=16, allow_inf_nan=False), AfterValidator(lambda ratio: ratio + 0.0)]
Activation = Literal["silu", "relu", "hardswish"]
Attention = Literal["softmax", "separable"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class ConvStage(_Frozen):
    """`num_blocks` MobileNetV2 inverted residuals; the first one carries `stride`."""

    kind: Literal["conv"] = "conv"
    out_channels: Channels
    num_blocks: Depth = 1
    stride: Stride = 1
    expand_ratio: ExpandRatio = 4.0


class MobileViTStage(_Frozen):
    """One inverted residual with `stride`, then one MobileViT block (paper, section 3.1).

    `conv_kernel_size` is the paper's n, `transformer_dim` its d, `num_layers` its L, and the patch its
    h and w in pixels. A patch that does not divide the feature map is legal: the map is resized
    bilinearly before unfolding and back after folding (paper, Table 6: h = w = 3). `fusion` off leaves
    out the concatenation with the input and the n x n fusion convolution (paper, appendix: skip
    connection).

    `attention: separable` is the MobileViTv2 block (arXiv 2206.02680): linear attention on channels-first tokens, a
    depthwise local convolution, no activation after the projection, and a map that stays resized. It has no heads.
    """

    kind: Literal["mobilevit"] = "mobilevit"
    out_channels: Channels
    stride: Stride = 2
    expand_ratio: ExpandRatio = 4.0
    transformer_dim: Channels
    num_layers: Depth = 2
    num_heads: Depth = 4
    ffn_ratio: Ratio = 2.0
    patch_h: Patch = 2
    patch_w: Patch = 2
    conv_kernel_size: Annotated[int, BeforeValidator(_integral), Field(ge=1, le=31)] = 3
    fusion: bool = True
    attention: Attention = "softmax"

    @model_validator(mode="before")
    @classmethod
    def _no_heads_unless_softmax(cls, data: Any) -> Any:
        """Four heads are the default of softmax attention alone."""
        if isinstance(data, dict) and data.get("attention") == "separable":
            return {"num_heads": 1, **data}
        return data

    @model_validator(mode="after")
    def _buildable(self) -> Self:
        if self.attention == "separable" and self.num_heads != 1:
            rule = f"num_heads {self.num_heads} must be 1 or left out: separable attention has no heads"
            raise _broken("num_heads", rule)
        if self.transformer_dim % self.num_heads:
            rule = f"transformer_dim {self.transformer_dim} must be divisible by num_heads {self.num_heads}"
            raise _broken("num_heads" if "num_heads" in self.model_fields_set else "transformer_dim", rule)
        if self.conv_kernel_size % 2 == 0:
            raise _broken("conv_kernel_size", f"conv_kernel_size {self.conv_kernel_size} must be odd")
        if self.ffn_dim < 1:
            rule = f"ffn_ratio {self.ffn_ratio} of transformer_dim {self.transformer_dim} leaves no channel"
            raise _broken("ffn_ratio", rule)
        return self

    @property
    def ffn_dim(self) -> int:
        """Hidden channels of the feed-forward part; truncated, as timm and transformers do."""
        return int(self.ffn_ratio * self.transformer_dim)


def stage_kind(value: Any) -> str:
    """Tag of the stage union; a stage that says no kind is told by the fields only a MobileViT stage has."""
    if isinstance(value, dict):
        return f"<{value.get('kind', 'mobilevit' if 'transformer_dim' in value else 'conv')}>"
    return f"<{getattr(value, 'kind', None)}>"


Stage = Annotated[
    Annotated[ConvStage, Tag("<conv>")] | Annotated[MobileViTStage, Tag("<mobilevit>")],
    Discriminator(stage_kind),
]


class MobileViTConfig(_Frozen):
    """A MobileViT network. Defaults are those that the paper's three models share.

    `image_size` is (height, width) in pixels: the resolution the network is costed and trained at.
    `head_expansion` 0 leaves out the last 1x1 convolution, as MobileViTv2 does. Class count and output stride
    are not part of a candidate: they go to `MobileViT(config, num_classes, output_stride=...)`.
    """

    image_size: Annotated[tuple[Pixels, Pixels], BeforeValidator(_square), Field(strict=False)] = (256, 256)
    stem_channels: Channels = 16
    head_expansion: HeadRatio = 4.0
    activation: Activation = "silu"
    stages: Annotated[tuple[Stage, ...], Field(strict=False, min_length=1, max_length=16)]

    @model_validator(mode="after")
    def _large_enough_input(self) -> Self:
        if min(self.image_size) < self.total_stride:
            raise _broken(
                "image_size",
                f"image_size {self.image_size[0]}x{self.image_size[1]} must be at least the network's total stride, "
                f"{self.total_stride} px: the last strides would have a single pixel left to halve",
            )
        return self

    @property
    def total_stride(self) -> int:
        """Input pixels per pixel of the last feature map, at most."""
        return 2 * math.prod(stage.stride for stage in self.stages)

    @property
    def head_channels(self) -> int | None:
        """Channels of the last 1x1 convolution, capped as CoreNet does; None where there is none."""
        if self.head_expansion == 0:
            return None
        return max(1, min(int(self.head_expansion * self.stages[-1].out_channels), MAX_HEAD_CHANNELS))

    def canonical_json(self) -> str:
        """One spelling for one candidate: all fields, sorted keys, no white space."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    def digest(self) -> str:
        """sha256 of the canonical JSON: the candidate's identity everywhere."""
        return _digest(self)

    def with_image_size(self, height: int, width: int | None = None) -> "MobileViTConfig":
        """The same network at another resolution (validated)."""
        return parse_config(
            {**self.model_dump(), "image_size": (height, height if width is None else width)}, source="config"
        )


# Kept under the value, not in the object: a changed copy of a config would carry the old one along.
@lru_cache(maxsize=1 << 14)
def _digest(config: MobileViTConfig) -> str:
    return hashlib.sha256(config.canonical_json().encode()).hexdigest()


_LEVELS = {"<conv>": list(ConvStage.model_fields), "<mobilevit>": list(MobileViTStage.model_fields)}


def parse_config(data: object, source: str = "config") -> MobileViTConfig:
    """Build a config from plain data (a YAML or JSON document).

    Raises:
        InputError: naming the first field that breaks a rule, prefixed by `source`.
    """
    if not isinstance(data, dict):
        raise InputError(
            source, None, "must be a mapping with the keys of a config", "see `mvit-search profile --json`"
        )
    try:
        return MobileViTConfig.model_validate(data)
    except ValidationError as error:
        raise validation_input_error(error, source, list(MobileViTConfig.model_fields), _LEVELS) from None


def known_fields(*models: type[BaseModel]) -> list[str]:
    """Field names of several models, for nearest-name advice."""
    return sorted({name for model in models for name in model.model_fields})


def validation_input_error(
    error: ValidationError, source: str, known: list[str], levels: Mapping[str, list[str]] | None = None
) -> InputError:
    """The first problem of a pydantic error as one line; the nearest field name for a misspelt key.

    Args:
        known: the keys of the outermost mapping, or of all.
        levels: the keys of the mappings inside, by the tag of the union's member that was meant.
    """
    # An unknown key explains a missing one, so it goes first.
    problems = sorted(error.errors(include_url=False), key=lambda p: p["type"] != "extra_forbidden")
    first = problems[0]
    more = f"{len(problems) - 1} more problem(s) after this one" if len(problems) > 1 else ""
    if first["type"] == "extra_forbidden":
        rule, advice = _unknown_key(first["loc"], known, levels or {})
        return InputError(_path(source, first["loc"]), None, rule, advice)
    if "image_size" in first["loc"] and first["type"] in ("tuple_type", "too_long", "too_short", "missing"):
        rule = "must be height and width in pixels, as [256, 256], or one number for a square"
        return InputError(_path(source, first["loc"][: first["loc"].index("image_size") + 1]), None, rule, more)
    # A rule between fields is found at what holds them.
    field = _path(source, (*first["loc"], *filter(None, [first.get("ctx", {}).get("field")])))
    if first["type"] == "union_tag_invalid":
        kind = first["input"].get("kind") if isinstance(first["input"], dict) else first["input"]
        return InputError(f"{field}.kind", kind, "must be 'conv' or 'mobilevit'", more)
    # Of text that is no JSON the input is all of it.
    value = first["input"] if not isinstance(first["input"], (dict, list, tuple, bytes)) else None
    return InputError(field, None if first["type"] == "missing" else value, _rule(first), more)


def _path(source: str, loc: Sequence[int | str]) -> str:
    """`config: stages.2.num_heads`."""
    # The parts that only say which member of a union was meant are no fields.
    path = ".".join(str(part) for part in loc if not str(part).startswith("<"))
    return f"{source}: {path}" if path else source


def _unknown_key(loc: Sequence[int | str], known: list[str], levels: Mapping[str, list[str]]) -> tuple[str, str]:
    """Rule and advice; a key of the other kind of stage is not misspelt, so none is put in its place."""
    from difflib import get_close_matches

    key, tag = str(loc[-1]), str(loc[-2]) if len(loc) > 1 else ""
    here = levels.get(tag, known)
    if tag in ("<conv>", "<mobilevit>") and any(key in fields for fields in levels.values()):
        return f"a {tag[1:-1]} stage has no {key}", f"it has {', '.join(here)}"
    near = get_close_matches(key, here, n=1)
    return "unknown key", f"did you mean {near[0]!r}?" if near else f"known: {', '.join(here)}"


def _rule(problem: ErrorDetails) -> str:
    """What pydantic says, in words that a file's author uses."""
    least = problem.get("ctx", {}).get("min_length")
    plain = {
        "missing": "is required",
        "tuple_type": "must be a list",
        "too_short": f"must have at least {least} item{'' if least == 1 else 's'}",
        "dict_type": "must be a mapping",
        "model_type": "must be a mapping",
    }
    rule = problem["msg"].removeprefix("Value error, ")
    return plain.get(problem["type"], rule[0].lower() + rule[1:])
