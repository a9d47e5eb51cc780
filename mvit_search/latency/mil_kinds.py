"""MIL's operator types (coremltools 9.0, opsets iOS 15 to iOS 18) by the kind of row that each is."""

CONSTANT = "constant"
UNKNOWN = "unknown"

_TYPES_OF_KIND: dict[str, str] = {
    CONSTANT: "const",
    "conv": "conv",
    "conv_transpose": "conv_transpose",
    "linear": "linear",
    "matmul": "matmul einsum",
    "attention": "scaled_dot_product_attention",
    "softmax": "softmax",
    "layer_norm": "layer_norm",
    "instance_norm": "instance_norm l2_norm local_response_norm",
    "batch_norm": "batch_norm",
    # One number in, one out: fused with the operator before it where that is a convolution or a product.
    "activation": (
        "relu relu6 gelu sigmoid sigmoid_hard tanh leaky_relu prelu elu softplus softplus_parametric softsign "
        "thresholded_relu clamped_relu scaled_tanh linear_activation clip erf"
    ),
    "silu": "silu",
    "add": "add",
    "sub": "sub",
    "mul": "mul",
    "div": "real_div",
    "square": "square",
    "sqrt": "sqrt",
    "elementwise": (
        "abs acos asin atan atanh ceil cos cosh equal exp exp2 floor floor_div greater greater_equal inverse less "
        "less_equal log logical_and logical_not logical_or logical_xor maximum minimum mod not_equal pow round rsqrt "
        "select sign sin sinh tan threshold"
    ),
    "mean": "reduce_mean",
    "sum": "reduce_sum",
    "reduce": (
        "reduce_argmax reduce_argmin reduce_l1_norm reduce_l2_norm reduce_log_sum reduce_log_sum_exp reduce_max "
        "reduce_min reduce_prod reduce_sum_square cumsum"
    ),
    "pool": "max_pool avg_pool l2_pool",
    # Reads only what it writes.
    "split": "split slice_by_index slice_by_size crop",
    # Renames memory.
    "reshape": "reshape reshape_like expand_dims squeeze identity flatten2d",
    # Every number moves, none changes.
    "transpose": "transpose pixel_shuffle pixel_unshuffle space_to_depth depth_to_space space_to_batch batch_to_space "
    "reverse reverse_sequence",
    "concat": "concat stack",
    "pad": "pad tile",
    "resize": (
        "upsample_bilinear upsample_nearest_neighbor resize_bilinear resize_nearest_neighbor resize"
    ),
    "gather": "gather gather_along_axis gather_nd scatter scatter_along_axis scatter_nd sliding_windows topk argsort "
    "crop_resize resample affine slice_update band_part one_hot non_maximum_suppression non_zero",
    # What moves next to nothing.
    "cast": "cast quantize dequantize classify shape fill fill_like range_1d",
}  # fmt: skip

KIND_OF_TYPE: dict[str, str] = {mil_type: kind for kind, types in _TYPES_OF_KIND.items() for mil_type in types.split()}
"""Kind of a MIL type; what is missing here is `UNKNOWN`."""
