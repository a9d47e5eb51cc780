"""Where a predicted latency's milliseconds go, by stage and class of operator: plain data that adds up to it."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from mvit_search.analysis.profile_facts import FIXED_COST, NetworkProfile
from mvit_search.architecture import MobileViTStage, Op
from mvit_search.latency import Latency, PredictedTarget
from mvit_search.latency.features import OPERATOR_CLASSES, Features
from mvit_search.latency.mil import Program

_FIXED_CLASS = next(name for name, features in OPERATOR_CLASSES.items() if features == ("networks",))
_CLASSES = tuple(name for name in OPERATOR_CLASSES if name != _FIXED_CLASS)
Grouping = Literal["stage", "stride"]
REST = "rest"
"""Classes that were put together because a table has no room for them."""

CLASS_WORDS = {
    "dispatch": "the same for every operator that is not fused",
    "convolutions": "arithmetic, or moving the maps, whichever takes longer",
    "linear layers and products": "arithmetic, or moving what goes in and out, whichever takes longer; of several"
    " sequences at once the arithmetic alone",
    "weights": "reading the weights of convolutions and linear layers",
    "SiLU": "a pass over the map; other activations are fused with what stands before them",
    "attention tokens": "moving the tokens of several sequences at once",
    "attention scores": "writing, normalising and reading them",
    "layout": "transposes, concatenations, splits, pads, resizes, gathers, operators of unknown type",
    "norms and arithmetic": "norms, means, pooling, products and differences of maps",
    "uneven resizes": "resizes by a fraction of a pixel",
    FIXED_COST: "what a run takes whatever its operators",
}
"""What each class holds."""

SHARE_WORDS = (
    "Shares add up to the prediction. They have no interval of their own: the predictor's error was found on whole"
    " networks, and a sum can be right where its parts are not."
)


class StageShare(NamedTuple):
    """What the operators of a stage add to the prediction, class by class (ms)."""

    name: str
    ms_by_class: tuple[float, ...]

    @property
    def ms(self) -> float:
        return math.fsum(self.ms_by_class)


class OperatorShare(NamedTuple):
    """What one operator adds to the prediction; `what` is its kind and the shape of its output."""

    name: str
    what: str
    ms: float


class Evidence(NamedTuple):
    """How wrong the target was on networks it had not seen, beside two straight lines in logarithms.

    Attributes:
        networks: how many, in words: `11 MobileViTs`.
        rows, fallbacks: published latencies of them, and how many seem to have run off the Neural Engine. All errors
            here count those too.
        mape_percent, median_percent, kendall_tau: the target's.
        macs_mape_percent, macs_and_weights_mape_percent: of a line through MACs, and through MACs and weights.
    """

    networks: str
    rows: int
    fallbacks: int
    mape_percent: float
    median_percent: float
    kendall_tau: float
    macs_mape_percent: float
    macs_and_weights_mape_percent: float

    @classmethod
    def of(cls, target: PredictedTarget, *, in_family: bool) -> "Evidence":
        """Of the MobileViTs among the target's rows, or of all of them."""
        group = target.file.group_of(in_family=in_family)
        own = "MobileViTs" if in_family and target.file.family else "networks"
        left_out = group.errors.network
        return cls(
            f"{group.networks} {own}", group.rows, group.fallbacks, left_out.mape_percent, left_out.median_percent,
            group.errors.kendall_tau, group.macs_only.network.mape_percent,
            group.macs_and_weights.network.mape_percent,
        )  # fmt: skip

    @property
    def words(self) -> str:
        """One sentence."""
        included = f", {self.fallbacks} of them fallbacks off the Neural Engine" if self.fallbacks else ""
        return (
            f"Left-out error on {self.networks} ({self.rows} rows{included}): MAPE {self.mape_percent:.1f} %, median"
            f" {self.median_percent:.1f} %, Kendall tau {self.kendall_tau:.2f}; a line through MACs alone: MAPE"
            f" {self.macs_mape_percent:.1f} %, through MACs and weights: {self.macs_and_weights_mape_percent:.1f} %."
        )


