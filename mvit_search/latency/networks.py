"""Operator rows of published networks of other families, so that a fit can learn from their latencies.

`published_networks.json` holds numbers alone: for each network the operators of its Core ML program, equal ones
counted, and where its definition came from. `tools/published_networks.py` makes it.
"""

import json
import math
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from mvit_search.architecture.rows import NETWORK_INPUT, Op

PUBLISHED_NETWORKS = Path(__file__).resolve().parent / "published_networks.json"

COLUMNS = ("count", "kind", "in_shape", "shape", "read", "weights", "macs", "kernel", "groups", "tokens")
"""What a row of the file holds, in this order; shapes, counts and kinds as in `Op`."""


class PublishedNetwork(NamedTuple):
    """A network of another family.

    Attributes:
        name: definition and resolution, `mobileone_s0@224`.
        published_as: (model, variant) under which latencies of it are published.
        definition: where its layers were read from.
        image_size: (height, width), pixels.
        weights: numbers that its Core ML program stores.
        macs: multiply-adds of the program.
        ops: its operators in no particular order, without names and inputs.
    """

    name: str
    published_as: tuple[tuple[str, str], ...]
    definition: str
    image_size: tuple[int, int]
    weights: int
    macs: int
    ops: tuple[Op, ...]


@cache
def published_networks(path: Path = PUBLISHED_NETWORKS) -> dict[str, PublishedNetwork]:
    """Every network of the file, by name."""
    document = json.loads(path.read_text(encoding="utf-8"))
    return {entry["name"]: _network(entry) for entry in document["networks"]}


def row_of(op: Op) -> tuple[Any, ...]:
    """What the file keeps of an operator, `COLUMNS` without the count."""
    return (op.kind, op.in_shape, op.shape, op.read, op.weights, op.macs, op.kernel, op.groups, op.tokens)


def _network(entry: dict[str, Any]) -> PublishedNetwork:
    ops = tuple(op for row in entry["rows"] for op in (_op(*row[1:]),) * row[0])
    height, width = entry["image_size"]
    return PublishedNetwork(
        name=entry["name"],
        published_as=tuple((model, variant) for model, variant in entry["published_as"]),
        definition=entry["definition"],
        image_size=(height, width),
        weights=sum(op.weights for op in ops),
        macs=sum(op.macs for op in ops),
        ops=ops,
    )


def _op(
    kind: str, in_shape: list[int], shape: list[int], read: int, weights: int, macs: int, kernel: int, groups: int,
    tokens: bool,
) -> Op:  # fmt: skip
    return Op(
        name="", kind=kind, inputs=(NETWORK_INPUT,), in_shape=tuple(in_shape), shape=tuple(shape), params=weights,
        weights=weights, macs=macs, stride=1, kernel=kernel, groups=groups, dilation=1, block_output=False, read=read,
        elements=math.prod(shape), tokens=bool(tokens),
    )  # fmt: skip
