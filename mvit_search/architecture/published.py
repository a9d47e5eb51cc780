"""What the papers print for the presets in each task, to be set beside what is computed here.

Sources: arXiv 2110.02178v2 (MobileViT), arXiv 2206.02680 (MobileViTv2), and the tables of the authors' code where the
papers give no number (ml-cvnets: `examples/README-mobilevit.md` of v0.1, `README-model-zoo.md` later).

Parameters agree to the last printed digit but for two: MobileViT-XXS + SSDLite is 1.7 M in the paper, 1.8 M in the
authors' own README, 1,755,050 in their code and here; MobileViTv2-2.0 is 18.5 M in its paper, 18.4 M in their model
zoo, 18,449,329 here.

MACs of softmax networks do not agree, because the authors' profiler counts both matrix products of attention as linear
in the number of patches. Counted that way, by `macs_of_authors`, XS comes to 0.765 G at 224 px (printed 0.7), 1.680 G
with SSDLite (printed 1.6) and 5.698 G with DeepLabv3 (printed 5.7): the last is the printed figure, the others are if
they were cut off instead of rounded. MobileViTv2-2.0 has 7.156 G here and 7.5 in print, for no reason known to us.
"""

from collections.abc import Iterable
from math import prod
from typing import NamedTuple

from mvit_search.architecture.config import MobileViTConfig
from mvit_search.architecture.presets import PRESETS
from mvit_search.architecture.rows import Op
from mvit_search.architecture.tasks import TASKS, task_named

_V1 = "arXiv 2110.02178v2"
_V2 = "arXiv 2206.02680, Table 2"
_V1_CODE = "ml-cvnets v0.1, examples/README-mobilevit.md"
_ZOO = "ml-cvnets, README-model-zoo.md"


class Published(NamedTuple):
    """Printed figures of one preset in one task.

    Attributes:
        params_m: parameters in millions, as printed.
        macs_g: multiply-adds in thousand millions ("FLOPs" there), as printed; None where there is no figure.
        score: accuracy in percent, as printed.
        metric: what the score is: `top-1`, `mAP` or `mIoU`.
        image_size: side of the image that `macs_g` belongs to.
        source: where it is printed.
    """

    params_m: float
    macs_g: float | None
    score: float
    metric: str
    image_size: int
    source: str


class Difference(NamedTuple):
    """How far own figures are from the printed ones.

    Attributes:
        params_m: own parameters minus printed ones, millions.
        params_agree: whether that is within half of the last printed digit.
        macs_g: own MACs minus printed ones, thousand millions; None where there is no figure.
        macs_agree: whether that is within half of the last printed digit; None where there is no figure.
    """

    params_m: float
    params_agree: bool
    macs_g: float | None
    macs_agree: bool | None


_LAST_DIGIT = 0.1
"""Every figure in the table below is printed with one decimal."""


def _rows(
    task: str, metric: str, source: str, *rows: tuple[str, float, float | None, float], image_size: int | None = None
) -> dict[tuple[str, str], Published]:
    side = image_size or TASKS[task].image_size
    return {(task, name): Published(params, macs, score, metric, side, source) for name, params, macs, score in rows}


PUBLISHED: dict[tuple[str, str], Published] = {
    **_rows("classification", "top-1", f"{_V1_CODE}; top-1: {_V1}; MACs: {_V2}", ("mobilevit-xxs", 1.3, 0.4, 69.0)),
    **_rows("classification", "top-1", f"{_V1}, Table 10a", ("mobilevit-xs", 2.3, 0.7, 74.8), image_size=224),
    **_rows("classification", "top-1", f"{_V1_CODE}; top-1: {_V1}, Table 6", ("mobilevit-s", 5.6, None, 78.4)),
    **_rows(
        "classification", "top-1", _V2,
        ("mobilevitv2-0.5", 1.4, 0.5, 70.2), ("mobilevitv2-1.0", 4.9, 1.8, 78.1), ("mobilevitv2-1.5", 10.6, 4.0, 80.4),
        ("mobilevitv2-2.0", 18.5, 7.5, 81.2),
    ),
    **_rows(
        "classification", "top-1", _ZOO,
        ("mobilevitv2-0.75", 2.9, None, 75.6), ("mobilevitv2-1.25", 7.5, None, 79.7),
        ("mobilevitv2-1.75", 14.3, None, 80.8),
    ),
    **_rows(
        "detection", "mAP", f"{_V1}, Table 1", ("mobilevit-xxs", 1.7, None, 19.9), ("mobilevit-s", 5.7, None, 27.7)
    ),
    **_rows("detection", "mAP", f"{_V1}, Tables 1 and 10b", ("mobilevit-xs", 2.7, 1.6, 24.8)),
    **_rows(
        "detection", "mAP", _ZOO,
        ("mobilevitv2-0.5", 2.0, None, 21.2), ("mobilevitv2-0.75", 3.6, None, 24.6),
        ("mobilevitv2-1.0", 5.6, None, 26.5), ("mobilevitv2-1.25", 8.2, None, 27.8),
        ("mobilevitv2-1.5", 11.3, None, 28.8), ("mobilevitv2-1.75", 14.9, None, 29.5),
        ("mobilevitv2-2.0", 19.1, None, 30.2),
    ),
    # MobileViTv2 was evaluated with a DeepLabv3 of 512 channels: another head, so no figure to compare with.
    **_rows(
        "segmentation", "mIoU", f"{_V1}, Table 2", ("mobilevit-xxs", 1.9, None, 73.6), ("mobilevit-s", 6.4, None, 79.1)
    ),
    **_rows("segmentation", "mIoU", f"{_V1}, Tables 2 and 10c", ("mobilevit-xs", 2.9, 5.7, 77.1)),
}  # fmt: skip
"""Printed figures by task and preset name."""


def published(config: MobileViTConfig, task: str, num_classes: int | None = None) -> Published | None:
    """What is printed for this network in this task, or None: it is no preset, or has other classes.

    At another image size than the printed MACs belong to, they are left out.

    Raises:
        UnknownNameError: no such task.
    """
    if num_classes not in (None, task_named(task).num_classes):
        return None
    for name, preset in PRESETS.items():
        if config == preset.model_copy(update={"image_size": config.image_size}):
            row = PUBLISHED.get((task, name))
            if row is not None and config.image_size != (row.image_size, row.image_size):
                return row._replace(macs_g=None)
            return row
    return None


def difference(row: Published, params: int, macs: int) -> Difference:
    """Own figures against the printed ones."""
    of_params = params / 1e6 - row.params_m
    of_macs = None if row.macs_g is None else macs / 1e9 - row.macs_g
    return Difference(of_params, _agree(of_params), of_macs, None if of_macs is None else _agree(of_macs))


def macs_of_authors(ops: Iterable[Op]) -> int:
    """MACs as the authors' profiler counts them (ml-cvnets v0.1, `profile_module`), which the paper prints.

    It takes patches * d^2 for each product of softmax attention where patches^2 * d are done, and adds one for every
    output of a linear layer, the bias. Within 0.1 % of that profiler, which also rounds odd map sizes down and adds
    biases of convolutions. Not what a device computes.
    """
    total = 0
    for op in ops:
        if op.kind != "matmul":
            total += op.macs + (op.elements if op.kind == "linear" else 0)
        elif op.name.endswith("weighted_sum"):
            _, heads, _, per_head = op.shape
            total += 2 * prod(op.shape) * heads * per_head
    return total


def _agree(gap: float) -> bool:
    return abs(gap) <= _LAST_DIGIT / 2
