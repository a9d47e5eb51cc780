"""What one network costs and where, gathered for the `profile` command and its page; loads no torch."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

from mvit_search._quantities import format_bytes
from mvit_search.architecture import PRESETS, ConvStage, MobileViTConfig, MobileViTStage, Op
from mvit_search.architecture.ops import expand, parts, stride_plan
from mvit_search.architecture.tasks import class_count, task_named, task_parts
from mvit_search.errors import InputError
from mvit_search.latency import Latency, PredictedTarget, Target
from mvit_search.profile import Cost, LayerRow, layer_rows
from mvit_search.profile.cost import MAX_RUN_BYTES, cost_of_parts, run_bytes
from mvit_search.profile.layers import alive_bytes, op_rows

CLASSIFICATION = "classification"
FIXED_COST = "fixed cost"
"""What a predicted latency has that belongs to no block, as tables and figures call it."""


class PrintedLatency(NamedTuple):
    """A latency that a paper prints for a network on the target's device.

    Attributes:
        ms: milliseconds, as printed.
        source: where.
        is_fitted: whether the target's coefficients were fitted to it.
        is_fallback: whether the fit takes it for a network that ran off the Neural Engine.
    """

    ms: float
    source: str
    is_fitted: bool
    is_fallback: bool


@dataclass(frozen=True)
class NetworkProfile:
    """A network at its image size, with its costs.

    Attributes:
        name: what to call it.
        ops: its operator table.
        layer_ms: predicted milliseconds of each block, which with `fixed_ms` add up to `latency.ms`; None where it
            was measured.
        fixed_ms: what a prediction takes a run to cost beside its operators, so that no block has it; None likewise.
    """

    name: str
    config: MobileViTConfig
    task: str
    num_classes: int
    output_stride: int | None
    ops: tuple[Op, ...]
    costs: Cost
    latency: Latency
    layers: tuple[LayerRow, ...]
    layer_ms: tuple[float, ...] | None
    fixed_ms: float | None
    printed_latencies: tuple[PrintedLatency, ...] = ()

    @cached_property
    def alive_bytes(self) -> tuple[int, ...]:
        """Activation bytes alive while each operator runs."""
        return alive_bytes(self.ops, 3 * math.prod(self.config.image_size))

    @property
    def is_as_published(self) -> bool:
        """Whether the head and the strides are those that papers print figures of."""
        return self.output_stride == task_named(self.task).output_stride

    @property
    def reached_stride(self) -> int:
        """Image pixels per pixel of the backbone's last map."""
        return 2 * math.prod(plan.stride for plan in stride_plan(self.config, self.output_stride))

    @property
    def stride_words(self) -> str:
        """What was asked of the output stride, and whether it changed anything; to follow other words."""
        if self.output_stride is None:
            return ""
        if any(plan.dilation > 1 for plan in stride_plan(self.config, self.output_stride)):
            return f", output stride {self.output_stride}"
        return f"; output stride {self.output_stride} dilates nothing, the network ends at stride {self.reached_stride}"

    @property
    def size_words(self) -> str:
        height, width = self.config.image_size
        return f"{height}x{width}"

    def document(self, *, with_ops: bool = False) -> dict[str, Any]:
        """The JSON object that `profile --json` prints (docs/architecture.md, the command line)."""
        costs = self.costs
        layers = [row._asdict() for row in self.layers]
        for index, ms in enumerate(self.layer_ms or ()):
            layers[index]["predicted_ms"] = ms
        document: dict[str, Any] = {
            "name": self.name,
            "digest": self.config.digest(),
            "task": self.task,
            "num_classes": self.num_classes,
            "output_stride": self.output_stride,
            "reached_stride": self.reached_stride,
            "params": costs.params,
            "macs": costs.macs,
            "weight_bytes": costs.weight_bytes,
            "peak_activation_bytes": costs.peak_activation_bytes,
            "memory_by_stride_kib": {str(stride): kib for stride, kib in costs.memory_by_stride_kib.items()},
            "latency": self.latency._asdict(),
            **({} if self.fixed_ms is None else {"predicted_fixed_ms": self.fixed_ms}),
            "layers": layers,
            "config": self.config.model_dump(mode="json"),
        }
        if with_ops:
            document["ops"] = [row._asdict() for row in op_rows(self.ops)]
        return document


def network_profile(
    name: str, config: MobileViTConfig, target: Target, *, task: str = CLASSIFICATION, num_classes: int | None = None,
    output_stride: int | None = None,
) -> NetworkProfile:  # fmt: skip
    """Cost the network of a task at `config.image_size`, and predict or measure its latency.

    `num_classes` and `output_stride` are the task's unless given; only a classifier takes another output stride.

    Raises:
        UnknownNameError: no such task.
        InputError: a backbone that the task's head cannot work with, an output stride that does not go with the task,
            or a network that a measuring target cannot run.
        WorkError: the measurement failed.
    """
    classes = class_count(task, num_classes)
    stride = _output_stride(task, output_stride)
    if task == CLASSIFICATION:
        placed = parts(config, classes, output_stride=stride)
    else:
        placed = task_parts(config, task, classes)
    costs = cost_of_parts(placed)
    ops = expand(placed)
    layers = layer_rows(ops)
    layer_ms = fixed_ms = None
    printed: tuple[PrintedLatency, ...] = ()
    if isinstance(target, PredictedTarget):
        printed = _printed_latencies(target, config, task) if stride == task_named(task).output_stride else ()
        latency = target.latency_of_parts(placed, config.image_size)
        layer_ms = tuple(target.ms_of_operators(row.own_operators(ops)) for row in layers)
        fixed_ms = target.fixed_ms
    else:
        _require_measurable(target, costs, task, stride)
        latency = target.latency(config, classes)
    return NetworkProfile(
        name, config, task, classes, stride, ops, costs, latency, layers, layer_ms, fixed_ms, printed
    )  # fmt: skip


