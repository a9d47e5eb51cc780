"""The search-space file: what it may say. Loading executes nothing.

A field is a bare value, `Choices`, a `Range`, or a `Tie` to a knob or to another field; the last three may be
conditional (`when`, `otherwise`). Descriptions of fields are what an editor shows: see `json_schema`.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    Tag,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from mvit_search.architecture.config import Pixels, stage_kind

MOST_VALUES = 1000
_LARGEST = 10**6

Value = int | float | str | bool


def _plain(value: Any) -> Value:
    """Numbers, words and truth values, of sizes that can mean something."""
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        # Also refuses the number that is none, which compares false with everything.
        if not -_LARGEST <= value <= _LARGEST:
            raise ValueError(f"must be a number between -{_LARGEST} and {_LARGEST}")
        return value
    if isinstance(value, str) and len(value) <= 40 and value.isprintable():
        return value
    raise ValueError("must be a number, a word, true or false")


# Not a union for pydantic: its error would list what each member has against the value.
PlainValue = Annotated[Any, BeforeValidator(_plain), WithJsonSchema({"type": ["number", "string", "boolean"]})]


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


def _as_list(value: Any) -> Any:
    return value if isinstance(value, (list, tuple)) else [value]


Allowed = Annotated[
    tuple[PlainValue, ...],
    BeforeValidator(_as_list),
    Field(strict=False, min_length=1, max_length=MOST_VALUES),
    WithJsonSchema(
        {"anyOf": [{"type": ["number", "string", "boolean"]}, {"type": "array", "minItems": 1}]}, mode="validation"
    ),
]


class _Conditional(_Spec):
    when: Annotated[dict[str, Allowed], Field(min_length=1, max_length=8)] | None = Field(
        default=None,
        description="Only where these fields or knobs have one of these values: {attention: softmax}. A name is a"
        " field of the same stage, a knob, or a full path such as stages.2.attention.",
    )
    otherwise: PlainValue | None = Field(default=None, description="The value wherever `when` does not hold.")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.when is None) != (self.otherwise is None):
            raise ValueError("`when` and `otherwise` go together: a condition says what holds without it")
        return self


class Choices(_Conditional):
    """`{choices: [2, 4, 8]}`: any of the listed values, in the listed order."""

    choices: Annotated[tuple[PlainValue, ...], Field(strict=False, min_length=1, max_length=MOST_VALUES)] = Field(
        description="The values it may take."
    )

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.choices)) != len(self.choices):
            raise ValueError("choices must not repeat")
        return self

    def values(self) -> tuple[Value, ...]:
        return self.choices


Bound = Annotated[int, Field(ge=-_LARGEST, le=_LARGEST)]


class Range(_Conditional):
    """`{low: 48, high: 160, step: 16}`: integers from low to high, both included."""

    low: Bound = Field(description="Lowest value.")
    high: Bound = Field(description="Highest value, itself included.")
    step: Annotated[int, Field(ge=1, le=_LARGEST)] = Field(default=1, description="Distance of neighbours.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.high < self.low:
            raise ValueError(f"high {self.high} must not be below low {self.low}")
        if (self.high - self.low) % self.step:
            raise ValueError(f"step {self.step} must divide high - low = {self.high - self.low}")
        if (self.high - self.low) // self.step >= MOST_VALUES:
            raise ValueError(f"a range holds at most {MOST_VALUES} values")
        return self

    def values(self) -> tuple[Value, ...]:
        return tuple(range(self.low, self.high + 1, self.step))


Factor = Annotated[float, Field(ge=-_LARGEST, le=_LARGEST, allow_inf_nan=False)]


class Tie(_Conditional):
    """`{knob: width, times: 64, divisor: 8}`: follows a knob, or another field; no dimension of its own.

    Without further keys the value is taken as it is; else it is `times` the value, plus `plus`, rounded to a
    multiple of `divisor` as MobileNets round (never more than 10 % down); or what `table` says for it.
    """

    knob: str | None = Field(default=None, description="The knob that it follows.")
    field: str | None = Field(
        default=None, description="The field that it follows: of the same stage, or a full path: stages.2.patch_h."
    )
    times: Factor | None = Field(default=None, description="Factor.")
    plus: Factor | None = Field(default=None, description="Added after the factor.")
    divisor: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        default=None, description="Rounds to a multiple of this; 1 rounds to whole numbers."
    )
    table: Annotated[dict[PlainValue, PlainValue], Field(min_length=1, max_length=MOST_VALUES)] | None = Field(
        default=None, description="One entry for every value of what is followed, instead of a formula."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.knob is None) == (self.field is None):
            raise ValueError("a tie names one knob or one field")
        if self.table is not None and self.has_formula:
            raise ValueError("a tie has a table or a formula (times, plus, divisor), not both")
        return self

    @property
    def has_formula(self) -> bool:
        return not self.times is self.plus is self.divisor is None


def _as_dimension(value: Any) -> Any:
    """A bare value is a dimension that does not vary."""
    return value if isinstance(value, (dict, Choices, Range, Tie)) else {"choices": [value]}


def _form(value: Any) -> str:
    """Which of the forms is meant, so that an error speaks of that one alone."""
    if isinstance(value, dict):
        if value.keys() & {"knob", "field", "times", "plus", "divisor", "table"}:
            return "<tie>"
        return "<range>" if value.keys() & {"low", "high", "step"} else "<choices>"
    return f"<{type(value).__name__.lower()}>"


class _OrBare:
    """Tells an editor that a bare value will do; which values, `json_schema` knows from the network's own fields."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        forms = handler(schema)
        return {"anyOf": [{"$comment": "bare"}, *forms["oneOf"]]}


