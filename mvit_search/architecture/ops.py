"""The closed-form operator table: config -> every operator of its Core ML program, in the program's order.

A network is a short list of parts, and a part is a few operators that always come together: `parts` lists
them, one function of `layouts.py` writes the operators of each, and `operators` is all of them in a row. Costs
are summed part by part, so what one part costs is worked out once however many candidates share it.
Everything that costs is a sum or a scan over this table; it is plain arithmetic and loads no torch.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple, TypeVar

from mvit_search.architecture import layouts
from mvit_search.architecture.config import ConvStage, MobileViTConfig, MobileViTStage
from mvit_search.architecture.rows import NETWORK_INPUT, Op, Rows, Shape, patched_map
from mvit_search.errors import InputError

_T = TypeVar("_T")
Layout = Callable[..., int]
Arguments = tuple[int | float | str | bool | None, ...]

OUTPUT_STRIDES = (8, 16, 32)
MAX_CLASSES = 1_000_000
MAX_PARAMS = 1_000_000_000
"""Networks above this are refused before memory is taken: a thousand times what a phone network has."""


class Part:
    """A few operators that always come together, and all that decides what they cost.

    `part(...)` hands out one object for equal arguments, so what is derived from a part is worked out once,
    however many candidates share it.

    Attributes:
        layout: the function that lays its operators out, of `layouts.py` or `tasks.py`.
        arguments: what the layout takes besides the rows.
        in_shapes: shapes of what it reads.
        shape: shape of what it hands on.
        stride: by how much the stride of its output is larger than that of its input.
    """

    __slots__ = ("_derived", "arguments", "in_shapes", "layout", "shape", "stride")

    def __init__(self, layout: Layout, arguments: Arguments, in_shapes: tuple[Shape, ...]) -> None:
        self.layout = layout
        self.arguments = arguments
        self.in_shapes = in_shapes
        self._derived: dict[object, object] = {}
        last = part_operators(self)[-1]
        self.shape, self.stride = last.shape, last.stride

    def derive(self, function: "Callable[[Part], _T]") -> _T:
        """`function(self)`, worked out the first time."""
        derived = self._derived
        if function not in derived:
            derived[function] = function(self)
        return derived[function]  # type: ignore[return-value]


part = lru_cache(maxsize=1 << 15)(Part)
"""The part of these arguments: the same object each time, while it is remembered."""


class Placed(NamedTuple):
    """A part in a network, once or several times in a row.

    Attributes:
        part: the part.
        names: its place in the network, one for each time; each after the first reads the one before it.
        inputs: indices of the placed parts whose outputs the first reads; -1 is the image.
        stride: input pixels per pixel of the feature map it reads.
    """

    part: Part
    names: tuple[str, ...]
    inputs: tuple[int, ...]
    stride: int


def operators(config: MobileViTConfig, num_classes: int = 1000, *, output_stride: int | None = None) -> tuple[Op, ...]:
    """The operator table of `MobileViT(config, num_classes, output_stride=output_stride)` in the order of execution.

    Raises:
        InputError: an output stride that is none of 8, 16, 32.
    """
    return expand(parts(config, num_classes, output_stride=output_stride))


def parts(config: MobileViTConfig, num_classes: int = 1000, *, output_stride: int | None = None) -> tuple[Placed, ...]:
    """The same network as parts: some thirty rows, of which costs are computed.

    Raises:
        InputError: an output stride that is none of 8, 16, 32, or a class count that no classifier has.
    """
    require_class_count(num_classes)
    network = Assembly(config)
    network.backbone(output_stride)
    network.add(layouts.head, (config.head_channels, num_classes, config.activation), ("head",))
    return tuple(network.placed)


def require_class_count(num_classes: int) -> None:
    """Refuse what no classifier has.

    Raises:
        InputError: naming the bounds.
    """
    if not 1 <= num_classes <= MAX_CLASSES:
        raise InputError("num_classes", num_classes, f"must be from 1 to {MAX_CLASSES:,}")


def require_buildable(config: MobileViTConfig, num_classes: int = 1000) -> None:
    """Refuse a network that no machine should be asked to hold, before it is built.

    Raises:
        InputError: naming the number of parameters and the limit.
    """
    require_holdable(parts(config, num_classes))


def require_holdable(placed: tuple[Placed, ...]) -> None:
    """The same of parts that are already at hand.

    Raises:
        InputError: naming the number of parameters and the limit.
    """
    params = sum(len(row.names) * row.part.derive(_part_params) for row in placed)
    if params > MAX_PARAMS:
        rule = f"has {params:,} parameters; networks above {MAX_PARAMS:,} are not built"
        raise InputError("config", None, rule, "reduce widths, depths or ratios")


def _part_params(part: Part) -> int:
    return sum(op.params for op in part_operators(part))


def expand(placed: tuple[Placed, ...]) -> tuple[Op, ...]:
    """All operators of the placed parts in one table."""
    table: list[Op] = []
    outputs: list[int] = []  # index of the operator that ends each part
    for own, names, inputs, stride in placed:
        sources = tuple(outputs[i] if i >= 0 else NETWORK_INPUT for i in inputs)
        for name in names:
            start = len(table)
            for row in part_operators(own):
                reads = tuple(start + i if i >= 0 else sources[-1 - i] for i in row.inputs)
                table.append(row._replace(name=f"{name}.{row.name}", inputs=reads, stride=stride * row.stride))
            sources = (len(table) - 1, *sources[1:])
        outputs.append(len(table) - 1)
    return tuple(table)


# Several costs are derived from one part in a row: they share its operators, which are not worth keeping longer.
@lru_cache(maxsize=256)
def part_operators(part: Part) -> tuple[Op, ...]:
    """The operators of a part. Names and strides are relative to its place; inputs -1, -2 are its own inputs."""
    rows = Rows(part.in_shapes)
    part.layout(rows, *part.arguments)
    return tuple(rows.ops)


class StridePlan(NamedTuple):
    """How a stage works once the output stride is capped: its stride, and dilations before and after it."""

    stride: int
    entry_dilation: int
    dilation: int


def stride_plan(config: MobileViTConfig, output_stride: int | None = None) -> Iterator[StridePlan]:
    """One plan a stage. A stage that would pass `output_stride` keeps stride 1 and doubles the dilation instead.

    As CoreNet's `output_stride`: the first block of such a stage still has the dilation from before it, all
    that follows has the doubled one; a MobileViT block is never dilated, of a MobileViTv2 block the local convolution.

    Raises:
        InputError: an output stride that is none of 8, 16, 32.
    """
    if output_stride not in (None, *OUTPUT_STRIDES):
        raise InputError("output_stride", output_stride, f"must be one of {', '.join(map(str, OUTPUT_STRIDES))}")
    total, dilation = 2, 1
    for stage in config.stages:
        entry = dilation
        stride = stage.stride
        if output_stride is not None and total * stride > output_stride:
            dilation *= stride
            stride = 1
        total *= stride
        yield StridePlan(stride, entry, dilation)


class Assembly:
    """A network as it grows, part by part; `add` returns the index that later parts read it by."""

    def __init__(self, config: MobileViTConfig) -> None:
        self.config = config
        self.placed: list[Placed] = []
        self.shapes: list[Shape] = []
        self.strides: list[int] = []

    def add(
        self,
        layout: Layout,
        arguments: Arguments,
        names: tuple[str, ...],
        inputs: tuple[int, ...] | None = None,
    ) -> int:
        """Place a part behind `inputs`, or behind the last part."""
        reads = inputs or (len(self.placed) - 1,)
        image = (3, *self.config.image_size)
        new = part(layout, arguments, tuple([self.shapes[i] if i >= 0 else image for i in reads]))
        stride = self.strides[reads[0]] if reads[0] >= 0 else 1
        self.placed.append(Placed(new, names, reads, stride))
        self.shapes.append(new.shape)
        self.strides.append(stride * new.stride)
        return len(self.placed) - 1

    def backbone(self, output_stride: int | None = None) -> list[int]:
        """Stem and stages; the index of each stage's output."""
        config = self.config
        self.add(layouts.stem, (config.stem_channels, config.activation), ("stem",), (NETWORK_INPUT,))
        ends = []
        plans = stride_plan(config, output_stride)
        for index, (stage, plan) in enumerate(zip(config.stages, plans, strict=True)):
            if isinstance(stage, ConvStage):
                self._conv_stage(f"stages.{index}", stage, plan)
            else:
                self._mobilevit_stage(f"stages.{index}", stage, plan)
            ends.append(len(self.placed) - 1)
        return ends

    def _conv_stage(self, name: str, stage: ConvStage, plan: StridePlan) -> None:
        act, width, ratio = self.config.activation, stage.out_channels, stage.expand_ratio
        self.add(
            layouts.inverted_residual, (width, plan.stride, plan.entry_dilation, ratio, act), (f"{name}.blocks.0",)
        )
        if stage.num_blocks > 1:
            rest = _numbered(f"{name}.blocks", 1, stage.num_blocks)
            self.add(layouts.inverted_residual, (width, 1, plan.dilation, ratio, act), rest)

    def _mobilevit_stage(self, name: str, stage: MobileViTStage, plan: StridePlan) -> None:
        act, kernel, down, across = self.config.activation, stage.conv_kernel_size, stage.patch_h, stage.patch_w
        separable = stage.attention == "separable"
        self.add(
            layouts.inverted_residual,
            (stage.out_channels, plan.stride, plan.entry_dilation, stage.expand_ratio, act), (f"{name}.downsample",),
        )  # fmt: skip
        block = (f"{name}.block",)
        layers = _numbered(f"{name}.block.transformer", 0, stage.num_layers)
        if separable and patched_map(self.shapes[-1], down, across) != self.shapes[-1]:
            self.add(layouts.resize_in, (down, across), block)
        entry = len(self.placed) - 1
        _, height, width = self.shapes[entry]
        self.add(layouts.local, (kernel, plan.dilation if separable else 1, separable, act), block)
        self.add(layouts.to_dim, (stage.transformer_dim,), block)
        if separable:
            self.add(layouts.separable_unfold, (down, across), block)
            self.add(layouts.separable_layer, (stage.ffn_dim, act), layers)
            self.add(layouts.separable_fold, (height // down, down, across), block)
        else:
            self.add(layouts.softmax_unfold, (down, across), block)
            self.add(layouts.softmax_layer, (stage.num_heads, stage.ffn_dim, act), layers)
            self.add(layouts.softmax_fold, (height, width, down, across), block)
        back = self.add(layouts.from_dim, (stage.out_channels, not stage.fusion, None if separable else act), block)
        if stage.fusion:
            self.add(layouts.fuse, (kernel, act), block, (back, entry))


@lru_cache(maxsize=1 << 12)
def _numbered(name: str, first: int, end: int) -> tuple[str, ...]:
    return tuple(f"{name}.{number}" for number in range(first, end))
