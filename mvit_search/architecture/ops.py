"""The closed-form operator table: config -> every operator of its Core ML program, in the program's order.

docs/operators.md sets each kind beside Core ML's, and tests/architecture/test_coreml_program.py compares row by row.
Batch norm is folded into its convolution and dropout is gone. The transformer is laid out as the paper's
code does it: one fused query-key-value projection, and rank-4 reshape/transpose pairs to unfold and fold.
Everything that costs is a sum or a scan over this table; it is plain arithmetic and loads no torch.

A network is a short list of parts, and a part is a few operators that always come together: `parts` lists
them, one layout function below writes the operators of each, and `operators` is all of them in a row. Costs
are summed part by part, so what one part costs is worked out once however many candidates share it.

Counting convention (one place, used everywhere): one multiply-add is one MAC, and only convolutions and
matrix products are counted. A 3x3 convolution from 16 to 32 channels onto a 10x10 map has
9 * 16 * 32 * 100 = 460,800 MACs. Papers print this number as "FLOPs". Shapes are for one image,
channels first, without the batch axis; inside the transformer they are (pixels of a patch, patches, channels),
and (channels, pixels of a patch, patches) where attention is separable.
"""

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple, TypeVar

from mvit_search.architecture.config import Activation, ConvStage, MobileViTConfig, MobileViTStage
from mvit_search.errors import InputError

_T = TypeVar("_T")
Shape = tuple[int, ...]
Layout = Callable[..., int]
Arguments = tuple[int | float | str | bool | None, ...]
NETWORK_INPUT = -1
"""Index that stands for the image among the inputs of a part, or of an operator."""

KINDS = (
    "conv", "linear", "matmul", "softmax", "layer_norm", "activation", "add", "sub", "mul", "div", "square", "sqrt",
    "mean", "sum", "split", "reshape", "transpose", "concat", "resize", "cast", "batch_norm",
)  # fmt: skip
"""`reshape` only renames memory in most runtimes; `transpose`, `concat`, `split` and `resize` move it.

A `split` is one row an output. A `batch_norm` is a group norm's scale and shift: all others are folded."""

VIEWS = frozenset(("reshape", "cast"))
"""Kinds taken to move nothing: a reshape renames, and a caller may hand over and take fp16 itself."""

OUTPUT_STRIDES = (8, 16, 32)
MAX_PARAMS = 1_000_000_000
"""Networks above this are refused before memory is taken: a thousand times what a phone network has."""


class Op(NamedTuple):
    """One operator.

    Attributes:
        name: dotted place in the network, e.g. `stages.2.block.transformer.0.attention.qkv`.
        kind: one of `KINDS`.
        inputs: indices into the table of the operators whose outputs it reads; -1 is the image.
        in_shape: shape of the first input.
        shape: shape of the output.
        params: trainable parameters of the module it stands for, batch norm's scale and shift included.
        weights: stored numbers after folding (batch norm leaves one bias per channel).
        macs: multiply-adds of convolutions and matrix products, else 0.
        stride: input pixels per pixel of the feature map it works on.
        kernel: kernel side of a convolution, else 0.
        groups: groups of a convolution, else 1; as many as channels is a depthwise one.
        dilation: dilation of a convolution, else 1.
        block_output: whether it ends a block whose output must be kept (paper, appendix Table 8).
        read: numbers in all inputs.
        elements: numbers in the output.
    """

    name: str
    kind: str
    inputs: tuple[int, ...]
    in_shape: Shape
    shape: Shape
    params: int
    weights: int
    macs: int
    stride: int
    kernel: int
    groups: int
    dilation: int
    block_output: bool
    read: int
    elements: int

    @property
    def stage(self) -> str:
        """`stem`, `stages.<i>` or `head`."""
        place = self.name.split(".", 2)
        return ".".join(place[:2]) if place[0] == "stages" else place[0]


