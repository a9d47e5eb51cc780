"""Parameters, MACs and memory of a candidate: sums and scans over its operator table, cached part by part."""

from typing import NamedTuple

from mvit_search.architecture import MobileViTConfig
from mvit_search.architecture.ops import Part, Placed, part_operators, parts
from mvit_search.profile.memory import BYTES_PER_NUMBER, peak_activation_bytes


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


def cost(config: MobileViTConfig, num_classes: int = 1000, *, output_stride: int | None = None) -> Cost:
    """Cost of `MobileViT(config, num_classes, output_stride=output_stride)` at `config.image_size`."""
    return cost_of_parts(parts(config, num_classes, output_stride=output_stride))


def cost_of_parts(placed: tuple[Placed, ...]) -> Cost:
    """The same from parts that are already at hand."""
    params = macs = weights = 0
    largest: dict[int, int] = {}
    for part, names, _, stride in placed:
        own = part.derive(_part_cost)
        times = len(names)
        params += times * own.params
        macs += times * own.macs
        weights += times * own.weights
        if own.block_elements:
            at = stride * own.block_stride
            if own.block_elements > largest.get(at, 0):
                largest[at] = own.block_elements
    by_stride = {at: BYTES_PER_NUMBER * largest[at] / 1024 for at in sorted(largest)}
    return Cost(params, macs, BYTES_PER_NUMBER * weights, peak_activation_bytes(placed), by_stride)


def params_of(config: MobileViTConfig, num_classes: int = 1000) -> int:
    """Parameters alone: what a budget is checked against."""
    return sum([len(row.names) * row.part.derive(_part_cost).params for row in parts(config, num_classes)])


MAX_RUN_BYTES = 4 * 2**30
"""Weights and activations in fp32 that running a network for a check, or to time it, may take."""


def run_bytes(costs: Cost) -> int:
    """What a run in fp32 takes: twice fp16's bytes; eager execution holds a little more than the scan says."""
    return 2 * (costs.weight_bytes + costs.peak_activation_bytes)


class _PartCost(NamedTuple):
    """Sums over a part's operators; its largest block output (0: none) and the stride that stands at, relative."""

    params: int
    macs: int
    weights: int
    block_elements: int
    block_stride: int


def _part_cost(part: Part) -> _PartCost:
    ops = part_operators(part)
    block, stride = max(((op.elements, op.stride) for op in ops if op.block_output), default=(0, 1))
    params, macs, weights = (
        sum(amounts) for amounts in zip(*[(op.params, op.macs, op.weights) for op in ops], strict=True)
    )
    return _PartCost(params, macs, weights, block, stride)
