"""Cross-check of the operator table with the real module and with fvcore. Loads torch."""

import logging
import math
from collections import Counter
from typing import Any, NamedTuple

import torch
from fvcore.nn import FlopCountAnalysis

from mvit_search.architecture import MobileViTConfig
from mvit_search.architecture.network import MobileViT
from mvit_search.errors import WorkError
from mvit_search.profile.cost import cost

# Operators that hold no convolution and no matrix product: free by the counting convention of `ops.py`.
# fvcore counts something for a few of them by default, hence the zero handles.
_COUNTED_BY_FVCORE = ("batch_norm", "layer_norm", "adaptive_avg_pool2d", "upsample_bilinear2d", "mean")
_FREE = frozenset({
    "aten::silu", "aten::relu", "aten::hardswish", "aten::add", "aten::mul", "aten::mean", "aten::chunk",
    "aten::silu_", "aten::relu_", "aten::hardswish_", "aten::softmax",
})  # fmt: skip


class Verification(NamedTuple):
    """Own and reference figures; `ok` when parameters and MACs are both equal."""

    params: int
    params_module: int
    macs: int
    macs_fvcore: int

    @property
    def ok(self) -> bool:
        return self.params == self.params_module and self.macs == self.macs_fvcore


def verify(config: MobileViTConfig, num_classes: int = 1000) -> Verification:
    """Build the network, count it with torch and fvcore, and set that beside the operator table."""
    own = cost(config, num_classes)
    model = MobileViT(config, num_classes).eval()
    params = sum(parameter.numel() for parameter in model.parameters())
    return Verification(own.params, params, own.macs, fvcore_macs(model, config.image_size))


def fvcore_macs(model: torch.nn.Module, image_size: tuple[int, int]) -> int:
    """MACs of convolutions and matrix products as fvcore counts them for one image.

    Raises:
        WorkError: if fvcore met an operator that it cannot count and that is not known to be free.
    """
    analysis = FlopCountAnalysis(model, torch.zeros(1, 3, *image_size))
    analysis.set_op_handle("aten::scaled_dot_product_attention", _attention_macs)
    for kind in _COUNTED_BY_FVCORE:
        analysis.set_op_handle(f"aten::{kind}", _no_macs)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    total = analysis.total()
    uncounted = set(analysis.unsupported_ops()) - _FREE
    if uncounted:
        raise WorkError(f"fvcore cannot count {', '.join(sorted(uncounted))}; the MACs are not verified")
    return int(total)


def _no_macs(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    return Counter()


def _attention_macs(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """Both matrix products of softmax attention; fvcore has no handle for the fused operator."""
    query = inputs[0].type().sizes()
    key = inputs[1].type().sizes()
    scores = math.prod(query[:-1]) * key[-2]
    return Counter({"attention": 2 * scores * query[-1]})
