"""The search-space file: YAML in, validated dimensions out. Loading executes nothing."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from mvit_search.architecture.config import stage_kind

Value = int | float | str | bool


class Choices(BaseModel):
    """`{choices: [2, 4, 8]}`: any of the listed values, in the listed order."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")
    choices: Annotated[tuple[Value, ...], Field(strict=False, min_length=1, max_length=1000)]

    @model_validator(mode="after")
    def _distinct(self) -> "Choices":
        if len(set(self.choices)) != len(self.choices):
            raise ValueError("choices must not repeat")
        return self

    def values(self) -> tuple[Value, ...]:
        return self.choices


class Range(BaseModel):
    """`{low: 48, high: 160, step: 16}`: integers from low to high, both included."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")
    low: int
    high: int
    step: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _ordered(self) -> "Range":
        if self.high < self.low:
            raise ValueError(f"high {self.high} must not be below low {self.low}")
        if (self.high - self.low) % self.step:
            raise ValueError(f"step {self.step} must divide high - low = {self.high - self.low}")
        if (self.high - self.low) // self.step >= 1000:
            raise ValueError("a range holds at most 1000 values")
        return self

    def values(self) -> tuple[Value, ...]:
        return tuple(range(self.low, self.high + 1, self.step))


def _as_dimension(value: Any) -> Any:
    """A bare value is a dimension that does not vary."""
    return value if isinstance(value, (dict, Choices, Range)) else {"choices": [value]}


def _form(value: Any) -> str:
    """Which of the two forms is meant, so that an error speaks of that one alone."""
    ranged = isinstance(value, Range) or (isinstance(value, dict) and not value.keys().isdisjoint(Range.model_fields))
    return "<range>" if ranged else "<choices>"


Dimension = Annotated[
    Annotated[Annotated[Choices, Tag("<choices>")] | Annotated[Range, Tag("<range>")], Discriminator(_form)],
    BeforeValidator(_as_dimension),
]


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class ConvStageSpec(_Spec):
    """Dimensions of a `ConvStage`; the field names are its own."""

    kind: Literal["conv"] = "conv"
    out_channels: Dimension
    num_blocks: Dimension
    stride: Dimension
    expand_ratio: Dimension


class MobileViTStageSpec(_Spec):
    """Dimensions of a `MobileViTStage`; the field names are its own."""

    kind: Literal["mobilevit"] = "mobilevit"
    out_channels: Dimension
    stride: Dimension
    expand_ratio: Dimension
    transformer_dim: Dimension
    num_layers: Dimension
    num_heads: Dimension
    ffn_ratio: Dimension
    patch_h: Dimension
    patch_w: Dimension
    conv_kernel_size: Dimension
    fusion: Dimension = Choices(choices=(True,))
    attention: Dimension = Choices(choices=("softmax",))


StageSpec = Annotated[
    Annotated[ConvStageSpec, Tag("<conv>")] | Annotated[MobileViTStageSpec, Tag("<mobilevit>")],
    Discriminator(stage_kind),
]


class SpaceSpec(_Spec):
    """A whole space file. `image_size` is (height, width) and does not vary."""

    description: str
    image_size: Annotated[tuple[int, int], Field(strict=False)]
    stem_channels: Dimension
    head_expansion: Dimension
    activation: Dimension
    stages: Annotated[tuple[StageSpec, ...], Field(strict=False, min_length=1, max_length=16)]
