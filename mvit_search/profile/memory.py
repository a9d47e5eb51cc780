"""Activation memory from the operator table: a liveness scan, and the paper's Table 8."""

import math

from mvit_search.architecture import Op
from mvit_search.architecture.ops import NETWORK_INPUT

BYTES_PER_NUMBER = 2
"""fp16, as Core ML's ML programs and the paper's Table 8 count."""


def peak_activation_bytes(ops: tuple[Op, ...], bytes_per_number: int = BYTES_PER_NUMBER) -> int:
    """Most activation bytes alive at once in one forward pass of one image.

    Operators run in table order. Each output gets memory of its own when its operator runs and is freed
    after its last reader; a reshape is a view of its input. The image counts until the stem has read it.
    Weights and a runtime's scratch space are not counted.
    """
    count = len(ops)
    owner = list(range(count))  # whose memory holds the output: the operator's own, or what a reshape looks at
    last_read = list(range(count))
    image_read_until = 0
    for index, op in enumerate(ops):
        inputs = op.inputs
        if op.kind == "reshape":
            owner[index] = owner[inputs[0]]
        for source in inputs:
            if source == NETWORK_INPUT:
                image_read_until = index
            else:
                last_read[owner[source]] = index
    freed_after = [0] * count
    live = peak = math.prod(ops[0].in_shape)
    freed_after[image_read_until] += live
    for index, op in enumerate(ops):
        if owner[index] == index:
            size = op.elements
            live += size
            freed_after[last_read[index]] += size
            if live > peak:
                peak = live
        live -= freed_after[index]
    return bytes_per_number * peak


def memory_by_stride_kib(ops: tuple[Op, ...], bytes_per_number: int = BYTES_PER_NUMBER) -> dict[int, float]:
    """Largest block output at each output stride in KiB: memory that must be materialised (paper, Table 8)."""
    largest: dict[int, int] = {}
    for op in ops:
        if op.block_output:
            largest[op.stride] = max(largest.get(op.stride, 0), op.elements)
    return {stride: bytes_per_number * elements / 1024 for stride, elements in sorted(largest.items())}
