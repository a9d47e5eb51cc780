"""`MobileViT(config, num_classes)`: the network, readable from top to bottom."""

import torch
from torch import Tensor, nn

from mvit_search.architecture.blocks import ConvNorm, InvertedResidual, MobileViTBlock, MobileViTv2Block
from mvit_search.architecture.config import Activation, ConvStage, MobileViTConfig, MobileViTStage
from mvit_search.architecture.ops import StridePlan, require_buildable, stride_plan


class Backbone(nn.Module):
    """Stem and stages: (B, 3, H, W) -> one feature map a stage, each (B, C, H / stride, W / stride)."""

    def __init__(self, config: MobileViTConfig, output_stride: int | None = None) -> None:
        super().__init__()
        self.stem = ConvNorm(3, config.stem_channels, kernel_size=3, stride=2, act=config.activation)
        self.stages = nn.ModuleList()
        channels = config.stem_channels
        for stage, plan in zip(config.stages, stride_plan(config, output_stride), strict=True):
            build = _conv_stage if isinstance(stage, ConvStage) else _mobilevit_stage
            self.stages.append(build(channels, stage, plan, config.activation))  # type: ignore[arg-type]
            channels = stage.out_channels

    def features(self, images: Tensor) -> list[Tensor]:
        """The output of every stage."""
        x = self.stem(images)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class Head(nn.Module):
    """1x1 convolution (none in MobileViTv2), average pooling, dropout, classifier: (B, C, H, W) -> (B, classes)."""

    def __init__(self, config: MobileViTConfig, num_classes: int, dropout: float) -> None:
        super().__init__()
        channels = config.stages[-1].out_channels
        wider = config.head_channels
        self.conv = nn.Identity() if wider is None else ConvNorm(channels, wider, act=config.activation)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(wider or channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.dropout(self.conv(x).mean(dim=(2, 3))))  # type: ignore[no-any-return]


class MobileViT(Backbone):
    """MobileViT of any shape the config can say.

    Input (B, 3, H, W) of any size from 16 px; output logits (B, num_classes). Weights start as CoreNet's:
    kaiming-normal convolutions, truncated-normal (0.02) linear layers, zero biases. `output_stride` 8, 16 or 32
    replaces the strides that would pass it by dilation, as CoreNet's does; the weights stay the same.

    Raises:
        InputError: an output stride that is none of these, or more parameters than any machine should hold.
    """

    def __init__(
        self, config: MobileViTConfig, num_classes: int = 1000, *, head_dropout: float = 0.0,
        output_stride: int | None = None,
    ) -> None:  # fmt: skip
        require_buildable(config, num_classes)
        super().__init__(config, output_stride)
        self.config = config
        self.head = Head(config, num_classes, head_dropout)
        self.apply(initialise)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for stage in self.stages:
            x = stage(x)
        return self.head(x)  # type: ignore[no-any-return]


def _conv_stage(channels: int, stage: ConvStage, plan: StridePlan, act: Activation) -> nn.Module:
    blocks = nn.ModuleList([_inverted_residual(channels, stage, plan.stride, plan.entry_dilation, act)])
    for _ in range(stage.num_blocks - 1):
        blocks.append(_inverted_residual(stage.out_channels, stage, 1, plan.dilation, act))
    return nn.Sequential(*blocks)


def _mobilevit_stage(channels: int, stage: MobileViTStage, plan: StridePlan, act: Activation) -> nn.Module:
    separable = stage.attention == "separable"
    block = MobileViTv2Block(stage, plan.dilation, act) if separable else MobileViTBlock(stage, act)
    return nn.Sequential(_inverted_residual(channels, stage, plan.stride, plan.entry_dilation, act), block)


def _inverted_residual(
    channels: int, stage: ConvStage | MobileViTStage, stride: int, dilation: int, act: Activation
) -> InvertedResidual:
    return InvertedResidual(
        channels, stage.out_channels, stride=stride, dilation=dilation, expand_ratio=stage.expand_ratio, act=act
    )


@torch.no_grad()
def initialise(module: nn.Module) -> None:
    """Start one module's weights as CoreNet does; `network.apply(initialise)` starts all of them."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
