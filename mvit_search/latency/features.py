"""An operator table as fifteen physical quantities that a latency is a non-negative sum of.

A convolution or product takes as long as its arithmetic or as moving its activations, whichever is longer (a
roofline, Williams et al. 2009): `BALANCE` says how many GMACs a device does while it moves a MiB. Everything else
costs what it moves. Reshapes rename memory and cost nothing; casts of image and logits are the caller's; residual
sums and activations are fused with the operator before them, except SiLU: EfficientNet's published latencies say
that an A14 makes a pass of its own for it.

Tokens are told apart where a transformer runs on several sequences at once, as MobileViT's does on the pixels of a
patch: the published latencies say that on an A14 moving those costs several times what moving a map does, as it
would off the Neural Engine. A resize by a fraction of a pixel is told apart from one by a whole factor likewise.

None of the quantities falls when a network gets deeper, wider or higher in dimension, so neither can a prediction
with non-negative coefficients.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mvit_search.architecture.ops import Part, Placed, part_operators
from mvit_search.architecture.rows import Op

BALANCE = 0.04
"""GMACs that take as long as moving a MiB of activations: 38 MACs a byte. Picked from 0.02 to 0.12 by the left-out
errors of all three iPhones, which hardly differ between 0.03 and 0.06."""

_FREE = frozenset(("reshape", "cast", "activation", "add"))
_PRODUCTS = frozenset(("linear", "matmul", "attention"))
_COPIES = frozenset(("concat", "pad", "split", "resize", "unknown"))
_REDUCTIONS = frozenset(("mean", "sum", "reduce", "pool"))
_BYTES_PER_NUMBER = 2  # the Neural Engine computes in fp16, whatever precision the file stores
_MIB = 2**20


class Features(NamedTuple):
    """What a network asks of a device; traffic is MiB of fp16 numbers read and written.

    Attributes:
        networks: 1: what a run costs before and after its operators.
        operators: operators that cost a dispatch.
        conv_work_gmacs: convolutions, for each the larger of its GMACs and `BALANCE` times its MiB of activations.
        product_work_gmacs: linear layers and matrix products likewise; of batched ones their GMACs.
        weight_mib: weights of convolutions and linear layers.
        silu_mib: SiLU.
        score_mib: softmax of one sequence's attention scores.
        batched_token_mib: linear layers, products and layer norms on several sequences at once, scores apart.
        batched_score_mib: attention scores of several sequences at once, written, normalised and read.
        transpose_mib: transposes.
        copy_mib: concatenations, splits, pads, resizes, and operators of unknown type.
        reduction_mib: means, sums, pooling.
        arithmetic_mib: products, differences and quotients of maps, and norms that are not batched.
        gather_mib: gathers, scatters, sorting.
        uneven_resizes: resizes by no whole factor, up or down.
    """

    networks: float
    operators: float
    conv_work_gmacs: float
    product_work_gmacs: float
    weight_mib: float
    silu_mib: float
    score_mib: float
    batched_token_mib: float
    batched_score_mib: float
    transpose_mib: float
    copy_mib: float
    reduction_mib: float
    arithmetic_mib: float
    gather_mib: float
    uneven_resizes: float


FEATURE_NAMES = Features._fields
"""Feature names, in the order that coefficients and matrices keep."""

_UNIT_OF_SUFFIX = {"gmacs": "ms per 1e9 MACs", "mib": "ms per MiB"}
COEFFICIENT_UNITS = {
    name: _UNIT_OF_SUFFIX.get(name.rpartition("_")[2], f"ms per {name.rstrip('s').replace('_', ' ')}")
    for name in FEATURE_NAMES
}

OPERATOR_CLASSES = {
    "fixed cost of a run": ("networks",),
    "dispatch": ("operators",),
    "convolutions": ("conv_work_gmacs",),
    "linear layers and products": ("product_work_gmacs",),
    "weights": ("weight_mib",),
    "SiLU": ("silu_mib",),
    "attention tokens": ("batched_token_mib",),
    "attention scores": ("score_mib", "batched_score_mib"),
    "layout": ("transpose_mib", "copy_mib", "gather_mib"),
    "norms and arithmetic": ("reduction_mib", "arithmetic_mib"),
    "uneven resizes": ("uneven_resizes",),
}
"""Features by the class of operator that people ask about; every feature is in one class."""

_Amounts = tuple[float, ...]


def features(placed: Iterable[Placed]) -> Features:
    """What a network asks of a device for one image: sums over its parts, each worked out once and cached."""
    rows = [(len(names), part.derive(_part_features)) for part, names, _, _ in placed]
    sums = (sum(times * own[index] for times, own in rows) for index in range(1, len(FEATURE_NAMES)))
    return Features(1.0, *sums)


def features_of_network(ops: Sequence[Op]) -> Features:
    """The same of a whole network's operator table, whatever its family."""
    return Features(1.0, *features_of_operators(ops)[1:])


