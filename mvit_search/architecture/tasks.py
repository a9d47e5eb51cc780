"""The three tasks of the paper (sections 4.1 and 4.2), as parts and operator tables: one backbone, three heads.

Detection is SSDLite: boxes are read off the maps at strides 16 and 32 and off four smaller ones, with separable
convolutions. Segmentation is DeepLabv3 without a decoder: atrous spatial pyramid pooling on the last map, whose stride
is kept at 16 by dilation, and bilinear upsampling to the image. Channels, anchors and rates are those of the
configuration files that the authors released with the paper (ml-cvnets v0.1: `config/detection/ssd_mobilevit_*_320`,
`config/segmentation/deeplabv3_mobilevit_*`); both drop the last 1x1 convolution and the classifier, and neither has an
auxiliary head. What follows the network is not part of it: softmax, box decoding and suppression, arg-max.

Loads no torch; the modules are in `task_networks`.
"""

import math
from itertools import accumulate
from operator import mul
from typing import NamedTuple

from mvit_search.architecture.config import Activation, MobileViTConfig
from mvit_search.architecture.ops import Assembly, Layout, Placed, expand, parts
from mvit_search.architecture.rows import Op, Rows
from mvit_search.errors import InputError, UnknownNameError


class Task(NamedTuple):
    """A task and the settings the paper evaluates it with.

    Attributes:
        name: what `--task` takes.
        image_size: side of the square input in pixels.
        num_classes: with the background class where the task has one.
        output_stride: stride at which dilation takes over in the backbone; None leaves all strides.
        description: one line.
        source: section of the paper, and data set.
    """

    name: str
    image_size: int
    num_classes: int
    output_stride: int | None
    description: str
    source: str


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("classification", 256, 1000, None, "global pooling and a linear classifier",
             "arXiv 2110.02178, section 4.1: ImageNet-1k"),
        Task("detection", 320, 81, None, "SSDLite on six feature maps; 81 classes with background",
             "arXiv 2110.02178, section 4.2.1: MS-COCO"),
        Task("segmentation", 512, 21, 16, "DeepLabv3 at output stride 16; 21 classes with background",
             "arXiv 2110.02178, section 4.2.2: PASCAL VOC 2012"),
    )
}  # fmt: skip

HEAD_ACTIVATION: Activation = "relu"
"""Both heads have it, whatever the backbone has."""

COORDINATES = 4
"""Numbers that place a box."""


class BoxMap(NamedTuple):
    """A feature map that boxes are read off.

    Attributes:
        name: its stride, or `pool` for the whole image.
        channels: width that predictions are made from.
        anchors: boxes a pixel, two and two more for every aspect ratio.
    """

    name: str
    channels: int
    anchors: int


BOX_MAPS = (
    BoxMap("16", 512, 6), BoxMap("32", 256, 6), BoxMap("64", 256, 6), BoxMap("128", 128, 6), BoxMap("256", 128, 6),
    BoxMap("pool", 64, 4),
)  # fmt: skip
"""The first two are the backbone's; each of the others is made from the one before it."""

ASPP_CHANNELS = 256
ASPP_RATES = (6, 12, 18)


def task_named(name: str) -> Task:
    """The task of that name.

    Raises:
        UnknownNameError: with the nearest task name.
    """
    if name not in TASKS:
        raise UnknownNameError("task", name, TASKS)
    return TASKS[name]


def task_parts(config: MobileViTConfig, task: str, num_classes: int | None = None) -> tuple[Placed, ...]:
    """The network of a task at `config.image_size` as parts, for `profile.cost_of_parts`.

    Args:
        config: the backbone; its image size is not the task's unless the caller has set it.
        task: one of `TASKS`.
        num_classes: with the background class; None is the paper's data set.

    Raises:
        UnknownNameError: no such task.
        InputError: a backbone whose strides the head cannot work with, or a class count below 1.
    """
    classes = class_count(task, num_classes)
    if task == "detection":
        return _detection_parts(config, classes)
    if task == "segmentation":
        return _segmentation_parts(config, classes)
    return parts(config, classes)