@dataclass(frozen=True)
class LatencyExplanation:
    """A prediction taken apart; `fixed_ms` and the shares of `stages` add up to `latency.ms`.

    Attributes:
        network: what to call it.
        grouped_by: what `stages` are: stages of a config, or strides of a package (image pixels per pixel of the map).
        stages: those whose operators cost something.
        classes: classes of operators that do; `StageShare.ms_by_class` has their order.
        operators: every operator that costs something, the most expensive first.
        merged: the classes that `REST` holds, if it is among `classes`.
    """

    network: str
    latency: Latency
    grouped_by: Grouping
    classes: tuple[str, ...]
    stages: tuple[StageShare, ...]
    fixed_ms: float
    operators: tuple[OperatorShare, ...]
    evidence: Evidence
    merged: tuple[str, ...] = ()

    @property
    def ms_by_class(self) -> dict[str, float]:
        """Sums over the stages, in the order of `classes`."""
        columns = zip(*(stage.ms_by_class for stage in self.stages), strict=True)
        return dict(zip(self.classes, map(math.fsum, columns), strict=True))

    @property
    def ranked_classes(self) -> tuple[tuple[str, float], ...]:
        """Classes and the fixed cost, the most expensive first."""
        return tuple(sorted({**self.ms_by_class, FIXED_COST: self.fixed_ms}.items(), key=lambda pair: -pair[1]))

    def with_at_most(self, count: int) -> "LatencyExplanation":
        """The same with the cheapest classes put together as `REST`, so that there are no more than `count` (>= 1)."""
        if len(self.classes) <= count:
            return self
        totals = self.ms_by_class
        kept = set(sorted(totals, key=lambda name: -totals[name])[: count - 1])
        own = [index for index, name in enumerate(self.classes) if name in kept]
        rest = [index for index, name in enumerate(self.classes) if name not in kept]
        stages = tuple(
            StageShare(name, (*(ms[index] for index in own), math.fsum(ms[index] for index in rest)))
            for name, ms in self.stages
        )
        classes = (*(self.classes[index] for index in own), REST)
        return replace(self, classes=classes, stages=stages, merged=tuple(self.classes[index] for index in rest))

    @property
    def stage_rows(self) -> tuple[tuple[str, ...], ...]:
        """A table in texts: a stage, its milliseconds by class, their sum and its share; then fixed cost and total."""
        stages = [(row.name, *map(self._ms, row.ms_by_class), *self.cells(row.ms)) for row in self.stages]
        fixed = (FIXED_COST, *[""] * len(self.classes), *self.cells(self.fixed_ms))
        whole = ("all", *map(self._ms, self.ms_by_class.values()), *self.cells(self.latency.ms))
        return (*stages, fixed, whole)

    def cells(self, ms: float) -> tuple[str, str]:
        """Milliseconds of a part as text, and their share of the prediction in percent."""
        return self._ms(ms), f"{100 * ms / self.latency.ms:.1f}"

    def _ms(self, ms: float) -> str:
        """Three decimals where the whole is short, none where it is long; nothing for nothing."""
        if not ms:
            return ""
        whole = self.latency.ms
        return f"{ms:,.3f}" if whole < 2 else f"{ms:,.2f}" if whole < 1000 else f"{ms:,.0f}"

    def document(self, largest: int = 5) -> dict[str, Any]:
        """For JSON, with the `largest` most expensive operators."""
        return {
            "grouped_by": self.grouped_by,
            "fixed_ms": self.fixed_ms,
            "stages": [
                {"name": row.name, "ms": row.ms, "ms_by_class": dict(zip(self.classes, row.ms_by_class, strict=True))}
                for row in self.stages
            ],
            "ms_by_class": self.ms_by_class,
            "largest_operators": [row._asdict() for row in self.operators[:largest]],
            "evidence": self.evidence._asdict(),
        }


def explain_network(profile: NetworkProfile, target: PredictedTarget) -> LatencyExplanation:
    """Take apart what `target` predicted for a config's operator table, stage by stage."""
    # As the predictor has it: without attention it is no MobileViT, and the other families' rows vouch for it.
    in_family = any(isinstance(stage, MobileViTStage) for stage in profile.config.stages)
    stages = _grouped(profile.ops, lambda op: op.stage)
    evidence = Evidence.of(target, in_family=in_family)
    return _explanation(profile.name, profile.latency, target, "stage", stages, evidence)


def explain_program(name: str, program: Program, latency: Latency, target: PredictedTarget) -> LatencyExplanation:
    """The same of any Core ML program, stride by stride: its operators belong to no stages that could be known."""
    by_stride = _grouped(program.ops, lambda op: f"stride {op.stride}")
    stages = dict(sorted(by_stride.items(), key=lambda item: item[1][0].stride))
    return _explanation(name, latency, target, "stride", stages, Evidence.of(target, in_family=False))


def _explanation(
    name: str, latency: Latency, target: PredictedTarget, grouped_by: Grouping, stages: dict[str, list[Op]],
    evidence: Evidence,
) -> LatencyExplanation:  # fmt: skip
    found = {stage: _by_class(target.ms_by_feature(ops)) for stage, ops in stages.items()}
    shares = {stage: ms for stage, ms in found.items() if any(ms)}
    kept = [index for index in range(len(_CLASSES)) if any(ms[index] for ms in shares.values())]
    operators = [
        OperatorShare(op.name.removeprefix(f"at_stride_{op.stride}."), _what(op), target.ms_of_operators([op]))
        for ops in stages.values()
        for op in ops
    ]
    return LatencyExplanation(
        network=name,
        latency=latency,
        grouped_by=grouped_by,
        classes=tuple(_CLASSES[index] for index in kept),
        stages=tuple(StageShare(stage, tuple(ms[index] for index in kept)) for stage, ms in shares.items()),
        fixed_ms=target.fixed_ms,
        operators=tuple(sorted((row for row in operators if row.ms), key=lambda row: -row.ms)),
        evidence=evidence,
    )


def _grouped(ops: Iterable[Op], key: Callable[[Op], str]) -> dict[str, list[Op]]:
    groups: dict[str, list[Op]] = {}
    for op in ops:
        groups.setdefault(key(op), []).append(op)
    return groups


def _by_class(ms: Features) -> tuple[float, ...]:
    return tuple(math.fsum(getattr(ms, feature) for feature in OPERATOR_CLASSES[name]) for name in _CLASSES)


def _what(op: Op) -> str:
    kernel = f" {op.kernel}x{op.kernel}" if op.kernel else ""
    depthwise = " depthwise" if 1 < op.groups == op.in_shape[0] else ""
    return f"{op.kind}{kernel}{depthwise}, {'x'.join(map(str, op.shape))}"
