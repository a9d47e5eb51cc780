"""The table that `profile --layers` shows: one row a block."""

from itertools import groupby
from typing import NamedTuple

from mvit_search.architecture import Op
from mvit_search.architecture.ops import bytes_read, bytes_written


class LayerRow(NamedTuple):
    """Cost of one block: what its operators sum to, and the shape it hands on (channels first).

    `moved_bytes` counts inputs, weights and outputs of every operator, fp16, each time they are read or written.
    """

    name: str
    operators: int
    shape: tuple[int, ...]
    stride: int
    params: int
    macs: int
    moved_bytes: int


def layer_rows(ops: tuple[Op, ...]) -> tuple[LayerRow, ...]:
    """Rows of a whole table in network order; they partition it, so their sums are the network's totals."""
    rows = []
    for name, group in groupby(ops, key=_block_name):
        members = tuple(group)
        last = members[-1]
        params, macs = sum(op.params for op in members), sum(op.macs for op in members)
        moved = sum(bytes_read(op) + bytes_written(op) for op in members)
        rows.append(LayerRow(name, len(members), last.shape, last.stride, params, macs, moved))
    return tuple(rows)


_BEFORE_TRANSFORMER = frozenset({"local", "to_dim", "resize_in", "unfold"})


def _block_name(op: Op) -> str:
    """The block an operator belongs to.

    `stages.2.block.transformer.0.attention.qkv` -> `stages.2.block.transformer.0`; `stem.conv` -> `stem`. What
    stands before a MobileViT block's transformer is its `local` part, what stands after it its `fusion` part.
    """
    if op.stage in ("stem", "head"):
        return op.stage
    parts = op.name.split(".")
    if parts[2] == "blocks" or (parts[2] == "block" and parts[3] == "transformer"):
        return ".".join(parts[: 4 if parts[2] == "blocks" else 5])
    if parts[2] == "block":
        return f"{op.stage}.block.{'local' if parts[3] in _BEFORE_TRANSFORMER else 'fusion'}"
    return ".".join(parts[:3])