class Part:
    """A few operators that always come together, and all that decides what they cost.

    `part(...)` hands out one object for equal arguments, so what is derived from a part is worked out once,
    however many candidates share it.

    Attributes:
        layout: the function below that lays its operators out.
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
    """The same network as parts: some twenty rows, of which costs are computed.

    Raises:
        InputError: an output stride that is none of 8, 16, 32.
    """
    network = Assembly(config)
    network.backbone(output_stride)
    network.add(head, (config.head_channels, num_classes, config.activation), ("head",))
    return tuple(network.placed)


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


def bytes_read(op: Op, bytes_per_number: int = 2) -> int:
    """Bytes of inputs and weights that the operator reads (fp16 by default); a view reads nothing."""
    return 0 if op.kind in VIEWS else bytes_per_number * (op.read + op.weights)


def bytes_written(op: Op, bytes_per_number: int = 2) -> int:
    """Bytes of output; a view writes nothing."""
    return 0 if op.kind in VIEWS else bytes_per_number * op.elements


def make_divisible(channels: float, divisor: int = 8) -> int:
    """Nearest multiple of `divisor` that loses no more than a tenth (MobileNet's rule, used for hidden widths)."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def hidden_channels(in_channels: int, expand_ratio: float) -> int:
    """Width of an inverted residual's depthwise part, as CoreNet rounds it; without an expansion the input's."""
    return in_channels if expand_ratio == 1 else make_divisible(round(in_channels * expand_ratio))


def patched_size(size: int, patch: int) -> int:
    """Feature-map side after the paper's resize: the next multiple of the patch side."""
    return math.ceil(size / patch) * patch


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
        self.add(stem, (config.stem_channels, config.activation), ("stem",), (NETWORK_INPUT,))
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
        self.add(inverted_residual, (width, plan.stride, plan.entry_dilation, ratio, act), (f"{name}.blocks.0",))
        if stage.num_blocks > 1:
            rest = tuple([f"{name}.blocks.{block}" for block in range(1, stage.num_blocks)])
            self.add(inverted_residual, (width, 1, plan.dilation, ratio, act), rest)

    def _mobilevit_stage(self, name: str, stage: MobileViTStage, plan: StridePlan) -> None:
        act, block = self.config.activation, f"{name}.block"
        self.add(
            inverted_residual, (stage.out_channels, plan.stride, plan.entry_dilation, stage.expand_ratio, act),
            (f"{name}.downsample",),
        )  # fmt: skip
        layers = tuple([f"{block}.transformer.{layer}" for layer in range(stage.num_layers)])
        patch, kernel = (stage.patch_h, stage.patch_w), stage.conv_kernel_size
        if stage.attention == "separable":
            if patched_map(self.shapes[-1], *patch) != self.shapes[-1]:
                self.add(resize_in, patch, (block,))
            entry = len(self.placed) - 1
            self.add(separable_entry, (stage.transformer_dim, kernel, plan.dilation, *patch, act), (block,))
            tokens = self.add(separable_layer, (stage.ffn_dim, act), layers)
            layout: Layout = separable_exit
        else:
            entry = len(self.placed) - 1
            self.add(softmax_entry, (stage.transformer_dim, kernel, *patch, act), (block,))
            tokens = self.add(softmax_layer, (stage.num_heads, stage.ffn_dim, act), layers)
            layout = softmax_exit
        arguments = (*self.shapes[entry], *patch, kernel, stage.fusion, act)
        self.add(layout, arguments, (block,), (tokens, entry) if stage.fusion else (tokens,))


class Rows:
    """Operators of a part so far; each method appends one and returns its index."""

    def __init__(self, in_shapes: tuple[Shape, ...]) -> None:
        self.ops: list[Op] = []
        self.in_shapes = in_shapes
        self.stride = 1

    def shape(self, x: int) -> Shape:
        """Shape of an operator's output, or of the part's first (-1) or second (-2) input."""
        return self.ops[x].shape if x >= 0 else self.in_shapes[-1 - x]

    def add(
        self, name: str, kind: str, inputs: tuple[int, ...], shape: Shape, params: int = 0, weights: int = 0,
        macs: int = 0, kernel: int = 0, groups: int = 1, dilation: int = 1,
    ) -> int:  # fmt: skip
        ops, in_shapes = self.ops, self.in_shapes
        in_shape = None
        read = 0
        for x in inputs:
            if x >= 0:
                read += ops[x].elements
                in_shape = in_shape or ops[x].shape
            else:
                read += math.prod(in_shapes[-1 - x])
                in_shape = in_shape or in_shapes[-1 - x]
        row = (
            name, kind, inputs, in_shape, shape, params, weights, macs, self.stride, kernel, groups, dilation,
            False, read, math.prod(shape),
        )  # fmt: skip
        # Past the named tuple's own constructor, which costs as much as the rest of the row.
        ops.append(tuple.__new__(Op, row))
        return len(ops) - 1

    def same(self, name: str, kind: str, *inputs: int, params: int = 0) -> int:
        """An operator whose output has the shape of its first input."""
        return self.add(name, kind, inputs, self.shape(inputs[0]), params, params)

    def end_block(self, index: int) -> int:
        self.ops[index] = self.ops[index]._replace(block_output=True)
        return index

    def conv(
        self, name: str, x: int, out_channels: int, *, kernel: int = 1, stride: int = 1, groups: int = 1,
        dilation: int = 1, norm: bool = True, bias: bool = False,
    ) -> int:  # fmt: skip
        """Convolution with "same" padding; `norm` = its folded batch norm."""
        channels, height, width = self.shape(x)
        self.stride *= stride
        shape = (out_channels, -(-height // stride), -(-width // stride))
        kernel_numbers = kernel * kernel * (channels // groups) * out_channels
        params = kernel_numbers + out_channels * (2 * norm + bias)
        weights = kernel_numbers + out_channels * (norm or bias)
        macs = kernel_numbers * shape[1] * shape[2]
        return self.add(name, "conv", (x,), shape, params, weights, macs, kernel, groups, dilation)

    def linear(self, name: str, x: int, out_features: int) -> int:
        source = self.shape(x)
        params = (source[-1] + 1) * out_features
        shape = (*source[:-1], out_features)
        return self.add(name, "linear", (x,), shape, params, params, math.prod(source) * out_features)

    def matmul(self, name: str, a: int, b: int, inner: int, shape: Shape) -> int:
        return self.add(name, "matmul", (a, b), shape, macs=inner * math.prod(shape))

    def layer_norm(self, name: str, x: int) -> int:
        return self.same(name, "layer_norm", x, params=2 * self.shape(x)[-1])

    def group_norm(self, name: str, x: int) -> int:
        """Norm over (channels, pixels, patches) with a scale and shift a channel, as Core ML spells it out."""
        shape = self.shape(x)
        one = (1, 1, 1, 1)
        y = self.add(f"{name}.split", "reshape", (x,), (1, *shape))
        mean = self.add(f"{name}.mean", "mean", (y,), one)
        centred = self.same(f"{name}.centre", "sub", y, mean)
        square = self.same(f"{name}.square", "square", centred)
        variance = self.add(f"{name}.variance", "mean", (square,), one)
        variance = self.same(f"{name}.epsilon", "add", variance)
        deviation = self.same(f"{name}.deviation", "sqrt", variance)
        y = self.same(f"{name}.scale", "div", centred, deviation)
        y = self.add(f"{name}.merge", "reshape", (y,), shape)
        if shape[0] == 1:
            y = self.same(f"{name}.weight", "mul", y, params=1)
            return self.same(f"{name}.bias", "add", y, params=1)
        # Of a scale and a shift for several channels Core ML makes one batch norm, of mean 0 and variance 1.
        return self.same(f"{name}.affine", "batch_norm", y, params=2 * shape[0])

    def activation(self, name: str, x: int, act: str) -> int:
        if act != "hardswish":
            return self.same(name, "activation", x)
        # Core ML has no hard-swish: with y = max(x, -3), it is y * hard_sigmoid(y).
        clipped = self.same(f"{name}.clip", "activation", x)
        gate = self.same(f"{name}.gate", "activation", clipped)
        return self.same(name, "mul", clipped, gate)


def patched_map(shape: Shape, patch_h: int, patch_w: int) -> Shape:
    """Shape of a feature map after the paper's resize."""
    return (shape[0], patched_size(shape[1], patch_h), patched_size(shape[2], patch_w))


# The layouts: one function a part, in the order that a network needs them. -1 is the part's input.


def stem(rows: Rows, out_channels: int, act: Activation) -> int:
    x = rows.same("cast", "cast", -1)
    x = rows.conv("conv", x, out_channels, kernel=3, stride=2)
    return rows.end_block(rows.activation("activation", x, act))


def inverted_residual(
    rows: Rows, out_channels: int, stride: int, dilation: int, expand_ratio: float, act: Activation
) -> int:
    """MobileNetV2 block: 1x1 expand (left out at ratio 1), 3x3 depthwise, 1x1 project, sum where shapes allow."""
    x, in_channels = -1, rows.shape(-1)[0]
    hidden = hidden_channels(in_channels, expand_ratio)
    if expand_ratio != 1:
        x = rows.conv("expand", x, hidden)
        x = rows.activation("expand.activation", x, act)
    x = rows.conv("depthwise", x, hidden, kernel=3, stride=stride, groups=hidden, dilation=dilation)
    x = rows.activation("depthwise.activation", x, act)
    x = rows.conv("project", x, out_channels)
    if stride == 1 and in_channels == out_channels:
        x = rows.same("residual", "add", -1, x)
    return rows.end_block(x)


def softmax_entry(rows: Rows, dim: int, kernel: int, patch_h: int, patch_w: int, act: Activation) -> int:
    """MobileViT block as far as its tokens (paper, figure 1b): (C, H, W) -> (P, N, d)."""
    x = rows.conv("local", -1, rows.shape(-1)[0], kernel=kernel)
    x = rows.activation("local.activation", x, act)
    x = rows.conv("to_dim", x, dim, norm=False)
    patched = patched_map(rows.shape(x), patch_h, patch_w)
    if patched != rows.shape(x):
        x = rows.add("resize_in", "resize", (x,), patched)
    x = _unfold(rows, x, patch_h, patch_w)
    pixels, patches = patch_h * patch_w, rows.shape(x)[1]
    x = rows.add("unfold.to_tokens", "transpose", (x,), (pixels, patches, dim))
    return rows.same("unfold.tokens", "reshape", x)  # the batch joins the pixels


def softmax_layer(rows: Rows, heads: int, ffn_dim: int, act: Activation) -> int:
    """Pre-norm attention and feed-forward, each with its residual sum; (P, N, d) -> (P, N, d)."""
    dim = rows.shape(-1)[-1]
    attended = rows.layer_norm("norm1", -1)
    attended = _softmax_attention(rows, attended, dim, heads)
    x = rows.same("residual1", "add", -1, attended)
    fed = rows.layer_norm("norm2", x)
    fed = rows.linear("ffn.0", fed, ffn_dim)
    fed = rows.activation("ffn.activation", fed, act)
    fed = rows.linear("ffn.1", fed, dim)
    return rows.same("residual2", "add", x, fed)


def softmax_exit(
    rows: Rows, channels: int, height: int, width: int, patch_h: int, patch_w: int, kernel: int, fusion: bool,
    act: Activation,
) -> int:  # fmt: skip
    """MobileViT block from its tokens on: (P, N, d), and the block's input where it is fused -> (C, H, W)."""
    x = rows.layer_norm("norm", -1)
    pixels, patches, dim = rows.shape(x)
    x = rows.same("fold.batch", "reshape", x)
    x = rows.add("fold.from_tokens", "transpose", (x,), (dim, patches, pixels))
    x = _fold(rows, x, patched_size(height, patch_h) // patch_h, patch_h, patch_w)
    if rows.shape(x) != (dim, height, width):
        x = rows.add("resize_out", "resize", (x,), (dim, height, width))
    x = rows.conv("from_dim", x, channels)
    x = rows.activation("from_dim.activation", x, act)
    return rows.end_block(_fuse(rows, x, channels, kernel, act) if fusion else x)


def resize_in(rows: Rows, patch_h: int, patch_w: int) -> int:
    """A MobileViTv2 block works on the resized map from its input to its output (arXiv 2206.02680, its code)."""
    return rows.add("resize_in", "resize", (-1,), patched_map(rows.shape(-1), patch_h, patch_w))


def separable_entry(
    rows: Rows, dim: int, kernel: int, dilation: int, patch_h: int, patch_w: int, act: Activation
) -> int:
    """MobileViTv2 block as far as its tokens: (C, H, W) -> (d, P, N); tokens stay channels first."""
    channels = rows.shape(-1)[0]
    x = rows.conv("local", -1, channels, kernel=kernel, groups=channels, dilation=dilation)
    x = rows.activation("local.activation", x, act)
    x = rows.conv("to_dim", x, dim, norm=False)
    x = _unfold(rows, x, patch_h, patch_w)
    return rows.add("unfold.to_tokens", "transpose", (x,), (dim, patch_h * patch_w, rows.shape(x)[1]))


def separable_layer(rows: Rows, ffn_dim: int, act: Activation) -> int:
    """Separable self-attention (arXiv 2206.02680, section 3.2) and feed-forward; (d, P, N) -> (d, P, N)."""
    dim, pixels, patches = rows.shape(-1)
    x = rows.group_norm("norm1", -1)
    fused = rows.conv("attention.qkv", x, 1 + 2 * dim, norm=False, bias=True)
    query = rows.add("attention.query.slice", "split", (fused,), (1, pixels, patches))
    key, value = (rows.add(f"attention.{part}.slice", "split", (fused,), (dim, pixels, patches)) for part in
                  ("key", "value"))  # fmt: skip
    scores = rows.same("attention.softmax", "softmax", query)
    context = rows.same("attention.context", "mul", key, scores)
    context = rows.add("attention.context.sum", "sum", (context,), (dim, pixels, 1))
    value = rows.activation("attention.value.activation", value, "relu")
    x = rows.same("attention.weighted", "mul", value, context)
    x = rows.conv("attention.out", x, dim, norm=False, bias=True)
    x = rows.same("residual1", "add", -1, x)
    fed = rows.group_norm("norm2", x)
    fed = rows.conv("ffn.0", fed, ffn_dim, norm=False, bias=True)
    fed = rows.activation("ffn.activation", fed, act)
    fed = rows.conv("ffn.1", fed, dim, norm=False, bias=True)
    return rows.same("residual2", "add", x, fed)


def separable_exit(
    rows: Rows, channels: int, height: int, width: int, patch_h: int, patch_w: int, kernel: int, fusion: bool,
    act: Activation,
) -> int:  # fmt: skip
    """MobileViTv2 block from its tokens on: (d, P, N), and the resized input where it is fused -> (C, H, W)."""
    x = rows.group_norm("norm", -1)
    dim, pixels, patches = rows.shape(x)
    x = rows.add("fold.from_tokens", "transpose", (x,), (dim, patches, pixels))
    x = _fold(rows, x, height // patch_h, patch_h, patch_w)
    x = rows.conv("from_dim", x, channels)
    return rows.end_block(_fuse(rows, x, channels, kernel, act) if fusion else x)


def head(rows: Rows, head_channels: int | None, num_classes: int, act: Activation) -> int:
    """1x1 convolution (none in MobileViTv2), global average pooling, classifier."""
    x = -1
    if head_channels is not None:
        x = rows.conv("conv", x, head_channels)
        x = rows.end_block(rows.activation("activation", x, act))
    x = rows.add("pool", "mean", (x,), rows.shape(x)[:1])
    x = rows.linear("classifier", x, num_classes)
    return rows.same("cast", "cast", x)


def _unfold(rows: Rows, x: int, patch_h: int, patch_w: int) -> int:
    """(d, H, W) -> (d, N, P) through tensors of rank at most 4; the patch divides the map."""
    dim, height, width = rows.shape(x)
    down, across = height // patch_h, width // patch_w
    x = rows.add("unfold.split", "reshape", (x,), (dim * down, patch_h, across, patch_w))
    x = rows.add("unfold.group", "transpose", (x,), (dim * down, across, patch_h, patch_w))
    return rows.add("unfold.merge", "reshape", (x,), (dim, down * across, patch_h * patch_w))


def _fold(rows: Rows, x: int, down: int, patch_h: int, patch_w: int) -> int:
    """(d, N, P) -> (d, H, W): the inverse of `_unfold`; `down` patches lie below one another."""
    dim, patches, _ = rows.shape(x)
    across = patches // down
    x = rows.add("fold.split", "reshape", (x,), (dim * down, across, patch_h, patch_w))
    x = rows.add("fold.ungroup", "transpose", (x,), (dim * down, patch_h, across, patch_w))
    return rows.add("fold.merge", "reshape", (x,), (dim, down * patch_h, across * patch_w))


def _fuse(rows: Rows, x: int, channels: int, kernel: int, act: Activation) -> int:
    """Concatenation with the block's input (-2) and the n x n fusion convolution."""
    x = rows.add("concat", "concat", (-2, x), (2 * channels, *rows.shape(x)[1:]))
    x = rows.conv("fuse", x, channels, kernel=kernel)
    return rows.activation("fuse.activation", x, act)


def _softmax_attention(rows: Rows, x: int, dim: int, heads: int) -> int:
    """Multi-head self-attention among the N patches, for each of the P pixels apart, in the order Core ML runs it."""
    pixels, patches, _ = rows.shape(x)
    per_head = dim // heads
    fused = rows.linear("attention.qkv", x, 3 * dim)
    apart, by_head = (pixels, patches, heads, per_head), (pixels, heads, patches, per_head)
    slices = [rows.add(f"attention.{part}.slice", "split", (fused,), (pixels, patches, dim)) for part in "qkv"]
    q, k, v = (
        rows.add(f"attention.{part}.split_heads", "reshape", (x,), apart) for part, x in zip("qkv", slices, strict=True)
    )
    if per_head > 1:  # the scale of a single channel is 1, and dropped
        q = rows.same("attention.scale", "mul", q)
    k = rows.add("attention.k.transpose", "transpose", (k,), by_head)
    q = rows.add("attention.q.transpose", "transpose", (q,), by_head)
    scores = rows.matmul("attention.scores", q, k, per_head, (pixels, heads, patches, patches))
    scores = rows.same("attention.softmax", "softmax", scores)
    v = rows.add("attention.v.transpose", "transpose", (v,), by_head)
    x = rows.matmul("attention.weighted_sum", scores, v, patches, by_head)
    x = rows.add("attention.merge_heads", "transpose", (x,), (pixels, patches, heads, per_head))
    x = rows.add("attention.concat_heads", "reshape", (x,), (pixels, patches, dim))
    return rows.linear("attention.out", x, dim)