Form = Annotated[
    Annotated[Choices, Tag("<choices>")] | Annotated[Range, Tag("<range>")] | Annotated[Tie, Tag("<tie>")],
    Discriminator(_form),
]
Dimension = Annotated[Form, BeforeValidator(_as_dimension), _OrBare()]
Knob = Annotated[
    Annotated[Choices, Tag("<choices>")] | Annotated[Range, Tag("<range>")],
    Discriminator(_form),
]


class ConvStageSpec(_Spec):
    """MobileNetV2 inverted residuals; the first one carries the stride."""

    kind: Literal["conv"] = "conv"
    out_channels: Dimension = Field(description="Channels that the stage hands on.")
    num_blocks: Dimension = Field(description="Number of inverted residuals.")
    stride: Dimension = Field(description="1 keeps the resolution, 2 halves it.")
    expand_ratio: Dimension = Field(description="Widening inside an inverted residual.")


def _needs_heads(value: Any) -> Any:
    """Separable attention has no heads, so a file that says so need not say how many."""
    if isinstance(value, dict) and value.get("attention") == "separable":
        return {"num_heads": 1, **value}
    return value


class MobileViTStageSpec(_Spec):
    """One inverted residual, then one MobileViT block."""

    kind: Literal["mobilevit"] = "mobilevit"
    out_channels: Dimension = Field(description="Channels that the stage hands on.")
    stride: Dimension = Field(description="1 keeps the resolution, 2 halves it.")
    expand_ratio: Dimension = Field(description="Widening inside the inverted residual.")
    transformer_dim: Dimension = Field(description="d: width of the tokens; a multiple of num_heads.")
    num_layers: Dimension = Field(description="L: number of transformer layers.")
    num_heads: Dimension = Field(description="Heads of softmax attention; left out, or 1, with separable attention.")
    ffn_ratio: Dimension = Field(description="Width of the feed-forward part over transformer_dim.")
    patch_h: Dimension = Field(description="Height of a patch in pixels of the feature map.")
    patch_w: Dimension = Field(description="Width of a patch in pixels of the feature map.")
    conv_kernel_size: Dimension = Field(description="n: kernel of the local (and fusion) convolution; odd.")
    fusion: Dimension = Field(
        default=Choices(choices=(True,)), description="Concatenate with the input and convolve n x n at the end."
    )
    attention: Dimension = Field(
        default=Choices(choices=("softmax",)), description="softmax (MobileViT) or separable (MobileViTv2)."
    )

    _heads = model_validator(mode="before")(_needs_heads)


StageSpec = Annotated[
    Annotated[ConvStageSpec, Tag("<conv>")] | Annotated[MobileViTStageSpec, Tag("<mobilevit>")],
    Discriminator(stage_kind),
]


def _as_size(value: Any) -> Any:
    """A side stands for the square; what varies is a dimension of sides."""
    if isinstance(value, (Choices, Range, Tie)):
        return value
    return [value, value] if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _size_form(value: Any) -> str:
    return _form(value) if isinstance(value, (dict, Choices, Range, Tie)) else "<pair>"


Pair = Annotated[tuple[Pixels, Pixels], Field(strict=False)]
ImageSize = Annotated[
    Annotated[Choices, Tag("<choices>")]
    | Annotated[Range, Tag("<range>")]
    | Annotated[Tie, Tag("<tie>")]
    | Annotated[Pair, Tag("<pair>")],
    Discriminator(_size_form),
    BeforeValidator(_as_size),
    _OrBare(),
]


def _named_well(knobs: dict[str, Any]) -> dict[str, Any]:
    """A knob is a parameter of the search beside `stages.2.transformer_dim`, so it must not look like a field."""
    fields = {*SpaceSpec.model_fields, *ConvStageSpec.model_fields, *MobileViTStageSpec.model_fields}
    for name in knobs:
        if not (name.isidentifier() and name.isascii() and len(name) <= 40):
            raise ValueError(f"a knob's name is letters, digits and underscores, not {name!r}")
        if name in fields:
            raise ValueError(f"{name!r} is the name of a field; call the knob otherwise")
    return knobs


class SpaceSpec(_Spec):
    """A search space of mvit-search: a field varies where it says choices or a range."""

    description: Annotated[str, Field(max_length=400)] = Field(description="One line on what the space is for.")
    knobs: Annotated[dict[str, Knob], Field(max_length=32), AfterValidator(_named_well)] | None = Field(
        default=None, description="Named free dimensions that fields follow with {knob: NAME}."
    )
    image_size: ImageSize = Field(description="[height, width] in pixels, one side for a square, or choices of sides.")
    stem_channels: Dimension = Field(description="Channels of the first convolution.")
    head_expansion: Dimension = Field(
        description="Width of the last 1x1 convolution over the last stage (at most 960 channels); 0 leaves it out."
    )
    activation: Dimension = Field(description="silu, relu or hardswish.")
    stages: Annotated[tuple[StageSpec, ...], Field(strict=False, min_length=1, max_length=16)] = Field(
        description="The stages from input to output."
    )