def task_operators(config: MobileViTConfig, task: str, num_classes: int | None = None) -> tuple[Op, ...]:
    """The same as an operator table; raises what `task_parts` raises."""
    return expand(task_parts(config, task, num_classes))


def class_count(task: str, num_classes: int | None) -> int:
    """The number of classes to build for.

    Raises:
        UnknownNameError: no such task.
        InputError: a count below 1.
    """
    settings = task_named(task)
    if num_classes is None:
        return settings.num_classes
    if num_classes < 1:
        raise InputError("num_classes", num_classes, "must be at least 1", f"the paper has {settings.num_classes}")
    return num_classes


def box_stages(config: MobileViTConfig) -> tuple[int, int]:
    """Indices of the stages whose maps SSDLite reads: the last at stride 16, and the last of all, at stride 32.

    Raises:
        InputError: a network without such maps.
    """
    strides = _stage_strides(config)
    if strides[-1] != 32 or 16 not in strides:
        shown = ", ".join(map(str, strides))
        rule = f"needs a stage at stride 16 and the last one at stride 32; here the stages are at {shown}"
        raise InputError("task", "detection", rule, "give one more stage stride 2, or one fewer")
    return len(strides) - 1 - strides[::-1].index(16), len(strides) - 1


def require_segmentable(config: MobileViTConfig) -> None:
    """DeepLabv3's rates are meant for output stride 16, which dilation can hold but not make.

    Raises:
        InputError: a network that ends before stride 16.
    """
    if config.total_stride < 16:
        rule = f"needs a last stage at stride 16 or more; here it is at {config.total_stride}"
        raise InputError("task", "segmentation", rule, "give one more stage stride 2")


def _stage_strides(config: MobileViTConfig) -> list[int]:
    return list(accumulate((stage.stride for stage in config.stages), mul, initial=2))[1:]


def _detection_parts(config: MobileViTConfig, num_classes: int) -> tuple[Placed, ...]:
    fine, coarse = box_stages(config)
    network = Assembly(config)
    ends = network.backbone()
    maps = [ends[fine], ends[coarse]]
    for level in BOX_MAPS[2:]:
        shrink = pooled_map if level.name == "pool" else smaller_map
        maps.append(network.add(shrink, (level.channels,), (f"head.maps.{level.name}",), (maps[-1],)))
    found = []
    for level, source in zip(BOX_MAPS, maps, strict=True):
        layout: Layout = pooled_boxes if level.name == "pool" else boxes
        arguments = (level.channels, level.anchors, num_classes)
        found.append(network.add(layout, arguments, (f"head.boxes.{level.name}",), (source,)))
    network.add(detections, (num_classes,), ("head",), tuple(found))
    return tuple(network.placed)


def _segmentation_parts(config: MobileViTConfig, num_classes: int) -> tuple[Placed, ...]:
    require_segmentable(config)
    network = Assembly(config)
    network.backbone(TASKS["segmentation"].output_stride)
    network.add(pyramid, (ASPP_CHANNELS, *ASPP_RATES), ("head.aspp",))
    network.add(mask, (num_classes, *config.image_size), ("head",))
    return tuple(network.placed)


# The layouts: one function a part, in the order that a network needs them. -1 is the part's first input.


def smaller_map(rows: Rows, out_channels: int) -> int:
    """Separable 3x3 convolution with stride 2; no activation between its halves."""
    x = rows.conv("depthwise", -1, rows.shape(-1)[0], kernel=3, stride=2, groups=rows.shape(-1)[0])
    x = rows.conv("pointwise", x, out_channels)
    return rows.end_block(rows.activation("activation", x, HEAD_ACTIVATION))


