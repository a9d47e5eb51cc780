"""`MobileViT(config, num_classes)`: the network, readable from top to bottom."""

import torch
from torch import Tensor, nn

from mvit_search.architecture.blocks import ConvNorm, InvertedResidual, MobileViTBlock
from mvit_search.architecture.config import ConvStage, MobileViTConfig, MobileViTStage


class Head(nn.Module):
    """1x1 convolution, global average pooling, dropout, classifier: (B, C, H, W) -> (B, classes)."""

    def __init__(self, config: MobileViTConfig, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.conv = ConvNorm(config.stages[-1].out_channels, config.head_channels, act=config.activation)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(config.head_channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.dropout(self.conv(x).mean(dim=(2, 3))))  # type: ignore[no-any-return]


class MobileViT(nn.Module):
    """MobileViT of any shape the config can say.

    Input (B, 3, H, W) of any size from 16 px; output logits (B, num_classes). Weights start as CoreNet's:
    kaiming-normal convolutions, truncated-normal (0.02) linear layers, zero biases.
    """

    def __init__(self, config: MobileViTConfig, num_classes: int = 1000, *, head_dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.stem = ConvNorm(3, config.stem_channels, kernel_size=3, stride=2, act=config.activation)
        self.stages = nn.ModuleList()
        channels = config.stem_channels
        for stage in config.stages:
            build = _conv_stage if isinstance(stage, ConvStage) else _mobilevit_stage
            self.stages.append(build(channels, stage, config))  # type: ignore[arg-type]
            channels = stage.out_channels
        self.head = Head(config, num_classes, head_dropout)
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for stage in self.stages:
            x = stage(x)
        return self.head(x)  # type: ignore[no-any-return]


def _conv_stage(channels: int, stage: ConvStage, config: MobileViTConfig) -> nn.Module:
    blocks = nn.ModuleList()
    for block in range(stage.num_blocks):
        stride = stage.stride if block == 0 else 1
        blocks.append(_inverted_residual(channels, stage, stride, config))
        channels = stage.out_channels
    return nn.Sequential(*blocks)


def _mobilevit_stage(channels: int, stage: MobileViTStage, config: MobileViTConfig) -> nn.Module:
    downsample = _inverted_residual(channels, stage, stage.stride, config)
    return nn.Sequential(downsample, MobileViTBlock(stage, config.activation))


def _inverted_residual(
    channels: int, stage: ConvStage | MobileViTStage, stride: int, config: MobileViTConfig
) -> InvertedResidual:
    return InvertedResidual(
        channels, stage.out_channels, stride=stride, expand_ratio=stage.expand_ratio, act=config.activation
    )


@torch.no_grad()
def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
    elif isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
