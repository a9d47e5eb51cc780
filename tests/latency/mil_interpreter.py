"""A small interpreter of MIL programs: what coremltools wrote, run operator by operator with torch in fp32.

Core ML runs nowhere but on Apple's systems. This knows the operators that this project's programs have, after
coremltools' documentation of them, and shares no code with the converter.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Values = dict[str, Any]


def run(program: Any, image: Tensor) -> Tensor:
    """The program's only output for its only input, (1, 3, H, W)."""
    function = program.functions["main"]
    known: dict[Any, Any] = dict.fromkeys(function.inputs.values(), image)
    for op in function.operations:
        if op.op_type == "const":
            known[op.outputs[0]] = _constant(op.outputs[0].val)
            continue
        given = {name: _value(known, variable) for name, variable in op.inputs.items() if variable is not None}
        results = OPERATORS[op.op_type](given)
        for variable, result in zip(op.outputs, results if isinstance(results, tuple) else (results,), strict=True):
            assert tuple(variable.shape) == tuple(result.shape), (op.name, op.op_type)
            known[variable] = result
    (output,) = function.outputs
    result: Tensor = known[output]
    return result


def _constant(value: Any) -> Any:
    """Arrays of numbers as fp32 tensors; shapes, flags and words as they are."""
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind == "f":
        return torch.from_numpy(np.array(value, dtype=np.float32))
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def _value(known: dict[Any, Any], variable: Any) -> Any:
    if isinstance(variable, (list, tuple)):
        return [known[part] for part in variable]
    return known[variable]


def _conv(v: Values) -> Tensor:
    bottom_right = v["pad"][1::2]
    assert v["pad"][::2] == bottom_right or v["pad_type"] == "valid"
    assert v["pad_type"] in ("custom", "valid")
    padding = tuple(bottom_right) if v["pad_type"] == "custom" else 0
    return F.conv2d(
        v["x"], v["weight"], v.get("bias"), tuple(v["strides"]), padding, tuple(v["dilations"]), v["groups"]
    )


def _conv_transpose(v: Values) -> Tensor:
    assert not any(v["pad"])
    return F.conv_transpose2d(v["x"], v["weight"], v.get("bias"), tuple(v["strides"]), groups=v["groups"])


def _layer_norm(v: Values) -> Tensor:
    x, axes = v["x"], v["axes"]
    mean, variance = x.mean(axes, keepdim=True), x.var(axes, keepdim=True, unbiased=False)
    x = (x - mean) / (variance + v["epsilon"]).sqrt()
    return x * v["gamma"] + v["beta"] if "gamma" in v else x  # along the last axis, where there are any


def _matmul(v: Values) -> Tensor:
    x = v["x"].transpose(-1, -2) if v["transpose_x"] else v["x"]
    y = v["y"].transpose(-1, -2) if v["transpose_y"] else v["y"]
    return x @ y


def _batch_norm(v: Values) -> Tensor:
    return F.batch_norm(v["x"], v["mean"], v["variance"], v["gamma"], v["beta"], eps=float(v["epsilon"]))


def _resize(v: Values) -> Tensor:
    scale = (float(v["scale_factor_height"]), float(v["scale_factor_width"]))
    size = tuple(round(side * factor) for side, factor in zip(v["x"].shape[-2:], scale, strict=True))
    return F.interpolate(v["x"], size=size, mode="bilinear", align_corners=v["align_corners"])


def _split(v: Values) -> tuple[Tensor, ...]:
    x, axis = v["x"], v["axis"]
    sizes = v["split_sizes"] if "split_sizes" in v else x.shape[axis] // v["num_splits"]
    return torch.split(x, sizes, dim=axis)


OPERATORS: dict[str, Callable[[Values], Any]] = {
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "linear": lambda v: F.linear(v["x"], v["weight"], v.get("bias")),
    "matmul": _matmul,
    "einsum": lambda v: torch.einsum(v["equation"], *v["values"]),
    "scaled_dot_product_attention": lambda v: F.scaled_dot_product_attention(v["query"], v["key"], v["value"]),
    "softmax": lambda v: v["x"].softmax(v["axis"]),
    "layer_norm": _layer_norm,
    "batch_norm": _batch_norm,
    "silu": lambda v: F.silu(v["x"]),
    "relu": lambda v: F.relu(v["x"]),
    "thresholded_relu": lambda v: torch.where(v["x"] >= v["alpha"], v["x"], 0.0),
    "sigmoid_hard": lambda v: (v["alpha"] * v["x"] + v["beta"]).clamp(0, 1),
    "add": lambda v: v["x"] + v["y"],
    "sub": lambda v: v["x"] - v["y"],
    "mul": lambda v: v["x"] * v["y"],
    "real_div": lambda v: v["x"] / v["y"],
    "square": lambda v: v["x"] ** 2,
    "sqrt": lambda v: v["x"].sqrt(),
    "rsqrt": lambda v: (v["x"] + v["epsilon"]).rsqrt(),
    "reduce_mean": lambda v: v["x"].mean(v["axes"], keepdim=v["keep_dims"]),
    "reduce_sum": lambda v: v["x"].sum(v["axes"], keepdim=v["keep_dims"]),
    "split": _split,
    "concat": lambda v: torch.cat(v["values"], dim=v["axis"]),
    "reshape": lambda v: v["x"].reshape(v["shape"]),
    "transpose": lambda v: v["x"].permute(v["perm"]),
    "upsample_bilinear": _resize,
    "cast": lambda v: v["x"],
}
