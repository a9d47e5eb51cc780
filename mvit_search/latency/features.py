"""The operator table as five physical quantities that a latency is a non-negative sum of.

Reshapes rename memory and cost nothing; activations and residual sums are taken as fused into the operator
before them. Leaving sums out also keeps a latency from falling when a wider stage loses its residual.

None of the five can fall when a network gets deeper, wider or higher in dimension, so neither can a
prediction with non-negative coefficients.
"""

from math import prod
from typing import NamedTuple

from mvit_search.architecture import Op

_FREE = frozenset(("reshape", "activation", "add"))
_BYTES_PER_NUMBER = 2  # the Neural Engine computes in fp16, whatever precision the file stores
_MIB = 2**20


class Features(NamedTuple):
    """What a network asks of a device.

    Attributes:
        operators: operators that cost a dispatch, each with a fixed overhead.
        gmacs: billions of multiply-adds of convolutions and matrix products.
        traffic_mib: MiB of activations and weights read and written, attention scores apart; fp16.
        score_mib: MiB of attention scores written by the score product, read and written by the softmax and
            read by the weighted sum: 4 * heads * (pixels of a patch) * patches^2 numbers a layer; fp16.
        resizes: bilinear resizes around a transformer whose patch does not divide its feature map.
    """

    operators: float
    gmacs: float
    traffic_mib: float
    score_mib: float
    resizes: float


FEATURE_NAMES = Features._fields
"""Feature names, in the order that coefficients and matrices keep."""

COEFFICIENT_UNITS = {
    "operators": "ms per operator",
    "gmacs": "ms per 1e9 MACs",
    "traffic_mib": "ms per MiB",
    "score_mib": "ms per MiB",
    "resizes": "ms per resize",
}


def features(ops: tuple[Op, ...]) -> Features:
    """Sum the operator table of one image; plain arithmetic, about a tenth of a millisecond."""
    elements = [prod(op.shape) for op in ops]
    dispatched = macs = traffic = scores = resizes = 0
    for op, written in zip(ops, elements, strict=True):
        kind = op.kind
        if kind in _FREE:
            continue
        dispatched += 1
        macs += op.macs
        if kind == "softmax":
            # With the product that writes the scores and the one that reads the weights: four passes.
            scores += 4 * written
        elif kind == "matmul":
            traffic += _matmul_traffic(op, ops, elements, written)
        elif kind == "split":
            traffic += 2 * written  # it reads only the slice that it writes
        else:
            read = sum(elements[i] for i in op.inputs if i >= 0) or prod(op.in_shape)
            traffic += read + written + op.weights
            resizes += kind == "resize"
    mib = _BYTES_PER_NUMBER / _MIB
    return Features(dispatched, macs / 1e9, traffic * mib, scores * mib, resizes)


def _matmul_traffic(op: Op, ops: tuple[Op, ...], elements: list[int], written: int) -> int:
    """Numbers that an attention product moves, without the scores, which the softmax accounts for."""
    left, right = op.inputs
    if ops[left].kind == "softmax":
        return elements[right] + written
    return elements[left] + elements[right]
