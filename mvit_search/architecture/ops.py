"""The closed-form operator table: config -> every operator that Core ML runs after its own fusions.

Batch norm is folded into its convolution and dropout is gone. The transformer is laid out as the paper's
code does it: one fused query-key-value projection, and rank-4 reshape/transpose pairs to unfold and fold.
Everything that costs is a sum or a scan over this table; it is plain arithmetic and loads no torch.

Counting convention (one place, used everywhere): one multiply-add is one MAC, and only convolutions and
matrix products are counted. A 3x3 convolution from 16 to 32 channels onto a 10x10 map has
9 * 16 * 32 * 100 = 460,800 MACs. Papers print this number as "FLOPs". Shapes are for one image,
channels first, without the batch axis; inside the transformer they are (pixels of a patch, patches, channels).
"""

import math
from typing import NamedTuple

from mvit_search.architecture.config import ConvStage, MobileViTConfig, MobileViTStage

Shape = tuple[int, ...]
NETWORK_INPUT = -1
"""Index that stands for the image among an operator's inputs."""

KINDS = (
    "conv", "linear", "matmul", "softmax", "layer_norm", "activation", "add", "mul", "split",
    "reshape", "transpose", "concat", "resize", "mean",
)  # fmt: skip
"""`reshape` only renames memory in most runtimes; `transpose`, `concat`, `split` and `resize` move it."""


class Op(NamedTuple):
    """One operator.

    Attributes:
        name: dotted place in the network, e.g. `stages.2.transformer.0.attention.qkv`.
        kind: one of `KINDS`.
        stage: `stem`, `stages.<i>` or `head`.
        inputs: indices into the table of the operators whose outputs it reads; -1 is the image.
        in_shape: shape of the first input.
        shape: shape of the output.
        params: trainable parameters of the module it stands for, batch norm's scale and shift included.
        weights: stored numbers after folding (batch norm leaves one bias per channel).
        macs: multiply-adds of convolutions and matrix products, else 0.
        stride: input pixels per pixel of the feature map it works on.
        block_output: whether it ends a block whose output must be kept (paper, appendix Table 8).
        times: how many operators this row stands for; 1 but in a folded table.
        elements: numbers in the output.
    """

    name: str
    kind: str
    stage: str
    inputs: tuple[int, ...]
    in_shape: Shape
    shape: Shape
    params: int
    weights: int
    macs: int
    stride: int
    block_output: bool
    times: int
    elements: int


def operators(config: MobileViTConfig, num_classes: int = 1000, *, folded: bool = False) -> tuple[Op, ...]:
    """The operator table of `MobileViT(config, num_classes)`, in the order of execution.

    A folded table holds the first of several equal transformer layers, or equal residual blocks, and says how
    `times` it occurs. Sums weighted by `times` and the peak of a liveness scan are those of the whole table: equal
    layers hand on tensors of one shape, so each needs what the first needs. It is what costs are computed from.
    """
    table = _Table(config, folded=folded)
    height, width = config.image_size
    x = table.conv("stem.conv", NETWORK_INPUT, (3, height, width), config.stem_channels, kernel=3, stride=2)
    x = table.activation("stem.activation", x)
    table.end_block(x)
    for index, stage in enumerate(config.stages):
        table.stage = f"stages.{index}"
        x = _conv_stage(table, x, stage) if isinstance(stage, ConvStage) else _mobilevit_stage(table, x, stage)
    table.stage = "head"
    x = table.conv("head.conv", x, table.ops[x].shape, config.head_channels, kernel=1)
    x = table.activation("head.activation", x)
    table.end_block(x)
    x = table.add("head.pool", "mean", (x,), (config.head_channels,))
    table.linear("head.classifier", x, num_classes)
    return tuple(table.ops)


def bytes_read(op: Op, ops: tuple[Op, ...], bytes_per_number: int = 2) -> int:
    """Bytes of inputs and weights that the operator reads (fp16 by default); a reshape reads nothing."""
    if op.kind == "reshape":
        return 0
    inputs = sum(ops[i].elements if i != NETWORK_INPUT else math.prod(op.in_shape) for i in op.inputs)
    return bytes_per_number * (inputs + op.weights)


def bytes_written(op: Op, bytes_per_number: int = 2) -> int:
    """Bytes of output; a reshape writes nothing."""
    return 0 if op.kind == "reshape" else bytes_per_number * op.elements


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


