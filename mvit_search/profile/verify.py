"""Cross-check of the operator table with the real module and with fvcore. Loads torch."""

import logging
import math
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from fvcore.nn import FlopCountAnalysis
from torch.utils.flop_counter import FlopCounterMode

from mvit_search._quantities import format_bytes
from mvit_search.architecture import MobileViTConfig
from mvit_search.architecture.network import MobileViT
from mvit_search.architecture.ops import Placed, parts
from mvit_search.architecture.task_networks import build_task
from mvit_search.architecture.tasks import task_parts
from mvit_search.errors import InputError, WorkError
from mvit_search.profile.cost import MAX_RUN_BYTES, Cost, cost_of_parts, run_bytes

# Operators that hold no convolution and no matrix product: free by the counting convention of `rows.py`.
# fvcore counts something for a few of them by default, hence the zero handles.
_COUNTED_BY_FVCORE = ("batch_norm", "layer_norm", "group_norm", "adaptive_avg_pool2d", "upsample_bilinear2d", "mean")
_FREE = frozenset({
    "aten::silu", "aten::relu", "aten::hardswish", "aten::add", "aten::mul", "aten::mean", "aten::chunk",
    "aten::silu_", "aten::relu_", "aten::hardswish_", "aten::softmax", "aten::split_with_sizes", "aten::sum",
    "aten::sub",
})  # fmt: skip


class Verification(NamedTuple):
    """Own and reference figures; `ok` when parameters and MACs are equal everywhere."""

    params: int
    params_module: int
    macs: int
    macs_fvcore: int
    macs_torch: int

    @property
    def ok(self) -> bool:
        return self.params == self.params_module and self.macs == self.macs_fvcore == self.macs_torch


def verify(config: MobileViTConfig, num_classes: int = 1000, *, output_stride: int | None = None) -> Verification:
    """Build the classification network, and count it with torch and fvcore beside the operator table.

    Raises:
        InputError: a network too large to be run for a check.
    """
    placed = parts(config, num_classes, output_stride=output_stride)
    return _verify(placed, lambda: MobileViT(config, num_classes, output_stride=output_stride), config.image_size)


def verify_task(config: MobileViTConfig, task: str, num_classes: int | None = None) -> Verification:
    """The same of a task's network.

    Raises:
        UnknownNameError: no such task.
        InputError: a network too large to be run for a check, or a backbone that the head cannot work with.
    """
    placed = task_parts(config, task, num_classes)
    return _verify(placed, lambda: build_task(config, task, num_classes), config.image_size)


def _verify(
    placed: tuple[Placed, ...], build: Callable[[], torch.nn.Module], image_size: tuple[int, int]
) -> Verification:
    """fvcore traces a real forward pass; torch's counter runs one on the meta device, shapes without numbers."""
    own = cost_of_parts(placed)
    _require_runnable(own)
    model = build().eval()
    params = sum(parameter.numel() for parameter in model.parameters())
    macs_fvcore = fvcore_macs(model, image_size)
    return Verification(own.params, params, own.macs, macs_fvcore, torch_macs(model.to("meta"), image_size))


def _require_runnable(own: Cost) -> None:
    needed = run_bytes(own)
    if needed > MAX_RUN_BYTES:
        raise InputError(
            "config", None, f"a check runs the network and needs {format_bytes(needed)}; the limit is "
            f"{format_bytes(MAX_RUN_BYTES)}", "reduce the image size, or profile it without --verify",
        )  # fmt: skip


def torch_macs(model: torch.nn.Module, image_size: tuple[int, int]) -> int:
    """MACs of convolutions and matrix products as torch's own counter finds them for one image.

    The model must be on the meta device: there fused attention is laid out as two matrix products, while the
    counter knows nothing of the fused operator that a CPU runs.
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(_image(model, image_size))
    return int(counter.get_total_flops()) // 2  # it counts a multiply-add as two


def _image(model: torch.nn.Module, image_size: tuple[int, int]) -> torch.Tensor:
    return torch.zeros(1, 3, *image_size, device=next(model.parameters()).device)


def fvcore_macs(model: torch.nn.Module, image_size: tuple[int, int]) -> int:
    """MACs of convolutions and matrix products as fvcore counts them for one image.

    Raises:
        WorkError: if fvcore met an operator that it cannot count and that is not known to be free.
    """
    analysis = FlopCountAnalysis(model, _image(model, image_size))
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
