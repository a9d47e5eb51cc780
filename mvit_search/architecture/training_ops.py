"""What trains faster than the plain layers and computes the same; docs/training-speed.md has the measurements.

Evaluation, tracing, export and compilation run torch's layers themselves.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# torch.compile's product for linear layers; builds without oneDNN (for Apple's processors) have none.
ONEDNN: bool = torch.backends.mkldnn.is_available() and hasattr(  # type: ignore[no-untyped-call]
    torch.ops.mkldnn, "_linear_pointwise"
)

SMALLEST_PRODUCT = 4_000_000
"""Multiply-adds from which oneDNN's speed outweighs what calling it from Python costs."""


def in_eager_training(module: nn.Module) -> bool:
    """Whether `module` is being trained with nothing traced, exported or compiled."""
    traced: bool = torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
    return module.training and not traced and not torch.compiler.is_compiling()


class Linear(nn.Linear):
    """`nn.Linear`: (..., in) -> (..., out); on a CPU in training through oneDNN.

    torch multiplies float32 matrices with MKL, which takes twice oneDNN's time on AMD's processors.
    """

    def forward(self, x: Tensor) -> Tensor:
        return linear(self, x, self.weight, self.bias)


def linear(module: nn.Module, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`F.linear` for weights of `module`: (..., in) times (out, in) plus (out,) -> (..., out)."""
    plain = not ONEDNN or x.device.type != "cpu" or x.dtype != torch.float32 or x.numel() == 0
    small = x.numel() * weight.shape[0] < SMALLEST_PRODUCT
    if plain or small or not in_eager_training(module) or torch.is_autocast_enabled("cpu"):
        return F.linear(x, weight, bias)
    product: Tensor = Product.apply(x.reshape(-1, x.shape[-1]), weight, bias)  # type: ignore[no-untyped-call]
    return product.view(*x.shape[:-1], weight.shape[0])


class Product(torch.autograd.Function):
    """(n, in) times (out, in) plus (out,) -> (n, out)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous()
        for_x = _product(gradient, weight.t()) if ctx.needs_input_grad[0] else None
        for_weight = None
        if ctx.needs_input_grad[1]:
            # oneDNN is faster with the longer side second.
            wide = weight.shape[0] >= weight.shape[1]
            for_weight = _product(x.t(), gradient.t()).t() if wide else _product(gradient.t(), x.t())
        return for_x, for_weight, gradient.sum(0) if ctx.needs_input_grad[2] else None


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear` of any two matrices, (n, k) and (m, k) -> (n, m)."""
    if x.dtype != torch.float32:
        return F.linear(x, weight, bias)
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")  # type: ignore[no-any-return]


def unfold_rows(x: Tensor, patch_h: int, patch_w: int) -> Tensor:
    """`blocks.unfold` in one copy of a channels-last map: (B, d, H, W) -> (B*P, N, d)."""
    batch, dim, height, width = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(batch, height // patch_h, patch_h, width // patch_w, patch_w, dim)
    return rows.permute(0, 2, 4, 1, 3, 5).reshape(batch * patch_h * patch_w, -1, dim)


def fold_rows(tokens: Tensor, patch_h: int, patch_w: int, height: int, width: int) -> Tensor:
    """`blocks.fold` in one copy to a channels-last map: (B*P, N, d) -> (B, d, H, W)."""
    dim = tokens.shape[-1]
    rows = tokens.reshape(-1, patch_h, patch_w, height // patch_h, width // patch_w, dim)
    return rows.permute(0, 3, 1, 4, 2, 5).reshape(-1, height, width, dim).permute(0, 3, 1, 2)
