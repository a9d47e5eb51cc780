"""Where Core ML means to run each operator: shares of operators and of estimated work by compute unit."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from mvit_search.latency.apple.seam import NEURAL_ENGINE
from mvit_search.latency.runtime import Placement

_LISTED = 4
_UNKNOWN = "unknown"


class Placed(NamedTuple):
    """Shares by unit, the busiest first, and how often each operator is off the Neural Engine."""

    placement: tuple[Placement, ...]
    off_engine: Counter[str]

    def note(self) -> str:
        """What fell off the Neural Engine, for a network that was allowed on it; empty if nothing did."""
        if not self.off_engine:
            return ""
        total = sum(share.operators for share in self.placement)
        cost = sum(share.cost_share for share in self.placement if share.unit != NEURAL_ENGINE)
        names = " ".join(f"{name} ({count})" for name, count in self.off_engine.most_common(_LISTED))
        more = " and others" if len(self.off_engine) > _LISTED else ""
        fallen = f"{self.off_engine.total()} of {total} operators with {100 * cost:.0f} % of the estimated work"
        return f"{fallen} are off the Neural Engine: {names}{more}"


NOWHERE = Placed((), Counter())
"""Of what tells nothing."""


def placed(plan: Any, unit_classes: Mapping[str, Any]) -> Placed:
    """Placement of a program by its compute plan (`coremltools.models.compute_plan.MLComputePlan`).

    The plan says nothing of constants, so they are left out; an operator it gives no cost counts with none.

    Raises:
        ValueError: the plan is of no ML program.
    """
    program = plan.model_structure.program
    if program is None:
        raise ValueError("the compute plan is of no ML program")
    operators: Counter[str] = Counter()
    costs: defaultdict[str, float] = defaultdict(float)
    off_engine: Counter[str] = Counter()
    for operation in _operations(program.functions["main"].block):
        usage = plan.get_compute_device_usage_for_mlprogram_operation(operation)
        if usage is None:
            continue
        unit = _unit(usage.preferred_compute_device, unit_classes)
        cost = plan.get_estimated_cost_for_mlprogram_operation(operation)
        operators[unit] += 1
        costs[unit] += 0.0 if cost is None else cost.weight
        if unit != NEURAL_ENGINE:
            # `ios15.conv` -> `conv`
            off_engine[operation.operator_name.rpartition(".")[2]] += 1
    return Placed(_shares(operators, costs), off_engine)


def _shares(operators: Counter[str], costs: Mapping[str, float]) -> tuple[Placement, ...]:
    # A plan without any cost must not divide by zero.
    count, work = operators.total(), sum(costs.values()) or 1.0
    return tuple(
        Placement(unit, number, number / count, costs[unit] / work) for unit, number in operators.most_common()
    )


def _operations(block: Any) -> Iterator[Any]:
    """Operators in order, and those of the blocks inside conditionals and loops."""
    for operation in block.operations:
        yield operation
        for inner in operation.blocks:
            yield from _operations(inner)


def _unit(device: Any, unit_classes: Mapping[str, Any]) -> str:
    return next((unit for unit, kind in unit_classes.items() if isinstance(device, kind)), _UNKNOWN)
