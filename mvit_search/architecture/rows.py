"""Rows of the operator table: what an operator is, and how one of each kind is counted.

Counting convention (one place, used everywhere): one multiply-add is one MAC, and only convolutions and
matrix products are counted. A 3x3 convolution from 16 to 32 channels onto a 10x10 map has
9 * 16 * 32 * 100 = 460,800 MACs. Papers print this number as "FLOPs". Shapes are for one image,
channels first, without the batch axis; inside the transformer they are (pixels of a patch, patches, channels),
and (channels, pixels of a patch, patches) where attention is separable.
"""

import math
from typing import NamedTuple

Shape = tuple[int, ...]
NETWORK_INPUT = -1
"""Index that stands for the image among the inputs of a part, or of an operator."""

KINDS = (
    "conv", "linear", "matmul", "softmax", "layer_norm", "activation", "silu", "add", "sub", "mul", "div", "square",
    "sqrt", "mean", "sum", "split", "reshape", "transpose", "concat", "resize", "cast", "batch_norm",
)  # fmt: skip
"""`reshape` only renames memory in most runtimes; `transpose`, `concat`, `split` and `resize` move it.

A `split` is one row an output. A `batch_norm` is a group norm's scale and shift: all others are folded. `silu` stands
apart from the other activations: on some devices it costs a pass of its own."""

FOREIGN_KINDS = (
    "conv_transpose", "attention", "instance_norm", "elementwise", "reduce", "pool", "pad", "gather", "unknown",
)  # fmt: skip
"""What other networks' Core ML programs have besides; no layout of ours makes one."""

VIEWS = frozenset(("reshape", "cast"))
"""Kinds taken to move nothing: a reshape renames, and a caller may hand over and take fp16 itself."""


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
        tokens: whether it works on tokens, between unfold and fold, rather than on a feature map.
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
    tokens: bool = False

    @property
    def stage(self) -> str:
        """`stem`, `stages.<i>` or `head`."""
        place = self.name.split(".", 2)
        return ".".join(place[:2]) if place[0] == "stages" else place[0]


def bytes_read(op: Op, bytes_per_number: int = 2) -> int:
    """Bytes of inputs and weights that the operator reads (fp16 by default); a view reads nothing."""
    return 0 if op.kind in VIEWS else bytes_per_number * (op.read + op.weights)


def bytes_written(op: Op, bytes_per_number: int = 2) -> int:
    """Bytes of output; a view writes nothing."""
    return 0 if op.kind in VIEWS else bytes_per_number * op.elements


class Rows:
    """Operators of a part so far; each method appends one and returns its index."""

    def __init__(self, in_shapes: tuple[Shape, ...]) -> None:
        self.ops: list[Op] = []
        self.in_shapes = in_shapes
        self.stride = 1
        self.tokens = False

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
            False, read, math.prod(shape), self.tokens,
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
            return self.same(name, "silu" if act == "silu" else "activation", x)
        # Core ML has no hard-swish: with y = max(x, -3), it is y * hard_sigmoid(y).
        clipped = self.same(f"{name}.clip", "activation", x)
        gate = self.same(f"{name}.gate", "activation", clipped)
        return self.same(name, "mul", clipped, gate)


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


def patched_map(shape: Shape, patch_h: int, patch_w: int) -> Shape:
    """Shape of a feature map after the paper's resize."""
    return (shape[0], patched_size(shape[1], patch_h), patched_size(shape[2], patch_w))
