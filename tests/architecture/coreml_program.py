"""The Core ML program of a config, as coremltools writes it: a list of operators to hold the operator table to."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from mvit_search.architecture import MobileViTConfig
from mvit_search.architecture.random_weights import random_network
from mvit_search.latency.coreml import ConversionSettings, convert


class MilOp(NamedTuple):
    """One operator of a MIL program.

    Attributes:
        name: the name coremltools gave it.
        op_type: its MIL type, `conv`, `linear`, `upsample_bilinear`, ...
        inputs: what it reads, in order: index of the operator and which of its outputs; (-1, 0) is the image.
            Constants are left out.
        shapes: shapes of its outputs, batch axis included.
        window: (kernel side, stride, dilation, groups) of a convolution, else empty.
        weights: numbers stored for it: weight and bias, or scale and shift.
    """

    name: str
    op_type: str
    inputs: tuple[tuple[int, int], ...]
    shapes: tuple[tuple[int, ...], ...]
    window: tuple[int, ...]
    weights: int


_WEIGHTS = ("weight", "bias", "gamma", "beta")
WEIGHED = frozenset(("conv", "linear", "layer_norm", "batch_norm"))
"""Types whose stored numbers are counted; what else has constants has a number a tensor, or a scale or an epsilon."""


def coreml_program(config: MobileViTConfig, num_classes: int, output_stride: int | None = None) -> list[MilOp]:
    """Operators, constants apart, of the fp16 ML program for iOS 15 and one image, after coremltools' passes."""
    network = random_network(config, num_classes, output_stride=output_stride)
    converted = convert(network, ConversionSettings(num_classes=num_classes))
    return list(_operators(converted.model._mil_program.functions["main"]))


def _operators(function: Any) -> Iterator[MilOp]:
    where: dict[Any, tuple[int, int]] = dict.fromkeys(function.inputs.values(), (-1, 0))
    index = 0
    for op in function.operations:
        if op.op_type == "const":
            continue
        given = [v for value in op.inputs.values() for v in (value if isinstance(value, (list, tuple)) else (value,))]
        sources = [where[variable] for variable in given if variable in where]
        where.update({variable: (index, port) for port, variable in enumerate(op.outputs)})
        stored = [op.inputs.get(name) for name in _WEIGHTS if op.op_type in WEIGHED]
        weights = sum(constant.val.size for constant in stored if constant is not None)
        shapes = tuple(tuple(map(int, variable.shape)) for variable in op.outputs)
        yield MilOp(op.name, op.op_type, tuple(sources), shapes, _window(op), weights)
        index += 1


def _window(op: Any) -> tuple[int, ...]:
    """Kernel, stride, dilation and groups; all are square here."""
    if op.op_type != "conv":
        return ()
    square = (op.inputs["weight"].val.shape[2:], op.inputs["strides"].val, op.inputs["dilations"].val)
    assert all(sides[0] == sides[1] for sides in square)
    return (*(int(sides[0]) for sides in square), int(op.inputs["groups"].val))