def pooled_map(rows: Rows, out_channels: int) -> int:
    """Global average pooling and a 1x1 convolution with neither norm nor bias."""
    x = rows.add("pool", "mean", (-1,), (rows.shape(-1)[0], 1, 1))
    x = rows.conv("pointwise", x, out_channels, norm=False)
    return rows.activation("activation", x, HEAD_ACTIVATION)


def boxes(rows: Rows, channels: int, anchors: int, num_classes: int) -> int:
    """A map's boxes, (C, H, W) -> (boxes, 4 + classes): projection where needed, separable 3x3 convolution."""
    x = -1
    if rows.shape(x)[0] != channels:
        x = rows.conv("project", x, channels)
        x = rows.activation("project.activation", x, HEAD_ACTIVATION)
    x = rows.conv("depthwise", x, channels, kernel=3, groups=channels)
    return _as_boxes(rows, x, anchors, num_classes)


def pooled_boxes(rows: Rows, channels: int, anchors: int, num_classes: int) -> int:
    """A 1x1 convolution alone; the map already has these channels."""
    return _as_boxes(rows, -1, anchors, num_classes)


def detections(rows: Rows, num_classes: int) -> int:
    """Boxes of all maps, each (boxes, 4 + classes) -> scores (all boxes, classes) and places (all boxes, 4)."""
    places, scores = [], []
    for index, (count, _) in enumerate(rows.in_shapes):
        places.append(rows.add(f"places.{index}.slice", "split", (-1 - index,), (count, COORDINATES)))
        scores.append(rows.add(f"scores.{index}.slice", "split", (-1 - index,), (count, num_classes)))
    total = sum(count for count, _ in rows.in_shapes)
    place = rows.add("places.concat", "concat", tuple(places), (total, COORDINATES))
    score = rows.add("scores.concat", "concat", tuple(scores), (total, num_classes))
    rows.same("places.cast", "cast", place)
    return rows.same("scores.cast", "cast", score)


def pyramid(rows: Rows, channels: int, *rates: int) -> int:
    """Atrous spatial pyramid pooling: 1x1, three dilated 3x3 and the pooled image, concatenated and projected."""
    branches = [_relu_conv(rows, "pointwise", -1, channels)]
    branches += [_relu_conv(rows, f"dilated.{rate}", -1, channels, kernel=3, dilation=rate) for rate in rates]
    _, height, width = rows.shape(-1)
    x = rows.add("pool", "mean", (-1,), (rows.shape(-1)[0], 1, 1))
    x = _relu_conv(rows, "pool.pointwise", x, channels)
    if (height, width) != (1, 1):
        x = rows.add("pool.resize", "resize", (x,), (channels, height, width))
    x = rows.add("concat", "concat", (*branches, x), ((len(branches) + 1) * channels, height, width))
    return rows.end_block(_relu_conv(rows, "project", x, channels))


def mask(rows: Rows, num_classes: int, height: int, width: int) -> int:
    """Classifier for each pixel, and its scores upsampled to the image: (C, H', W') -> (classes, H, W)."""
    x = rows.conv("classifier", -1, num_classes, norm=False, bias=True)
    if rows.shape(x)[1:] != (height, width):
        x = rows.add("resize", "resize", (x,), (num_classes, height, width))
    return rows.same("cast", "cast", x)


def _as_boxes(rows: Rows, x: int, anchors: int, num_classes: int) -> int:
    outputs = COORDINATES + num_classes
    x = rows.conv("predict", x, anchors * outputs, norm=False, bias=True)
    channels, height, width = rows.shape(x)
    x = rows.add("channels_last", "transpose", (x,), (height, width, channels))
    return rows.add("split_anchors", "reshape", (x,), (math.prod((height, width, anchors)), outputs))


def _relu_conv(rows: Rows, name: str, x: int, channels: int, *, kernel: int = 1, dilation: int = 1) -> int:
    x = rows.conv(name, x, channels, kernel=kernel, dilation=dilation)
    return rows.activation(f"{name}.activation", x, HEAD_ACTIVATION)
