"""Parameters, MACs and memory of a candidate: sums and scans over its operator table."""

from typing import NamedTuple

from mvit_search.architecture import MobileViTConfig, Op, operators
from mvit_search.profile.memory import BYTES_PER_NUMBER, memory_by_stride_kib, peak_activation_bytes


class Cost(NamedTuple):
    """What one forward pass of one image costs.

    Attributes:
        params: trainable parameters, equal to the module's.
        macs: multiply-adds of convolutions and matrix products (papers print them as "FLOPs").
        weight_bytes: fp16 weights after batch norm is folded.
        peak_activation_bytes: most fp16 activation memory alive at once, batch 1.
        memory_by_stride_kib: largest block output per output stride, fp16 (paper, appendix Table 8).
    """

    params: int
    macs: int
    weight_bytes: int
    peak_activation_bytes: int
    memory_by_stride_kib: dict[int, float]


def cost(config: MobileViTConfig, num_classes: int = 1000) -> Cost:
    """Cost of `MobileViT(config, num_classes)` at `config.image_size`."""
    return cost_of_operators(operators(config, num_classes, folded=True))


def cost_of_operators(ops: tuple[Op, ...]) -> Cost:
    """The same from a table, folded or whole, that is already at hand."""
    params = macs = weights = 0
    for op in ops:
        params += op.times * op.params
        macs += op.times * op.macs
        weights += op.times * op.weights
    return Cost(params, macs, BYTES_PER_NUMBER * weights, peak_activation_bytes(ops), memory_by_stride_kib(ops))


def params_of(config: MobileViTConfig, num_classes: int = 1000) -> int:
    """Parameters alone: what a budget is checked against."""
    return sum(op.times * op.params for op in operators(config, num_classes, folded=True))
