"""The layouts: one function a part, which writes its operators as Core ML's program has them, in its order.

docs/operators.md sets each kind beside Core ML's, and tests/architecture/test_coreml_program.py compares row by row.
Batch norm is folded into its convolution and dropout is gone. The transformer is laid out as the paper's code does it:
one fused query-key-value projection, and rank-4 reshape/transpose pairs to unfold and fold.

In each, -1 is the part's first input and -2 its second. A part is as small as it can be and still be met again in
other networks: what depends on few numbers is costed once for many candidates.
"""

from mvit_search.architecture.config import Activation
from mvit_search.architecture.rows import Rows, hidden_channels, patched_map


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


def local(rows: Rows, kernel: int, dilation: int, depthwise: bool, act: Activation) -> int:
    """The block's n x n convolution (paper, figure 1b); depthwise in a MobileViTv2 block."""
    channels = rows.shape(-1)[0]
    x = rows.conv("local", -1, channels, kernel=kernel, dilation=dilation, groups=channels if depthwise else 1)
    return rows.activation("local.activation", x, act)


def to_dim(rows: Rows, dim: int) -> int:
    """1x1 convolution to the transformer's dimension: (C, H, W) -> (d, H, W)."""
    return rows.conv("to_dim", -1, dim, norm=False)


def softmax_unfold(rows: Rows, patch_h: int, patch_w: int) -> int:
    """Resize where the patch does not divide the map, then unfold: (d, H, W) -> (P, N, d)."""
    x, patched = -1, patched_map(rows.shape(-1), patch_h, patch_w)
    if patched != rows.shape(-1):
        x = rows.add("resize_in", "resize", (x,), patched)
    x = _unfold(rows, x, patch_h, patch_w)
    dim, patches, pixels = rows.shape(x)
    x = rows.add("unfold.to_tokens", "transpose", (x,), (pixels, patches, dim))
    return rows.same("unfold.tokens", "reshape", x)  # the batch joins the pixels


def softmax_layer(rows: Rows, heads: int, ffn_dim: int, act: Activation) -> int:
    """Pre-norm attention and feed-forward, each with its residual sum; (P, N, d) -> (P, N, d)."""
    rows.tokens = True
    dim = rows.shape(-1)[-1]
    attended = rows.layer_norm("norm1", -1)
    attended = _softmax_attention(rows, attended, dim, heads)
    x = rows.same("residual1", "add", -1, attended)
    fed = rows.layer_norm("norm2", x)
    fed = rows.linear("ffn.0", fed, ffn_dim)
    fed = rows.activation("ffn.activation", fed, act)
    fed = rows.linear("ffn.1", fed, dim)
    return rows.same("residual2", "add", x, fed)


def softmax_fold(rows: Rows, height: int, width: int, patch_h: int, patch_w: int) -> int:
    """Last norm, fold, and resize back where the map was resized: (P, N, d) -> (d, H, W)."""
    rows.tokens = True
    x = rows.layer_norm("norm", -1)
    pixels, patches, dim = rows.shape(x)
    x = rows.same("fold.batch", "reshape", x)
    x = rows.add("fold.from_tokens", "transpose", (x,), (dim, patches, pixels))
    x = _fold(rows, x, -(-height // patch_h), patch_h, patch_w)
    if rows.shape(x) != (dim, height, width):
        x = rows.add("resize_out", "resize", (x,), (dim, height, width))
    return x


def resize_in(rows: Rows, patch_h: int, patch_w: int) -> int:
    """A MobileViTv2 block works on the resized map from its input to its output (arXiv 2206.02680, its code)."""
    return rows.add("resize_in", "resize", (-1,), patched_map(rows.shape(-1), patch_h, patch_w))


def separable_unfold(rows: Rows, patch_h: int, patch_w: int) -> int:
    """Tokens stay channels first: (d, H, W) -> (d, P, N)."""
    x = _unfold(rows, -1, patch_h, patch_w)
    dim, patches, pixels = rows.shape(x)
    return rows.add("unfold.to_tokens", "transpose", (x,), (dim, pixels, patches))


def separable_layer(rows: Rows, ffn_dim: int, act: Activation) -> int:
    """Separable self-attention (arXiv 2206.02680, section 3.2) and feed-forward; (d, P, N) -> (d, P, N)."""
    rows.tokens = True
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


def separable_fold(rows: Rows, down: int, patch_h: int, patch_w: int) -> int:
    """Last norm, and fold; `down` patches lie below one another: (d, P, N) -> (d, H, W)."""
    rows.tokens = True
    x = rows.group_norm("norm", -1)
    dim, pixels, patches = rows.shape(x)
    x = rows.add("fold.from_tokens", "transpose", (x,), (dim, patches, pixels))
    return _fold(rows, x, down, patch_h, patch_w)


def from_dim(rows: Rows, channels: int, ends_block: bool, act: Activation | None) -> int:
    """1x1 convolution back to the block's channels: (d, H, W) -> (C, H, W); no activation in a MobileViTv2 block."""
    x = rows.conv("from_dim", -1, channels)
    if act is not None:
        x = rows.activation("from_dim.activation", x, act)
    return rows.end_block(x) if ends_block else x


def fuse(rows: Rows, kernel: int, act: Activation) -> int:
    """Concatenation with the block's input (-2) and the n x n fusion convolution (paper, section 3.1)."""
    channels, height, width = rows.shape(-1)
    x = rows.add("concat", "concat", (-2, -1), (2 * channels, height, width))
    x = rows.conv("fuse", x, channels, kernel=kernel)
    return rows.end_block(rows.activation("fuse.activation", x, act))


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
    rows.tokens = True
    x = rows.add("unfold.split", "reshape", (x,), (dim * down, patch_h, across, patch_w))
    x = rows.add("unfold.group", "transpose", (x,), (dim * down, across, patch_h, patch_w))
    return rows.add("unfold.merge", "reshape", (x,), (dim, down * across, patch_h * patch_w))


def _fold(rows: Rows, x: int, down: int, patch_h: int, patch_w: int) -> int:
    """(d, N, P) -> (d, H, W): the inverse of `_unfold`; `down` patches lie below one another."""
    dim, patches, _ = rows.shape(x)
    across = patches // down
    x = rows.add("fold.split", "reshape", (x,), (dim * down, across, patch_h, patch_w))
    x = rows.add("fold.ungroup", "transpose", (x,), (dim * down, patch_h, across, patch_w))
    rows.tokens = False
    return rows.add("fold.merge", "reshape", (x,), (dim, down * patch_h, across * patch_w))


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
