"""The tables that `profile --layers` and `--ops` show, and how many bytes are alive while each operator runs."""

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from mvit_search.architecture import Op
from mvit_search.architecture.rows import NETWORK_INPUT, VIEWS, bytes_read, bytes_written
from mvit_search.profile.memory import BYTES_PER_NUMBER


class LayerRow(NamedTuple):
    """Cost of one block: what its operators sum to, and the shape it hands on (channels first).

    `moved_bytes` counts inputs, weights and outputs of every operator, fp16, each time they are read or written;
    `output_bytes` is the size of what it hands on, `first_operator` where in the table its operators begin.
    """

    name: str
    operators: int
    shape: tuple[int, ...]
    stride: int
    params: int
    macs: int
    moved_bytes: int
    output_bytes: int
    first_operator: int

    def own_operators(self, ops: Sequence[Op]) -> tuple[Op, ...]:
        """The block's rows of the whole table `ops`, their inputs counted from its first; below 0: from outside."""
        first = self.first_operator
        members = ops[first : first + self.operators]
        return tuple(op._replace(inputs=tuple(max(i - first, NETWORK_INPUT) for i in op.inputs)) for op in members)


class OpRow(NamedTuple):
    """One operator for people.

    `detail` says what `kind` leaves open (`3x3 depthwise s2`), `stage` is as in `Op`; bytes are fp16, and a view moves
    none.
    """

    name: str
    kind: str
    detail: str
    stage: str
    shape: tuple[int, ...]
    params: int
    macs: int
    read_bytes: int
    written_bytes: int


def layer_rows(ops: tuple[Op, ...]) -> tuple[LayerRow, ...]:
    """Rows of a whole table in network order; they partition it, so their sums are the network's totals."""
    rows: list[LayerRow] = []
    first = 0
    for name, group in groupby(ops, key=block_name):
        members = tuple(group)
        last = members[-1]
        params, macs = sum(op.params for op in members), sum(op.macs for op in members)
        moved = sum(bytes_read(op) + bytes_written(op) for op in members)
        size = BYTES_PER_NUMBER * last.elements
        rows.append(LayerRow(name, len(members), last.shape, last.stride, params, macs, moved, size, first))
        first += len(members)
    return tuple(rows)


def op_rows(ops: tuple[Op, ...]) -> tuple[OpRow, ...]:
    """One row an operator, in the order of execution."""
    return tuple(
        OpRow(
            op.name, op.kind, _detail(op, ops), op.stage, op.shape, op.params, op.macs, bytes_read(op),
            bytes_written(op),
        )
        for op in ops
    )  # fmt: skip


def alive_bytes(ops: Sequence[Op], image_elements: int) -> tuple[int, ...]:
    """Activation bytes (fp16) alive while each operator runs; the largest is `cost`'s peak activation memory.

    The rules are those of `peak_activation_bytes`: an output is freed after its last reader, a reshape is a view.
    """
    owner = list(range(len(ops)))  # whose memory holds an output; a view's is its input's
    last_read = [*owner, -1]  # the last place is the image's: index -1
    for index, op in enumerate(ops):
        if op.kind in VIEWS:
            source = op.inputs[0]
            owner[index] = owner[source] if source != NETWORK_INPUT else NETWORK_INPUT
        for source in op.inputs:
            last_read[owner[source] if source != NETWORK_INPUT else NETWORK_INPUT] = index
    freed = [0] * len(ops)
    freed[last_read[NETWORK_INPUT]] = image_elements
    alive, live = [], image_elements
    for index, op in enumerate(ops):
        if owner[index] == index:
            live += op.elements
            freed[last_read[index]] += op.elements
        alive.append(BYTES_PER_NUMBER * live)
        live -= freed[index]
    return tuple(alive)


_BEFORE_TRANSFORMER = frozenset({"local", "to_dim", "resize_in", "unfold"})
# Blocks of the detection and segmentation heads: how much of the name says which. All else of a head is one block.
_HEAD_BLOCKS = {"maps": 3, "boxes": 3, "aspp": 2}


def block_name(op: Op) -> str:
    """The block an operator belongs to.

    `stages.2.block.transformer.0.attention.qkv` -> `stages.2.block.transformer.0`; `stem.conv` -> `stem`;
    `head.boxes.16.predict` -> `head.boxes.16`. What stands before a MobileViT block's transformer is its `local` part,
    what stands after it its `fusion` part.
    """
    parts = op.name.split(".")
    if parts[0] != "stages":
        return ".".join(parts[: _HEAD_BLOCKS.get(parts[1], 1)])
    if parts[2] == "blocks" or (parts[2] == "block" and parts[3] == "transformer"):
        return ".".join(parts[: 4 if parts[2] == "blocks" else 5])
    if parts[2] == "block":
        return f"{op.stage}.block.{'local' if parts[3] in _BEFORE_TRANSFORMER else 'fusion'}"
    return ".".join(parts[:3])


def _detail(op: Op, ops: Sequence[Op]) -> str:
    """`3x3 depthwise s2 d2` of a convolution; of the rest nothing, their shapes say it."""
    if op.kind != "conv":
        return ""
    source = op.inputs[0]
    stride = op.stride // (ops[source].stride if source != NETWORK_INPUT else 1)
    depthwise = op.groups > 1 and op.groups == op.in_shape[0]
    words = [f"{op.kernel}x{op.kernel}"]
    if op.groups > 1:
        words.append("depthwise" if depthwise else f"groups {op.groups}")
    if stride > 1:
        words.append(f"s{stride}")
    if op.dilation > 1:
        words.append(f"d{op.dilation}")
    return " ".join(words)
