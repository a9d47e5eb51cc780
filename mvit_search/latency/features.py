"""The operator table as six physical quantities that a latency is a non-negative sum of.

Reshapes rename memory and cost nothing, and casts of the image and the logits are the caller's; activations and
residual sums are taken as fused into the operator before them. Leaving sums out also keeps a latency from falling
when a wider stage loses its residual.

Maps, channels first, and tokens, channels last, are told apart: the published latencies say that moving a number
of the second kind costs several times as much, and that is what MobileViTv2 saves.

None of the six can fall when a network gets deeper, wider or higher in dimension, so neither can a
prediction with non-negative coefficients.
"""

from collections.abc import Iterable, Sequence
from math import prod
from typing import NamedTuple

from mvit_search.architecture.ops import Part, Placed, part_operators
from mvit_search.architecture.rows import Op

# A group norm's smaller steps run with the mean and the division beside them.
_FREE = frozenset(("reshape", "cast", "activation", "add", "sub", "square", "sqrt", "div"))
_ON_TOKENS = frozenset(("linear", "layer_norm", "transpose"))
_BYTES_PER_NUMBER = 2  # the Neural Engine computes in fp16, whatever precision the file stores
_MIB = 2**20


class Features(NamedTuple):
    """What a network asks of a device.

    Attributes:
        operators: operators that cost a dispatch, each with a fixed overhead.
        gmacs: billions of multiply-adds of convolutions and matrix products.
        map_traffic_mib: MiB of activations and weights that operators on feature maps read and write; fp16.
        token_traffic_mib: the same of linear layers, layer norms, transposes and attention products, scores apart.
        score_mib: MiB of attention scores written by the score product, read and written by the softmax and
            read by the weighted sum: 4 * heads * (pixels of a patch) * patches^2 numbers a layer; fp16.
        resizes: bilinear resizes around a transformer whose patch does not divide its feature map.
    """

    operators: float
    gmacs: float
    map_traffic_mib: float
    token_traffic_mib: float
    score_mib: float
    resizes: float


FEATURE_NAMES = Features._fields
"""Feature names, in the order that coefficients and matrices keep."""

COEFFICIENT_UNITS = {
    "operators": "ms per operator",
    "gmacs": "ms per 1e9 MACs",
    "map_traffic_mib": "ms per MiB",
    "token_traffic_mib": "ms per MiB",
    "score_mib": "ms per MiB",
    "resizes": "ms per resize",
}


def features(placed: Iterable[Placed]) -> Features:
    """What a network asks of a device for one image: sums over its parts, each worked out once and cached."""
    operators = gmacs = maps = tokens = scores = resizes = 0.0
    for part, names, _, _ in placed:
        times = len(names)
        own = part.derive(_part_features)
        operators += times * own[0]
        gmacs += times * own[1]
        maps += times * own[2]
        tokens += times * own[3]
        scores += times * own[4]
        resizes += times * own[5]
    return Features(operators, gmacs, maps, tokens, scores, resizes)


def _part_features(part: Part) -> Features:
    return features_of_operators(part_operators(part))


def features_of_operators(ops: Sequence[Op]) -> Features:
    """The same of an operator table; plain arithmetic."""
    dispatched = macs = maps = tokens = scores = resizes = 0
    for op in ops:
        kind = op.kind
        if kind in _FREE:
            continue
        dispatched += 1
        macs += op.macs
        if kind in _ON_TOKENS:
            tokens += op.read + op.elements + op.weights
        elif kind == "softmax":
            # With the product that writes the scores and the one that reads the weights: four passes.
            scores += 4 * op.elements
        elif kind == "matmul":
            # The softmax accounts for the scores that one product writes and the other reads.
            weighs = ops[op.inputs[0]].kind == "softmax"
            tokens += op.read + op.elements - (prod(op.in_shape) if weighs else op.elements)
        elif kind == "split":
            maps += 2 * op.elements  # it reads only the slice that it writes
        elif kind == "batch_norm":
            maps += op.read + op.elements + op.weights // 2  # a scale, and a shift that is free like every sum
        else:
            maps += op.read + op.elements + op.weights
            resizes += kind == "resize"
    mib = _BYTES_PER_NUMBER / _MIB
    return Features(dispatched, macs / 1e9, maps * mib, tokens * mib, scores * mib, resizes)
