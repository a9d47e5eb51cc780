"""The building blocks as `nn.Module`s, in the order the network needs them; shapes in comments.

Module names are those of the operators in `layouts.py`, but for sequences.
B = batch, P = pixels of a patch, N = patches, d = dim.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mvit_search.architecture.config import Activation, MobileViTStage
from mvit_search.architecture.rows import hidden_channels, patched_size
from mvit_search.architecture.training_ops import (
    Linear,
    fold_rows,
    in_eager_training,
    linear,
    unfold_rows,
)  # fmt: skip

_ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "silu": nn.SiLU,
    "relu": nn.ReLU,
    "hardswish": nn.Hardswish,
}


def activation(name: Activation) -> nn.Module:
    """The activation module of that name."""
    return _ACTIVATIONS[name]()


class ConvNorm(nn.Module):
    """Convolution with "same" padding, batch norm, and an activation unless `act` is None."""

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel_size: int = 1, stride: int = 1, dilation: int = 1,
        groups: int = 1, act: Activation | None,
    ) -> None:  # fmt: skip
        super().__init__()
        padding = kernel_size // 2 * dilation
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding, dilation=dilation, groups=groups, bias=False
        )
        self.norm = nn.BatchNorm2d(out_channels)
        self.activation = activation(act) if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv(x)))  # type: ignore[no-any-return]


class InvertedResidual(nn.Module):
    """MobileNetV2 block: 1x1 expand (left out at ratio 1), 3x3 depthwise, 1x1 project, sum where shapes allow."""

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int, dilation: int, expand_ratio: float, act: Activation
    ) -> None:
        super().__init__()
        hidden = hidden_channels(in_channels, expand_ratio)
        self.expand = ConvNorm(in_channels, hidden, act=act) if expand_ratio != 1 else nn.Identity()
        self.depthwise = ConvNorm(
            hidden, hidden, kernel_size=3, stride=stride, dilation=dilation, groups=hidden, act=act
        )
        self.project = ConvNorm(hidden, out_channels, act=None)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class Attention(nn.Module):
    """Multi-head self-attention among the N patches, for each of the P pixels apart."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = Linear(dim, 3 * dim)
        self.out = Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, patches, dim = x.shape  # (B*P, N, d)
        if patches == 1 and in_eager_training(self):
            # A softmax over one patch is 1: attention returns the values, and queries and keys have no gradient.
            value = linear(self, x, self.qkv.weight[2 * dim :], self.qkv.bias[2 * dim :])
            return self.out(value)  # type: ignore[no-any-return]
        q, k, v = (
            part.reshape(batch, patches, self.num_heads, dim // self.num_heads).transpose(1, 2)
            for part in self.qkv(x).chunk(3, dim=-1)
        )  # each (B*P, heads, N, d / heads)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.out(x.transpose(1, 2).reshape(batch, patches, dim))  # type: ignore[no-any-return]


class TransformerLayer(nn.Module):
    """Pre-norm attention and feed-forward, each with its residual sum."""

    def __init__(self, stage: MobileViTStage, act: Activation) -> None:
        super().__init__()
        dim = stage.transformer_dim
        self.norm1 = nn.LayerNorm(dim)
        self.attention = Attention(dim, stage.num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.ffn = nn.Sequential(Linear(dim, stage.ffn_dim), activation(act), Linear(stage.ffn_dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.ffn(self.norm2(x))  # type: ignore[no-any-return]


class MobileViTBlock(nn.Module):
    """Local convolutions, a transformer over unfolded patches, fusion with the input (paper, figure 1b)."""

    def __init__(self, stage: MobileViTStage, act: Activation) -> None:
        super().__init__()
        channels, dim, kernel = stage.out_channels, stage.transformer_dim, stage.conv_kernel_size
        self.patch = (stage.patch_h, stage.patch_w)
        self.local = ConvNorm(channels, channels, kernel_size=kernel, act=act)
        self.to_dim = nn.Conv2d(channels, dim, kernel_size=1, bias=False)
        self.transformer = nn.ModuleList(TransformerLayer(stage, act) for _ in range(stage.num_layers))
        self.norm = nn.LayerNorm(dim)
        self.from_dim = ConvNorm(dim, channels, act=act)
        self.fuse = ConvNorm(2 * channels, channels, kernel_size=kernel, act=act) if stage.fusion else None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.to_dim(self.local(x))  # (B, d, H, W)
        size = (y.shape[-2], y.shape[-1])
        patched = (patched_size(size[0], self.patch[0]), patched_size(size[1], self.patch[1]))
        y = resize(y, patched, align_corners=False)
        fast = in_eager_training(self)
        tokens = (unfold_rows if fast else unfold)(y, *self.patch)  # (B*P, N, d)
        for layer in self.transformer:
            tokens = layer(tokens)
        y = (fold_rows if fast else fold)(self.norm(tokens), *self.patch, *patched)  # (B, d, H', W')
        y = self.from_dim(resize(y, size, align_corners=False))
        if self.fuse is not None:
            y = self.fuse(torch.cat((x, y), dim=1))
        return y


class SeparableAttention(nn.Module):
    """Separable self-attention (arXiv 2206.02680, section 3.2): linear in the number of patches.

    Each pixel of a patch has one context vector, the keys of all patches weighted by a softmax over the patches;
    it scales the values of every patch.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.qkv = nn.Conv2d(dim, 1 + 2 * dim, kernel_size=1)
        self.out = nn.Conv2d(dim, dim, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).split((1, self.dim, self.dim), dim=1)  # (B, 1 or d, P, N)
        context = (key * query.softmax(dim=-1)).sum(dim=-1, keepdim=True)  # (B, d, P, 1)
        return self.out(F.relu(value) * context)  # type: ignore[no-any-return]


class SeparableLayer(nn.Module):
    """Pre-norm separable attention and feed-forward on channels-first tokens, each with its residual sum.

    The norm is over channels, pixels and patches together, with a scale and shift a channel.
    """

    def __init__(self, stage: MobileViTStage, act: Activation) -> None:
        super().__init__()
        dim = stage.transformer_dim
        self.norm1 = nn.GroupNorm(1, dim)
        self.attention = SeparableAttention(dim)
        self.norm2 = nn.GroupNorm(1, dim)
        self.ffn = nn.Sequential(
            nn.Conv2d(dim, stage.ffn_dim, kernel_size=1), activation(act), nn.Conv2d(stage.ffn_dim, dim, kernel_size=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.ffn(self.norm2(x))  # type: ignore[no-any-return]


class MobileViTv2Block(nn.Module):
    """Depthwise local convolution, a separable transformer over unfolded patches (arXiv 2206.02680, section 3.3).

    A map that the patch does not divide is resized once, with aligned corners, and stays so: the output is larger
    than the input. Fusion with the (resized) input is not part of the published networks.
    """

    def __init__(self, stage: MobileViTStage, dilation: int, act: Activation) -> None:
        super().__init__()
        channels, dim, kernel = stage.out_channels, stage.transformer_dim, stage.conv_kernel_size
        self.patch = (stage.patch_h, stage.patch_w)
        self.local = ConvNorm(channels, channels, kernel_size=kernel, dilation=dilation, groups=channels, act=act)
        self.to_dim = nn.Conv2d(channels, dim, kernel_size=1, bias=False)
        self.transformer = nn.ModuleList(SeparableLayer(stage, act) for _ in range(stage.num_layers))
        self.norm = nn.GroupNorm(1, dim)
        self.from_dim = ConvNorm(dim, channels, act=None)
        self.fuse = ConvNorm(2 * channels, channels, kernel_size=kernel, act=act) if stage.fusion else None

    def forward(self, x: Tensor) -> Tensor:
        patched = (patched_size(x.shape[-2], self.patch[0]), patched_size(x.shape[-1], self.patch[1]))
        x = resize(x, patched, align_corners=True)
        tokens = to_patches(self.to_dim(self.local(x)), *self.patch).transpose(2, 3)  # (B, d, P, N)
        for layer in self.transformer:
            tokens = layer(tokens)
        y: Tensor = self.from_dim(from_patches(self.norm(tokens).transpose(2, 3), *self.patch, *patched))
        if self.fuse is not None:
            y = self.fuse(torch.cat((x, y), dim=1))
        return y


def unfold(x: Tensor, patch_h: int, patch_w: int) -> Tensor:
    """(B, d, H, W) -> (B*P, N, d); the patch must divide H and W."""
    patches = to_patches(x, patch_h, patch_w)
    batch, dim, count, pixels = patches.shape
    return patches.transpose(1, 3).reshape(batch * pixels, count, dim)


def fold(tokens: Tensor, patch_h: int, patch_w: int, height: int, width: int) -> Tensor:
    """(B*P, N, d) -> (B, d, H, W): the inverse of `unfold`."""
    _, count, dim = tokens.shape
    patches = tokens.reshape(-1, patch_h * patch_w, count, dim).transpose(1, 3)
    return from_patches(patches, patch_h, patch_w, height, width)


def to_patches(x: Tensor, patch_h: int, patch_w: int) -> Tensor:
    """(B, d, H, W) -> (B, d, N, P); no tensor on the way has rank above 4, which Core ML would split up."""
    batch, dim, height, width = x.shape
    rows, columns = height // patch_h, width // patch_w
    x = x.reshape(batch * dim * rows, patch_h, columns, patch_w).transpose(1, 2)  # (B*d*rows, columns, ph, pw)
    return x.reshape(batch, dim, rows * columns, patch_h * patch_w)


def from_patches(x: Tensor, patch_h: int, patch_w: int, height: int, width: int) -> Tensor:
    """(B, d, N, P) -> (B, d, H, W): the inverse of `to_patches`."""
    dim = x.shape[1]
    x = x.reshape(-1, width // patch_w, patch_h, patch_w).transpose(1, 2)  # (B*d*rows, ph, columns, pw)
    return x.reshape(-1, dim, height, width)


def resize(x: Tensor, size: tuple[int, int], *, align_corners: bool) -> Tensor:
    """Bilinear resize where the size differs."""
    if (x.shape[-2], x.shape[-1]) == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)