def features_of_operators(ops: Iterable[Op]) -> Features:
    """What some operators add to a network's features: `networks` is 0, sums are taken one operator at a time."""
    amounts = dict.fromkeys(FEATURE_NAMES, 0.0)
    for op in ops:
        if op.kind not in _FREE:
            _add(op, amounts)
    return Features(**amounts)


def _part_features(part: Part) -> _Amounts:
    return features_of_operators(part_operators(part))


def _add(op: Op, amounts: dict[str, float]) -> None:
    kind = op.kind
    mib = _BYTES_PER_NUMBER / _MIB
    moved = mib * (op.read + op.elements)
    if kind == "silu":
        amounts["silu_mib"] += moved
        return
    amounts["operators"] += 1
    if kind in ("conv", "conv_transpose"):
        amounts["conv_work_gmacs"] += max(op.macs / 1e9, BALANCE * moved)
        amounts["weight_mib"] += mib * op.weights
    elif kind in _PRODUCTS:
        _add_product(op, moved, amounts)
    elif kind == "softmax":
        amounts["batched_score_mib" if _is_batched(op) else "score_mib"] += moved
    elif kind == "layer_norm":
        amounts["batched_token_mib" if _is_batched(op) else "arithmetic_mib"] += moved
    elif kind == "transpose":
        amounts["transpose_mib"] += moved
    elif kind in _COPIES:
        # A split reads only the slice that it writes.
        amounts["copy_mib"] += 2 * mib * op.elements if kind == "split" else moved
        amounts["uneven_resizes"] += kind == "resize" and _is_uneven(op)
    elif kind == "gather":
        amounts["gather_mib"] += moved
    else:
        amounts["reduction_mib" if kind in _REDUCTIONS else "arithmetic_mib"] += moved


def _add_product(op: Op, moved: float, amounts: dict[str, float]) -> None:
    amounts["weight_mib"] += _BYTES_PER_NUMBER / _MIB * op.weights
    if _is_batched(op):
        # Of a product of matrices the larger, on either side, is taken for the scores: they are, once there are more
        # tokens than channels a head, and before that they are few.
        scores = max(math.prod(op.in_shape), op.elements) if op.kind == "matmul" else 0
        amounts["product_work_gmacs"] += op.macs / 1e9
        amounts["batched_score_mib"] += _BYTES_PER_NUMBER / _MIB * scores
        amounts["batched_token_mib"] += moved - _BYTES_PER_NUMBER / _MIB * scores
    else:
        amounts["product_work_gmacs"] += max(op.macs / 1e9, BALANCE * moved)


def _is_batched(op: Op) -> bool:
    """Whether it works on several sequences: (sequences, tokens, channels), or (sequences, heads, ...) of scores."""
    rank = 3 if op.kind in ("linear", "layer_norm") else 4
    return op.tokens and len(op.shape) >= rank and op.shape[0] > 1


def _is_uneven(op: Op) -> bool:
    """Whether it changes a side by no whole factor, up or down."""
    sides = zip(op.in_shape[-2:], op.shape[-2:], strict=False)
    return any(after % before and before % after for before, after in sides)
