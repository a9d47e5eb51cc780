"""Activation memory from the operator table: a liveness scan."""

import math
from collections.abc import Sequence
from functools import lru_cache

from mvit_search.architecture import Op
from mvit_search.architecture.ops import Part, Placed, part_operators
from mvit_search.architecture.rows import NETWORK_INPUT, VIEWS

BYTES_PER_NUMBER = 2
"""fp16, as Core ML's ML programs and the paper's Table 8 count."""


def peak_activation_bytes(placed: Sequence[Placed], bytes_per_number: int = BYTES_PER_NUMBER) -> int:
    """Most activation bytes alive at once in one forward pass of one image.

    Operators run in table order. Each output gets memory of its own when its operator runs and is freed
    after its last reader; a reshape is a view of its input. The image counts until the stem has read it.
    Weights and a runtime's scratch space are not counted.
    """
    # While a part runs, what a later part will read is alive besides; its own inputs are freed inside it,
    # unless a later part reads them too.
    last_reader = {source: index for index, row in enumerate(placed) for source in row.inputs}
    held = math.prod(placed[0].part.in_shapes[0])
    sizes = {NETWORK_INPUT: held}
    most = 0
    for index, (part, names, inputs, _) in enumerate(placed):
        around = held
        kept = 0
        for source in inputs:
            around -= sizes[source]
            if last_reader[source] > index:
                kept += sizes[source]
        if kept:
            alive = around + _part_peak(part, tuple([last_reader[source] > index for source in inputs]))
            if len(names) > 1:
                alive = max(alive, around + kept + part.derive(_peak))
        else:
            alive = around + part.derive(_peak)
        if alive > most:
            most = alive
        size = sizes[index] = part.derive(_output_elements)
        held = around + kept + (size if index in last_reader else 0)
    return bytes_per_number * most


def _output_elements(part: Part) -> int:
    return math.prod(part.shape)


def _peak(part: Part) -> int:
    """Most numbers alive while a part runs whose inputs nobody reads later."""
    return _part_peak(part, (False,) * len(part.in_shapes))


@lru_cache(maxsize=1 << 12)
def _part_peak(part: Part, kept: tuple[bool, ...]) -> int:
    return peak_elements(part_operators(part), tuple(map(math.prod, part.in_shapes)), kept)


def peak_elements(
    ops: Sequence[Op], input_elements: Sequence[int], kept: Sequence[bool], views: frozenset[str] = VIEWS
) -> int:
    """Most numbers alive at once while `ops` run.

    Args:
        ops: operators in order; an input below zero, -1 or -2, is the first or second of the inputs.
        input_elements: numbers in each input; all inputs are alive when the first operator runs.
        kept: whether each input stays alive to the end, for somebody else to read.
        views: kinds of operators whose output is in their input's memory.
    """
    count = len(ops)
    # Whose memory holds the output: the operator's own, or what a view looks at (an input, below zero).
    owner = [index if op.kind not in views else op.inputs[0] for index, op in enumerate(ops)]
    last_read = list(range(count))
    input_read_until = [0] * len(input_elements)
    for index, op in enumerate(ops):
        if owner[index] != index and owner[index] >= 0:
            owner[index] = owner[owner[index]]
        for source in op.inputs:
            root = owner[source] if source >= 0 else source
            if root >= 0:
                last_read[root] = index
            else:
                input_read_until[-1 - root] = index
    freed_after = [0] * count
    for size, until, keep in zip(input_elements, input_read_until, kept, strict=True):
        if not keep:
            freed_after[until] += size
    live = peak = sum(input_elements)
    for index, op in enumerate(ops):
        if owner[index] == index:
            live += op.elements
            freed_after[last_read[index]] += op.elements
            if live > peak:
                peak = live
        live -= freed_after[index]
    return peak