def interval_name(latency: Latency) -> str:
    """What the ends of a latency's interval are; every target's file holds the same level."""
    return "80 % interval" if latency.source.startswith("predicted") else "10th to 90th percentile"


def format_ms(ms: float) -> str:
    """7.074 -> `7.07 ms`; above ten seconds `1,759.1 s`."""
    return f"{ms / 1e3:,.1f} s" if ms >= _MS_IN_SECONDS else f"{ms:,.2f} ms"


def format_interval(latency: Latency) -> str:
    """`5.78 to 8.64 ms`, both ends in the upper one's unit."""
    if latency.high_ms >= _MS_IN_SECONDS:
        return f"{latency.low_ms / 1e3:,.1f} to {format_ms(latency.high_ms)}"
    return f"{latency.low_ms:,.2f} to {format_ms(latency.high_ms)}"


def format_kib(kib: float) -> str:
    """Four digits, and from a thousand on whole KiB: `1,048,576`."""
    return f"{kib:,.0f}" if kib >= 1000 else f"{kib:.4g}"


_MS_IN_SECONDS = 10_000
_HEAD_NAMES = {"detection": "SSDLite", "segmentation": "DeepLabv3"}


def _printed_latencies(target: PredictedTarget, config: MobileViTConfig, task: str) -> tuple[PrintedLatency, ...]:
    """Rows of the target's file that are of this very network: fitted ones, or one with the task's head."""
    rows = target.file.rows if task == CLASSIFICATION else ()
    found = [PrintedLatency(row.latency_ms, row.source, True, row.fallback) for row in rows if row.config == config]
    model = _model_with_head(config, task)
    left_out = [row for row in target.file.excluded if row.model == model and row.latency_ms is not None]
    return (*found, *(PrintedLatency(row.latency_ms or 0.0, row.source, False, False) for row in left_out))


def _model_with_head(config: MobileViTConfig, task: str) -> str | None:
    """`MobileViT + SSDLite XS (2,2,2)`, as the target's file names it; None for what has no such name."""
    settings = task_named(task)
    if task == CLASSIFICATION or config.image_size != (settings.image_size, settings.image_size):
        return None
    stages = [stage for stage in config.stages if isinstance(stage, MobileViTStage)]
    usual = tuple(
        stage.model_copy(update={"patch_h": 2, "patch_w": 2}) if isinstance(stage, MobileViTStage) else stage
        for stage in config.stages
    )
    for name, preset in PRESETS.items():
        if preset == config.model_copy(update={"stages": usual, "image_size": preset.image_size}):
            patches = ",".join(str(stage.patch_h) for stage in stages)
            return f"MobileViT + {_HEAD_NAMES[task]} {name.rpartition('-')[2].upper()} ({patches})"
    return None


def _output_stride(task: str, asked: int | None) -> int | None:
    own = task_named(task).output_stride
    if asked is None or asked == own:
        return own
    if task != CLASSIFICATION:
        kept = f"is made for output stride {own}" if own else "reads the maps at strides 16 and 32"
        raise InputError("--output-stride", asked, f"{task} {kept}", "leave the option out")
    return asked


def _require_measurable(target: Target, costs: Cost, task: str, output_stride: int | None) -> None:
    """A measuring target builds and runs the network: refuse before any memory is taken."""
    if task != CLASSIFICATION or output_stride is not None:
        rule = "measures classification networks at their own stride alone"
        raise InputError("--target", target.name, rule, "choose a target that predicts, such as iphone12")
    needed = run_bytes(costs)
    if needed > MAX_RUN_BYTES:
        rule = f"runs the network, which needs {format_bytes(needed)}; the limit is {format_bytes(MAX_RUN_BYTES)}"
        raise InputError("--target", target.name, rule, "reduce the image size, or choose a target that predicts")


Kind = Literal["ends", "conv", "softmax", "separable"]
KIND_WORDS: dict[Kind, str] = {
    "ends": "Stem and head",
    "conv": "Convolutions (inverted residuals)",
    "softmax": "Softmax attention (MobileViT)",
    "separable": "Separable attention (MobileViTv2)",
}


def stage_kind(stage: ConvStage | MobileViTStage) -> Kind:
    """What a stage is made of in the main."""
    return "conv" if isinstance(stage, ConvStage) else stage.attention


def block_kind(name: str, config: MobileViTConfig) -> Kind:
    """What a block of `LayerRow.name` is made of in the main."""
    place = name.split(".")
    if place[0] != "stages":
        return "ends"
    return stage_kind(config.stages[int(place[1])]) if place[2] == "block" else "conv"


def detail_words(profile: NetworkProfile) -> str:
    """How to read a block's shape."""
    kinds = {block_kind(row.name, profile.config) for row in profile.layers}
    words = ["Outputs are channels x height x width"]
    if "softmax" in kinds:
        words.append("after a softmax transformer layer pixels of a patch x patches x d")
    if "separable" in kinds:
        words.append("after a separable one d x pixels of a patch x patches")
    return "; ".join(words) + "."
