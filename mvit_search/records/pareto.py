"""Pareto order of (latency, top-1 or score): lower latency and a higher value are better."""

from collections.abc import Iterable, Sequence

from mvit_search.records.record import Record


def pareto_front(records: Iterable[Record]) -> tuple[Record, ...]:
    """Records that succeeded and that no other beats in one objective without losing in the other, fastest first.

    Of several records with equal latency and equal value the one with the lowest number stays.
    """
    succeeded = [record for record in records if record.succeeded]
    succeeded.sort(key=lambda record: (record.latency_ms, -record.value, record.number))
    front: list[Record] = []
    for record in succeeded:
        if not front or record.value > front[-1].value:
            front.append(record)
    return tuple(front)


def hypervolume(points: Sequence[tuple[float, float]], worst_latency_ms: float) -> float:
    """Share of the box [0, worst_latency_ms] x [0, 1] that `points` = (latency_ms, top1) dominate, 0..1.

    A point slower than `worst_latency_ms` adds nothing.
    """
    covered, best = 0.0, 0.0
    for latency_ms, top1 in sorted(points):
        if latency_ms < worst_latency_ms and top1 > best:
            covered += (worst_latency_ms - latency_ms) * (top1 - best)
            best = top1
    return covered / worst_latency_ms


def best(front: Sequence[Record]) -> Record:
    """The most accurate, or the highest scored; of equals the fastest."""
    return max(front, key=lambda record: (record.value, -record.latency_ms))


def knee(front: Sequence[Record]) -> Record:
    """The point farthest above the straight line between the front's ends, both axes scaled to 0..1.

    A front of one or two points has no knee: then the most accurate.
    """
    if len(front) < 3:
        return best(front)
    ordered = sorted(front, key=lambda record: record.latency_ms)
    first, last = ordered[0], ordered[-1]
    width = last.latency_ms - first.latency_ms
    height = last.value - first.value

    def above_line(record: Record) -> float:
        return (record.value - first.value) / height - (record.latency_ms - first.latency_ms) / width

    return max(ordered, key=above_line)


def best_within(front: Sequence[Record], limit_ms: float) -> Record | None:
    """The most accurate at or under `limit_ms`; None if all are slower."""
    inside = [record for record in front if record.latency_ms <= limit_ms]
    return best(inside) if inside else None
