"""What a search may optimise: the value (top-1, or a score) and costs, each with its direction and unit."""

from typing import NamedTuple

from mvit_search.errors import InputError, UnknownNameError


class Objective(NamedTuple):
    """One objective.

    Attributes:
        key: as in records, tables and `--objective`.
        maximise: direction; costs are minimised.
        label: words for people, with the unit.
    """

    key: str
    maximise: bool
    label: str


OBJECTIVES = {
    objective.key: objective
    for objective in (
        Objective("top1", True, "top-1 (%)"),
        Objective("latency_ms", False, "latency (ms)"),
        Objective("params", False, "parameters"),
        Objective("macs", False, "MACs"),
        Objective("weight_bytes", False, "weights (bytes)"),
        Objective("peak_activation_bytes", False, "peak activation memory (bytes)"),
    )
}
"""`top1` stands for whatever values candidates: where the run's proxy is a zero-cost score, for that score."""

DEFAULT_OBJECTIVES = ("top1", "latency_ms")


def check_objectives(keys: tuple[str, ...]) -> tuple[str, ...]:
    """The keys, `top1` first.

    Raises:
        UnknownNameError: an unknown one.
        InputError: one given twice, no `top1`, or `top1` alone.
    """
    for key in keys:
        if key not in OBJECTIVES:
            raise UnknownNameError("objective", key, OBJECTIVES)
        if keys.count(key) > 1:
            raise InputError("--objective", key, "is given twice", "leave one out")
    if "top1" not in keys:
        costs = ", ".join(keys)
        raise InputError("--objective", costs, "top1 is not among them", "the smallest network would be the best")
    if len(keys) < 2:
        rule = "is the only objective: a front needs something to weigh it against"
        raise InputError("--objective", "top1", rule, "add --objective latency_ms, or params, macs, ...")
    return ("top1", *(key for key in keys if key != "top1"))
