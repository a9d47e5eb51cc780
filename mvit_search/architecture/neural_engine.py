"""The network rewritten for Apple's Neural Engine from the same weights: `for_neural_engine(network)`.

After "Deploying Transformers on the Apple Neural Engine" (Apple, 2022): tokens are channels first with the patches on
the last axis, linear layers are 1x1 convolutions, norms run over the channel axis, attention goes head by head, and
little is moved. The pixels of a patch, which attention keeps apart, are the third axis: the batch is 1 everywhere.
Convolutional parts and the head are the network's own modules. What is folded into neighbouring weights (a norm's
scale and shift, the attention's scale) changes the rounding and nothing else.

One image at a time. P = pixels of a patch, N = patches, d = dim.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mvit_search.architecture.blocks import (
    Attention,
    ConvNorm,
    MobileViTBlock,
    MobileViTv2Block,
    SeparableAttention,
    SeparableLayer,
    TransformerLayer,
    from_patches,
    resize,
    to_patches,
)
from mvit_search.architecture.network import MobileViT
from mvit_search.architecture.rows import patched_size

_MOST_KERNEL_PIXELS = 16
"""Largest patch that a convolution unfolds; its kernels have P * P numbers a channel."""


class NeuralEngineMobileViT(nn.Module):
    """(1, 3, H, W) -> logits (1, num_classes), equal to the network's up to rounding."""

    def __init__(self, network: MobileViT) -> None:
        super().__init__()
        self.stem = network.stem
        self.stages = nn.ModuleList(nn.Sequential(*map(_rewritten, cast(nn.Sequential, s))) for s in network.stages)
        self.head = network.head

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for stage in self.stages:
            x = stage(x)
        return self.head(x)  # type: ignore[no-any-return]


def for_neural_engine(network: MobileViT) -> NeuralEngineMobileViT:
    """The rewritten network. Parts that stay are shared, not copied, and keep their mode: evaluation, as a rule."""
    return NeuralEngineMobileViT(network)


def _rewritten(part: nn.Module) -> nn.Module:
    if isinstance(part, MobileViTBlock):
        return EngineBlock(part)
    if isinstance(part, MobileViTv2Block):
        return EngineV2Block(part)
    return part


class EngineBlock(nn.Module):
    """`MobileViTBlock` on tokens (1, d, P, N)."""

    def __init__(self, block: MobileViTBlock) -> None:
        super().__init__()
        self.patch = block.patch
        self.local, self.to_dim = block.local, block.to_dim
        self.patches = Patches(block.to_dim.out_channels, *block.patch)
        self.transformer = nn.Sequential(*(EngineLayer(cast(TransformerLayer, layer)) for layer in block.transformer))
        self.norm = ChannelNorm(block.norm.eps)
        self.from_dim = _projection(block.norm, block.from_dim)
        self.fuse = block.fuse

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.to_dim(self.local(x))  # (1, d, H, W)
        size = (y.shape[-2], y.shape[-1])
        patched = (patched_size(size[0], self.patch[0]), patched_size(size[1], self.patch[1]))
        tokens = self.transformer(self.patches.unfold(resize(y, patched, align_corners=False)))  # (1, d, P, N)
        y = self.patches.fold(self.norm(tokens), *patched)  # (1, d, H', W')
        y = self.from_dim(resize(y, size, align_corners=False))
        return y if self.fuse is None else cast(Tensor, self.fuse(torch.cat((x, y), dim=1)))


class EngineV2Block(nn.Module):
    """`MobileViTv2Block` on tokens (1, d, P, N)."""

    def __init__(self, block: MobileViTv2Block) -> None:
        super().__init__()
        self.patch = block.patch
        self.local, self.to_dim = block.local, block.to_dim
        self.patches = Patches(block.to_dim.out_channels, *block.patch)
        self.transformer = nn.Sequential(
            *(EngineSeparableLayer(cast(SeparableLayer, layer)) for layer in block.transformer)
        )
        self.norm = TokenNorm(block.norm.eps)
        self.from_dim = _projection(block.norm, block.from_dim)
        self.fuse = block.fuse

    def forward(self, x: Tensor) -> Tensor:
        patched = (patched_size(x.shape[-2], self.patch[0]), patched_size(x.shape[-1], self.patch[1]))
        x = resize(x, patched, align_corners=True)
        tokens = self.transformer(self.patches.unfold(self.to_dim(self.local(x))))  # (1, d, P, N)
        y: Tensor = self.from_dim(self.patches.fold(self.norm(tokens), *patched))
        return y if self.fuse is None else cast(Tensor, self.fuse(torch.cat((x, y), dim=1)))


