"""What a run optimised besides its value, in words: for columns, axes and sentences."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from mvit_search._quantities import format_bytes, format_count
from mvit_search.analysis.front_document import FrontDocument, Point, display_target
from mvit_search.records.pareto import costs_of


class CostWords(NamedTuple):
    """How to speak of one cost.

    Attributes:
        noun: `at equal or lower <noun>`.
        axis: title of a figure's axis, with the unit; `scale` is what an amount is multiplied by there.
        least: what the point with the least of it is called.
        order: how a list that begins with the least is sorted.
        text: an amount for people.
    """

    noun: str
    axis: str
    scale: float
    least: str
    order: str
    text: Callable[[float], str]


COSTS = {
    "latency_ms": CostWords("latency", "Latency (ms)", 1.0, "Fastest", "fastest first", lambda ms: f"{ms:.1f} ms"),
    "params": CostWords(
        "number of parameters", "Parameters (M)", 1e-6, "Fewest parameters", "fewest parameters first",
        lambda number: f"{format_count(number)} parameters",
    ),
    "macs": CostWords(
        "number of MACs", "MACs (M)", 1e-6, "Fewest MACs", "fewest MACs first",
        lambda number: f"{format_count(number)} MACs",
    ),
    "weight_bytes": CostWords(
        "size of weights", "Weights (MiB)", 2**-20, "Smallest weights", "smallest weights first", format_bytes
    ),
    "peak_activation_bytes": CostWords(
        "peak activation memory", "Peak activations (MiB)", 2**-20, "Least memory", "least memory first", format_bytes
    ),
}  # fmt: skip


def cost_amount(point: Point, key: str) -> float | None:
    """The point's amount of that cost; None where it is not known."""
    amounts: dict[str, float | None] = {
        "latency_ms": point.latency_ms, "params": point.params, "macs": point.macs,
        "weight_bytes": point.weight_bytes, "peak_activation_bytes": point.peak_activation_bytes,
    }  # fmt: skip
    return amounts[key]


def costs(document: FrontDocument) -> tuple[str, ...]:
    """The run's costs in the order of its front: latency first, where it is one."""
    return costs_of(document.objectives)


def nouns(document: FrontDocument, latency_word: str) -> str:
    """`predicted latency and number of parameters`; `latency_word` may be empty."""
    return listed([
        f"{latency_word} {COSTS[key].noun}".lstrip() if key == "latency_ms" else COSTS[key].noun
        for key in costs(document)
    ])  # fmt: skip


def axis_title(document: FrontDocument, key: str, latency_word: str) -> str:
    """`Latency on iPhone 12, predicted (ms)`; of other costs what they are."""
    if key != "latency_ms":
        return COSTS[key].axis
    return f"Latency on {display_target(document.target) or 'the target'}, {latency_word} (ms)"


def listed(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1]))) if words else ""
