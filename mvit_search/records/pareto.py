"""Pareto order of the value (top-1 or score) and any number of costs: a higher value and lower costs are better."""

import math
import operator
from bisect import bisect
from collections.abc import Callable, Iterable, Sequence

from mvit_search.records.objectives import DEFAULT_OBJECTIVES
from mvit_search.records.record import Record

Key = tuple[float, ...]
"""Of a record: its first cost, its value with the sign turned, its other costs, its number. Sorting by keys puts the
cheapest first, and no record before one that dominates it."""


def costs_of(objectives: Sequence[str]) -> tuple[str, ...]:
    """The objectives but for the value, in the order of a front: latency first, where it is one."""
    return tuple(sorted((key for key in objectives if key != "top1"), key=lambda key: key != "latency_ms"))


def key_maker(objectives: Sequence[str]) -> Callable[[Record], Key]:
    """What makes the `Key` of a record that succeeded."""
    first, *others = costs_of(objectives)
    figures = operator.attrgetter(first, "value", *others, "number")

    def key(record: Record) -> Key:
        cost, value, *rest = figures(record)
        return (cost, -value, *rest)

    return key


def dominates(one: Key, other: Key) -> bool:
    """Whether `one` is nowhere worse than `other`, which may be its equal in everything but the number."""
    return all(map(operator.le, one[:-1], other[:-1]))


def pareto_front(records: Iterable[Record], objectives: Sequence[str] = DEFAULT_OBJECTIVES) -> tuple[Record, ...]:
    """Records that succeeded and that no other beats in one objective without losing in another.

    The fastest first, or that of the least first cost where latency is no objective. Of several records that are equal
    in all objectives the one with the lowest number stays.
    """
    key = key_maker(objectives)
    ordered = sorted(((key(record), record) for record in records if record.succeeded), key=operator.itemgetter(0))
    on_front = set(front_keys([key for key, _ in ordered]))
    return tuple(record for key, record in ordered if key in on_front)


def front_keys(ordered: Sequence[Key]) -> list[Key]:
    """Those of sorted keys that none before them dominates: none after them can."""
    front: list[Key] = []
    if ordered and len(ordered[0]) == 3:  # Two objectives: the value must rise.
        for key in ordered:
            if not front or key[1] < front[-1][1]:
                front.append(key)
        return front
    for key in ordered:
        # What was met last is the likeliest to dominate.
        if not any(dominates(member, key) for member in reversed(front)):
            front.append(key)
    return front


def hypervolume(points: Iterable[tuple[float, ...]], *worst: float) -> float:
    """Share of a box that points dominate, 0..1; exact for any number of costs.

    A point is (cost, ..., value), the box [0, worst] of each cost times [0, 1] of the value: `hypervolume([(5.0, 0.9)],
    20.0)` is that of 5 ms and 90 %. A point at or beyond `worst` in any cost adds nothing.
    """
    return _volume(_scaled(points, worst))


def hypervolume_added(point: tuple[float, ...], others: Iterable[tuple[float, ...]], *worst: float) -> float:
    """By how much `point` raises the hypervolume of `others`: far quicker than both volumes with several costs."""
    return sum(_exclusive(own, _scaled(others, worst)) for own in _scaled([point], worst))


def _scaled(points: Iterable[tuple[float, ...]], worst: Sequence[float]) -> list[tuple[float, ...]]:
    """In the unit box, with every axis minimised; without those outside."""
    return [
        (*(cost / most for cost, most in zip(point[:-1], worst, strict=True)), 1 - point[-1])
        for point in points
        if point[-1] > 0 and all(map(operator.lt, point[:-1], worst))
    ]


def _exclusive(point: tuple[float, ...], others: Iterable[tuple[float, ...]]) -> float:
    """What `point` dominates and none of `others` does."""
    limited = [tuple(map(max, point, other)) for other in others]
    return math.prod(1 - axis for axis in point) - _volume(_undominated(limited))


def _volume(points: list[tuple[float, ...]]) -> float:
    """Of the unit box, with every axis minimised.

    Two axes by one sweep, three by a sweep over a growing staircase; beyond that the volume that each point adds to
    those after it (the recursion of WFG: While, Bradstreet and Barone, IEEE Trans. Evol. Comput. 16(1), 2012).
    """
    if not points:
        return 0.0
    if len(points[0]) == 2:
        return _area(points)
    if len(points[0]) == 3:
        return _three(points)
    # The worst first, so that what a point limits the others to collapses early.
    ordered = sorted(_undominated(points), reverse=True)
    return math.fsum(_exclusive(point, ordered[index + 1 :]) for index, point in enumerate(ordered))


def _area(points: list[tuple[float, ...]]) -> float:
    covered, best = 0.0, 1.0
    for x, y in sorted(points):
        if y < best:
            covered += (1 - x) * (best - y)
            best = y
    return covered


def _three(points: list[tuple[float, ...]]) -> float:
    """Slices along the first axis; the cross-section is a staircase that only grows."""
    xs, ys = [0.0, 1.0], [1.0, 0.0]  # Guards: a stair below which nothing is covered, and the box's end.
    area = total = reached = 0.0
    for depth, x, y in sorted(points):
        total += area * (depth - reached)
        reached = depth
        at = bisect(xs, x)
        if ys[at - 1] <= y:
            continue
        end = at
        before, left = ys[at - 1], x
        while ys[end] >= y and end < len(xs) - 1:  # Stairs that the new one swallows.
            area += (before - y) * (xs[end] - left)
            before, left = ys[end], xs[end]
            end += 1
        area += (before - y) * (xs[end] - left)
        xs[at:end], ys[at:end] = [x], [y]
    return total + area * (1 - reached)


def _undominated(points: Iterable[tuple[float, ...]]) -> list[tuple[float, ...]]:
    kept: list[tuple[float, ...]] = []
    for point in sorted(set(points)):
        if not any(all(map(operator.le, other, point)) for other in reversed(kept)):
            kept.append(point)
    return kept


def best(front: Sequence[Record]) -> Record:
    """The most accurate, or the highest scored; of equals the fastest."""
    return max(front, key=lambda record: (record.value, -record.latency_ms))


def knee(front: Sequence[Record], objectives: Sequence[str] = DEFAULT_OBJECTIVES) -> Record:
    """The point whose value exceeds the mean of its costs most, each scaled to 0..1 over the front.

    With one cost that is the point farthest above the straight line between the front's ends. A front of one or two
    points has no knee: then the most accurate.
    """
    if len(front) < 3:
        return best(front)
    key = key_maker(objectives)
    ordered = sorted(front, key=key)
    columns: list[tuple[float, ...]] = list(zip(*(key(record)[:-1] for record in ordered), strict=True))
    scales = [(min(column), (max(column) - min(column)) or 1.0) for column in columns]

    def gained(record: Record) -> float:
        cost, value, *others = ((own - low) / width for own, (low, width) in zip(key(record), scales, strict=False))
        return (1 - value) - (cost + sum(others)) / (1 + len(others))

    return max(ordered, key=gained)


def best_within(front: Sequence[Record], limit_ms: float) -> Record | None:
    """The most accurate at or under `limit_ms`; None if all are slower."""
    inside = [record for record in front if record.latency_ms <= limit_ms]
    return best(inside) if inside else None