class EngineLayer(nn.Module):
    """`TransformerLayer` on tokens (1, d, P, N)."""

    def __init__(self, layer: TransformerLayer) -> None:
        super().__init__()
        self.norm1, self.norm2 = ChannelNorm(layer.norm1.eps), ChannelNorm(layer.norm2.eps)
        self.attention = EngineAttention(layer.norm1, layer.attention)
        self.ffn = _feed_forward(layer.norm2, layer.ffn)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.ffn(self.norm2(x))  # type: ignore[no-any-return]


class EngineAttention(nn.Module):
    """`Attention` head by head on tokens (1, d, P, N); c = d / heads.

    Keys are turned once for all heads; with a projection of their own they need no split before it.
    """

    def __init__(self, norm: nn.LayerNorm, attention: Attention) -> None:
        super().__init__()
        dim = attention.out.in_features
        self.per_head = dim // attention.num_heads
        weight, bias = _matrix(attention.qkv, norm)
        scale = self.per_head**-0.5
        query, key, value = torch.split(weight, dim)
        query_bias, key_bias, value_bias = torch.split(bias, dim)
        self.queries_values = _conv(torch.cat((scale * query, value)), torch.cat((scale * query_bias, value_bias)))
        self.keys = _conv(key, key_bias)
        self.out = _conv(*_matrix(attention.out))

    def forward(self, x: Tensor) -> Tensor:
        parts = self.queries_values(x).split(self.per_head, dim=1)  # (1, c, P, N) each, queries before values
        keys = self.keys(x).transpose(1, 3).split(self.per_head, dim=3)  # (1, N, P, c) each
        heads = len(keys)
        mixed = [_attend(*qkv) for qkv in zip(parts[:heads], keys, parts[heads:], strict=True)]
        return self.out(torch.cat(mixed, dim=1) if heads > 1 else mixed[0])  # type: ignore[no-any-return]


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(1, c, P, N), (1, N, P, c), (1, c, P, N) -> (1, c, P, N), by the products that the engine has an operator for."""
    scores = torch.einsum("bchq,bkhc->bkhq", query, key)  # (1, N of keys, P, N of queries)
    return torch.einsum("bkhq,bchk->bchq", scores.softmax(dim=1), value)


class EngineSeparableLayer(nn.Module):
    """`SeparableLayer` on tokens (1, d, P, N)."""

    def __init__(self, layer: SeparableLayer) -> None:
        super().__init__()
        self.norm1, self.norm2 = TokenNorm(layer.norm1.eps), TokenNorm(layer.norm2.eps)
        self.attention = EngineSeparableAttention(layer.norm1, layer.attention)
        self.ffn = _feed_forward(layer.norm2, layer.ffn)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.ffn(self.norm2(x))  # type: ignore[no-any-return]


class EngineSeparableAttention(nn.Module):
    """`SeparableAttention` with three projections: a split after the first channel would move all others."""

    def __init__(self, norm: nn.GroupNorm, attention: SeparableAttention) -> None:
        super().__init__()
        weight, bias = _matrix(attention.qkv, norm)
        rows = [1, attention.dim, attention.dim]
        parts = zip(torch.split(weight, rows), torch.split(bias, rows), strict=True)
        self.query, self.key, self.value = (_conv(*part) for part in parts)
        self.out = _conv(*_matrix(attention.out))

    def forward(self, x: Tensor) -> Tensor:
        context = (self.key(x) * self.query(x).softmax(dim=-1)).sum(dim=-1, keepdim=True)  # (1, d, P, 1)
        return self.out(F.relu(self.value(x)) * context)  # type: ignore[no-any-return]


class ChannelNorm(nn.Module):
    """Layer norm over the channel axis, its scale and shift folded into the convolution behind it.

    Written so that coremltools makes one `layer_norm` of it, over axis 1.
    """

    axes: tuple[int, ...] = (1,)

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(dim=self.axes, keepdim=True)
        variance = (centred * centred).mean(dim=self.axes, keepdim=True)
        return centred * torch.rsqrt(variance + self.eps)


class TokenNorm(ChannelNorm):
    """The same over channels, pixels and patches together: `GroupNorm` with one group, without its two reshapes."""

    axes = (1, 2, 3)


class Patches(nn.Module):
    """Map (1, d, H, W) <-> tokens (1, d, P, N); the patch divides H and W.

    A patch becomes channels by a depthwise convolution of its own size and stride whose kernels each pick one pixel,
    and a map again by the transposed one. That leaves one reshape, and no tensor whose last axis is a patch's two
    pixels: the engine pads last axes to 64 bytes. Large patches are moved by reshape and transpose.
    """

    kernels: Tensor

    def __init__(self, dim: int, patch_h: int, patch_w: int) -> None:
        super().__init__()
        self.dim, self.patch, self.pixels = dim, (patch_h, patch_w), patch_h * patch_w
        self.by_convolution = 1 < self.pixels <= _MOST_KERNEL_PIXELS
        pick = torch.eye(self.pixels if self.by_convolution else 0).reshape(-1, 1, patch_h, patch_w)
        self.register_buffer("kernels", pick.repeat(dim, 1, 1, 1))  # (d * P, 1, patch_h, patch_w)

    def unfold(self, x: Tensor) -> Tensor:
        """(1, d, H, W) -> (1, d, P, N)."""
        if self.by_convolution:
            x = F.conv2d(x, self.kernels, stride=self.patch, groups=self.dim)  # (1, d * P, H / ph, W / pw)
        elif self.pixels > 1:
            return to_patches(x, *self.patch).transpose(2, 3)
        return x.reshape(1, self.dim, self.pixels, -1)

    def fold(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """(1, d, P, N) -> (1, d, H, W): the inverse of `unfold`."""
        if not self.by_convolution and self.pixels > 1:
            return from_patches(tokens.transpose(2, 3), *self.patch, height, width)
        rows, columns = height // self.patch[0], width // self.patch[1]
        x = tokens.reshape(1, self.dim * self.pixels, rows, columns)
        return F.conv_transpose2d(x, self.kernels, stride=self.patch, groups=self.dim) if self.by_convolution else x


def _feed_forward(norm: nn.LayerNorm | nn.GroupNorm, ffn: nn.Sequential) -> nn.Sequential:
    """The two layers as 1x1 convolutions; `norm`'s scale and shift go into the first."""
    first, activation, second = ffn
    return nn.Sequential(_conv(*_matrix(first, norm)), activation, _conv(*_matrix(second)))


def _projection(norm: nn.LayerNorm | nn.GroupNorm, projection: ConvNorm) -> nn.Sequential:
    """A block's last 1x1 convolution with `norm`'s scale and shift inside; folding and resizing keep a constant."""
    return nn.Sequential(_conv(*_matrix(projection.conv, norm)), projection.norm, projection.activation)


def _matrix(linear: nn.Module, norm: nn.LayerNorm | nn.GroupNorm | None = None) -> tuple[Tensor, Tensor]:
    """Weight (out, in) and bias (out,) of a linear layer or 1x1 convolution, behind `norm`'s scale and shift."""
    assert isinstance(linear, (nn.Linear, nn.Conv2d))
    weight = linear.weight.detach().flatten(1)
    bias = weight.new_zeros(len(weight)) if linear.bias is None else linear.bias.detach()
    if norm is None:
        return weight, bias
    return weight * norm.weight.detach(), bias + weight @ norm.bias.detach()


def _conv(weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """1x1 convolution of a matrix (out, in) and a bias (out,)."""
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], kernel_size=1)
    conv.weight.data, conv.bias.data = weight[:, :, None, None], bias  # type: ignore[union-attr]
    return conv