class _Table:
    """Rows so far; each method appends one operator and returns its index."""

    def __init__(self, config: MobileViTConfig, *, folded: bool) -> None:
        self.ops: list[Op] = []
        self.folded = folded
        self.stage = "stem"
        self.stride = 1
        self.times = 1

    def repeats(self, count: int) -> range:
        """Indices of `count` equal parts to lay out; sets how many each of them stands for."""
        self.times = count if self.folded else 1
        return range(min(count, 1) if self.folded else count)

    def add(
        self, name: str, kind: str, inputs: tuple[int, ...], shape: Shape, params: int = 0, weights: int = 0,
        macs: int = 0, in_shape: Shape | None = None,
    ) -> int:  # fmt: skip
        """One operator; `in_shape` is that of the first input unless the image is meant."""
        ops = self.ops
        row = (
            name, kind, self.stage, inputs, in_shape or ops[inputs[0]].shape, shape, params, weights, macs, self.stride,
            False, self.times, math.prod(shape),
        )  # fmt: skip
        # Past the named tuple's own constructor, which costs as much as the rest of the row.
        ops.append(tuple.__new__(Op, row))
        return len(ops) - 1

    def end_block(self, index: int) -> None:
        self.ops[index] = self.ops[index]._replace(block_output=True)

    def conv(
        self, name: str, x: int, in_shape: Shape, out_channels: int, *, kernel: int, stride: int = 1,
        groups: int = 1, norm: bool = True,
    ) -> int:  # fmt: skip
        """Convolution with "same" padding; `norm` = its folded batch norm."""
        channels, height, width = in_shape
        self.stride *= stride
        shape = (out_channels, -(-height // stride), -(-width // stride))
        kernel_numbers = kernel * kernel * (channels // groups) * out_channels
        params = kernel_numbers + (2 * out_channels if norm else 0)
        weights = kernel_numbers + (out_channels if norm else 0)
        macs = kernel_numbers * shape[1] * shape[2]
        return self.add(name, "conv", (x,), shape, params, weights, macs, in_shape)

    def linear(self, name: str, x: int, out_features: int) -> int:
        source = self.ops[x]
        width = source.shape[-1]
        params = (width + 1) * out_features
        return self.add(
            name, "linear", (x,), (*source.shape[:-1], out_features), params, params, source.elements * out_features
        )

    def layer_norm(self, name: str, x: int) -> int:
        shape = self.ops[x].shape
        return self.add(name, "layer_norm", (x,), shape, 2 * shape[-1], 2 * shape[-1])

    def matmul(self, name: str, a: int, b: int, inner: int, shape: Shape) -> int:
        return self.add(name, "matmul", (a, b), shape, macs=inner * math.prod(shape))

    def activation(self, name: str, x: int) -> int:
        return self.add(name, "activation", (x,), self.ops[x].shape)


def _conv_stage(table: _Table, x: int, stage: ConvStage) -> int:
    x = _inverted_residual(table, f"{table.stage}.blocks.0", x, stage.out_channels, stage.stride, stage.expand_ratio)
    for block in table.repeats(stage.num_blocks - 1):
        x = _inverted_residual(table, f"{table.stage}.blocks.{block + 1}", x, stage.out_channels, 1, stage.expand_ratio)
    table.times = 1
    return x


def _inverted_residual(table: _Table, name: str, x: int, out_channels: int, stride: int, expand_ratio: float) -> int:
    """MobileNetV2 block: 1x1 expand (left out at ratio 1), 3x3 depthwise, 1x1 project, sum where shapes allow."""
    entry, in_shape = x, table.ops[x].shape
    hidden = hidden_channels(in_shape[0], expand_ratio)
    if expand_ratio != 1:
        x = table.conv(f"{name}.expand", x, in_shape, hidden, kernel=1)
        x = table.activation(f"{name}.expand.activation", x)
    x = table.conv(f"{name}.depthwise", x, table.ops[x].shape, hidden, kernel=3, stride=stride, groups=hidden)
    x = table.activation(f"{name}.depthwise.activation", x)
    x = table.conv(f"{name}.project", x, table.ops[x].shape, out_channels, kernel=1)
    if stride == 1 and in_shape[0] == out_channels:
        x = table.add(f"{name}.residual", "add", (entry, x), table.ops[x].shape)
    table.end_block(x)
    return x


def _mobilevit_stage(table: _Table, x: int, stage: MobileViTStage) -> int:
    x = _inverted_residual(table, f"{table.stage}.downsample", x, stage.out_channels, stage.stride, stage.expand_ratio)
    return _mobilevit_block(table, f"{table.stage}.block", x, stage)


def _mobilevit_block(table: _Table, name: str, x: int, stage: MobileViTStage) -> int:
    """Local convolutions, transformer over unfolded patches, fusion with the input (paper, figure 1b)."""
    entry, kernel, dim = x, stage.conv_kernel_size, stage.transformer_dim
    channels, height, width = table.ops[x].shape
    x = table.conv(f"{name}.local", x, table.ops[x].shape, channels, kernel=kernel)
    x = table.activation(f"{name}.local.activation", x)
    x = table.conv(f"{name}.to_dim", x, table.ops[x].shape, dim, kernel=1, norm=False)

    rows = -(-height // stage.patch_h)
    columns = -(-width // stage.patch_w)
    patched = (dim, rows * stage.patch_h, columns * stage.patch_w)
    if patched[1:] != (height, width):
        x = table.add(f"{name}.resize_in", "resize", (x,), patched)
    x = _unfold(table, f"{name}.unfold", x, stage, rows, columns)
    for layer in table.repeats(stage.num_layers):
        x = _transformer_layer(table, f"{name}.transformer.{layer}", x, stage)
    table.times = 1
    x = table.layer_norm(f"{name}.norm", x)
    x = _fold(table, f"{name}.fold", x, stage, rows, columns)
    if patched[1:] != (height, width):
        x = table.add(f"{name}.resize_out", "resize", (x,), (dim, height, width))

    x = table.conv(f"{name}.from_dim", x, table.ops[x].shape, channels, kernel=1)
    x = table.activation(f"{name}.from_dim.activation", x)
    if stage.fusion:
        x = table.add(f"{name}.concat", "concat", (entry, x), (2 * channels, height, width))
        x = table.conv(f"{name}.fuse", x, table.ops[x].shape, channels, kernel=kernel)
        x = table.activation(f"{name}.fuse.activation", x)
    table.end_block(x)
    return x


def _unfold(table: _Table, name: str, x: int, stage: MobileViTStage, rows: int, columns: int) -> int:
    """(d, H, W) -> (P, N, d): P pixels of a patch, N patches, through tensors of rank at most 4."""
    dim, ph, pw = stage.transformer_dim, stage.patch_h, stage.patch_w
    x = table.add(f"{name}.split", "reshape", (x,), (dim * rows, ph, columns, pw))
    x = table.add(f"{name}.group", "transpose", (x,), (dim * rows, columns, ph, pw))
    x = table.add(f"{name}.merge", "reshape", (x,), (dim, rows * columns, ph * pw))
    return table.add(f"{name}.to_tokens", "transpose", (x,), (ph * pw, rows * columns, dim))


def _fold(table: _Table, name: str, x: int, stage: MobileViTStage, rows: int, columns: int) -> int:
    """(P, N, d) -> (d, H, W): the inverse of `_unfold`."""
    dim, ph, pw = stage.transformer_dim, stage.patch_h, stage.patch_w
    x = table.add(f"{name}.from_tokens", "transpose", (x,), (dim, rows * columns, ph * pw))
    x = table.add(f"{name}.split", "reshape", (x,), (dim * rows, columns, ph, pw))
    x = table.add(f"{name}.ungroup", "transpose", (x,), (dim * rows, ph, columns, pw))
    return table.add(f"{name}.merge", "reshape", (x,), (dim, rows * ph, columns * pw))


def _transformer_layer(table: _Table, name: str, x: int, stage: MobileViTStage) -> int:
    """Pre-norm attention and feed-forward, each with its residual sum; (P, N, d) -> (P, N, d)."""
    dim = stage.transformer_dim
    attended = table.layer_norm(f"{name}.norm1", x)
    attended = _attention(table, f"{name}.attention", attended, dim, stage.num_heads)
    x = table.add(f"{name}.residual1", "add", (x, attended), table.ops[x].shape)
    fed = table.layer_norm(f"{name}.norm2", x)
    fed = table.linear(f"{name}.ffn.0", fed, stage.ffn_dim)
    fed = table.activation(f"{name}.ffn.activation", fed)
    fed = table.linear(f"{name}.ffn.1", fed, dim)
    return table.add(f"{name}.residual2", "add", (x, fed), table.ops[x].shape)


def _attention(table: _Table, name: str, x: int, dim: int, heads: int) -> int:
    """Multi-head self-attention among the N patches, for each of the P pixels apart."""
    pixels, patches, _ = table.ops[x].shape
    per_head = dim // heads
    fused = table.linear(f"{name}.qkv", x, 3 * dim)
    q, k, v = (_heads(table, f"{name}.{part}", fused, pixels, patches, heads, per_head) for part in "qkv")
    q = table.add(f"{name}.scale", "mul", (q,), table.ops[q].shape)
    scores = table.matmul(f"{name}.scores", q, k, per_head, (pixels, heads, patches, patches))
    scores = table.add(f"{name}.softmax", "softmax", (scores,), table.ops[scores].shape)
    x = table.matmul(f"{name}.weighted_sum", scores, v, patches, (pixels, heads, patches, per_head))
    x = table.add(f"{name}.merge_heads", "transpose", (x,), (pixels, patches, heads, per_head))
    x = table.add(f"{name}.concat_heads", "reshape", (x,), (pixels, patches, dim))
    return table.linear(f"{name}.out", x, dim)


def _heads(table: _Table, name: str, fused: int, pixels: int, patches: int, heads: int, per_head: int) -> int:
    """A third of the fused projection, split into heads: (P, N, 3d) -> (P, heads, N, d / heads)."""
    x = table.add(f"{name}.slice", "split", (fused,), (pixels, patches, heads * per_head))
    x = table.add(f"{name}.split_heads", "reshape", (x,), (pixels, patches, heads, per_head))
    return table.add(f"{name}.transpose", "transpose", (x,), (pixels, heads, patches, per_head))
