"""The networks of the three tasks: `build_task(config, "detection")`. Their operator tables are in `tasks`."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mvit_search.architecture.blocks import ConvNorm, activation
from mvit_search.architecture.config import MobileViTConfig
from mvit_search.architecture.network import Backbone, MobileViT, initialise
from mvit_search.architecture.ops import require_holdable
from mvit_search.architecture.tasks import (
    ASPP_CHANNELS,
    ASPP_RATES,
    BOX_MAPS,
    COORDINATES,
    HEAD_ACTIVATION,
    TASKS,
    BoxMap,
    box_stages,
    class_count,
    task_parts,
)  # fmt: skip


def build_task(config: MobileViTConfig, task: str, num_classes: int | None = None) -> nn.Module:
    """The network of a task: a `MobileViT`, `Detector` or `Segmenter`.

    Raises:
        UnknownNameError: no such task.
        InputError: a backbone the head cannot work with, a class count below 1, or too many parameters.
    """
    classes = class_count(task, num_classes)
    if task == "detection":
        return Detector(config, classes)
    if task == "segmentation":
        return Segmenter(config, classes)
    return MobileViT(config, classes)


class Detector(Backbone):
    """SSDLite: images (B, 3, H, W) -> scores (B, boxes, classes) and places (B, boxes, 4).

    Scores are logits and places are offsets from the anchors, in the order of `BOX_MAPS`, row by row, anchor by anchor.

    Raises:
        InputError: a backbone without maps at strides 16 and 32, or too many parameters.
    """

    def __init__(self, config: MobileViTConfig, num_classes: int = TASKS["detection"].num_classes) -> None:
        require_holdable(task_parts(config, "detection", num_classes))
        super().__init__(config)
        self.config = config
        self.box_stages = box_stages(config)
        fine, coarse = (config.stages[index].out_channels for index in self.box_stages)
        self.head = DetectionHead(fine, coarse, num_classes)
        self.apply(initialise)
        self.head.apply(_initialise_detection)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.features(images)
        fine, coarse = self.box_stages
        return self.head(maps[fine], maps[coarse])  # type: ignore[no-any-return]


class Segmenter(Backbone):
    """DeepLabv3 at output stride 16: images (B, 3, H, W) -> logits (B, classes, H, W).

    The logits are resized to the image, which for sides that 16 divides is the authors' upsampling by 16. Training
    takes two images a batch or more: the pooled branch normalises over one pixel an image.

    Raises:
        InputError: a backbone that ends before stride 16, or too many parameters.
    """

    def __init__(self, config: MobileViTConfig, num_classes: int = TASKS["segmentation"].num_classes) -> None:
        require_holdable(task_parts(config, "segmentation", num_classes))
        super().__init__(config, TASKS["segmentation"].output_stride)
        self.config = config
        self.head = SegmentationHead(config.stages[-1].out_channels, num_classes)
        self.apply(initialise)

    def forward(self, images: Tensor) -> Tensor:
        x = self.head(self.features(images)[-1])
        size = (images.shape[-2], images.shape[-1])
        if (x.shape[-2], x.shape[-1]) == size:
            return x  # type: ignore[no-any-return]
        return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


class DetectionHead(nn.Module):
    """Four smaller maps, and predictors on all six."""

    def __init__(self, fine: int, coarse: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        widths = [fine, coarse]
        self.maps = nn.ModuleList()
        for level in BOX_MAPS[2:]:
            make = PooledMap if level.name == "pool" else _smaller_map
            self.maps.append(make(widths[-1], level.channels))
            widths.append(level.channels)
        self.boxes = nn.ModuleList(
            BoxPredictor(width, level, num_classes) for width, level in zip(widths, BOX_MAPS, strict=True)
        )

    def forward(self, fine: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
        levels = [fine, coarse]
        for smaller in self.maps:
            levels.append(smaller(levels[-1]))
        found = [predict(x) for predict, x in zip(self.boxes, levels, strict=True)]  # each (B, boxes, 4 + classes)
        split = [x.split((COORDINATES, self.num_classes), dim=-1) for x in found]
        places, scores = (torch.cat(kind, dim=1) for kind in zip(*split, strict=True))
        return scores, places


class PooledMap(nn.Module):
    """The whole image as one pixel: (B, C, H, W) -> (B, channels, 1, 1)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False)
        self.activation = activation(HEAD_ACTIVATION)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.conv(x.mean(dim=(2, 3), keepdim=True)))  # type: ignore[no-any-return]


class BoxPredictor(nn.Module):
    """Every anchor's place and class scores: (B, C, H, W) -> (B, H * W * anchors, 4 + classes)."""

    def __init__(self, in_channels: int, level: BoxMap, num_classes: int) -> None:
        super().__init__()
        channels, self.outputs = level.channels, COORDINATES + num_classes
        projected = in_channels != channels
        self.project = ConvNorm(in_channels, channels, act=HEAD_ACTIVATION) if projected else nn.Identity()
        # A single pixel has no neighbours to look at.
        self.depthwise = (
            nn.Identity()
            if level.name == "pool"
            else ConvNorm(channels, channels, kernel_size=3, groups=channels, act=None)
        )
        self.predict = nn.Conv2d(channels, level.anchors * self.outputs, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.predict(self.depthwise(self.project(x)))
        return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, self.outputs)


class SegmentationHead(nn.Module):
    """Atrous spatial pyramid pooling and a classifier for each pixel: (B, C, H, W) -> (B, classes, H, W)."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        width, act = ASPP_CHANNELS, HEAD_ACTIVATION
        self.branches = nn.ModuleList([ConvNorm(in_channels, width, act=act)])
        for rate in ASPP_RATES:
            self.branches.append(ConvNorm(in_channels, width, kernel_size=3, dilation=rate, act=act))
        self.pooled = ConvNorm(in_channels, width, act=act)
        self.project = ConvNorm((len(self.branches) + 1) * width, width, act=act)
        self.classifier = nn.Conv2d(width, num_classes, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        branches = [branch(x) for branch in self.branches]
        # One pixel resized bilinearly is the same number everywhere.
        pooled = self.pooled(x.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, x.shape[-2], x.shape[-1])
        return self.classifier(self.project(torch.cat((*branches, pooled), dim=1)))  # type: ignore[no-any-return]


def _smaller_map(in_channels: int, out_channels: int) -> nn.Module:
    """Separable 3x3 convolution with stride 2: (B, C, H, W) -> (B, channels, H / 2, W / 2)."""
    return nn.Sequential(
        ConvNorm(in_channels, in_channels, kernel_size=3, stride=2, groups=in_channels, act=None),
        ConvNorm(in_channels, out_channels, act=HEAD_ACTIVATION),
    )


@torch.no_grad()
def _initialise_detection(module: nn.Module) -> None:
    """CoreNet starts the convolutions of SSD's heads with xavier-uniform instead."""
    if isinstance(module, nn.Conv2d):
        nn.init.xavier_uniform_(module.weight)
