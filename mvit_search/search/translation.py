"""Values of lower rungs on the scale of the highest: what a sampler is told of a candidate that was not promoted.

A sampler that is told the values as they are takes few epochs for a bad network, and learns to repeat whoever was
promoted. So each value is carried up, rung by rung, by a line learnt from the candidates that were valued at both; a
candidate that was valued at the highest rung that anybody reached keeps its own value. None of this enters a front.

The line goes through the medians of both rungs, which a single outlier does not move, and its slope is drawn to 1, as
if `PRIOR_PAIRS` more pairs had been seen, spread as the rung is, that all gained the same: the promoted ones lie close
together, and a few of them say nothing of the slope. With few pairs it is a shift by the median gain. It always rises:
of two that reached the same rung, the better one is told as the better.
"""

from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

PRIOR_PAIRS = 10
SLOPE_LEAST, SLOPE_MOST = 0.25, 4.0

Values = NDArray[np.float64]


class Line(NamedTuple):
    """value at the rung above = slope * value + shift."""

    slope: float = 1.0
    shift: float = 0.0


class Translation(NamedTuple):
    """A line for each rung, straight to the scale of `scale`, the highest rung that anybody reached."""

    lines: tuple[Line, ...]
    scale: int

    def carried_up(self, rung: int, value: float) -> float:
        """A value of this rung on the highest rung's scale."""
        line = self.lines[rung]
        return line.slope * value + line.shift

    @classmethod
    def learnt(cls, values: ArrayLike) -> Self:
        """From (candidates, rungs), NaN where a candidate was not valued."""
        table = np.asarray(values, dtype=np.float64)
        known = ~np.isnan(table)
        reached = np.flatnonzero(known.any(axis=0))
        scale = int(reached[-1]) if len(reached) else 0
        lines = [Line()] * table.shape[1]
        for rung in range(scale - 1, -1, -1):
            above, both = _next_with_pairs(known, rung, scale)
            if both is None:
                continue  # nobody says how they compare: taken as they are
            here = table[known[:, rung], rung]
            step = _line(table[both, rung], table[both, above], float(here.var()))
            further = lines[above]
            lines[rung] = Line(further.slope * step.slope, further.slope * step.shift + further.shift)
        return cls(tuple(lines), scale)


def estimate_full(values: ArrayLike) -> Values:
    """Each candidate's value at its own highest rung, on the scale of the highest rung that anybody reached.

    Args:
        values: (candidates, rungs), NaN where a candidate was not valued.

    Returns:
        (candidates,), NaN where one was not valued at all.
    """
    table = np.asarray(values, dtype=np.float64)
    if not table.size:
        return np.full(len(table), np.nan)
    lines = np.array(Translation.learnt(table).lines)
    result = np.full(len(table), np.nan)
    for rung, (slope, shift) in enumerate(lines):
        column = table[:, rung]
        result = np.where(np.isnan(column), result, slope * column + shift)
    return result


def _next_with_pairs(known: NDArray[np.bool_], rung: int, scale: int) -> tuple[int, NDArray[np.int64] | None]:
    """The nearest rung above that shares candidates with this one, and which; None where none does."""
    here = np.flatnonzero(known[:, rung])
    for above in range(rung + 1, scale + 1):
        both = here[known[here, above]]
        if len(both):
            return above, both
    return scale, None


def _line(low: Values, high: Values, variance: float) -> Line:
    """Least squares, drawn to a slope of 1; `variance` of all values at the lower rung scales how strongly."""
    away = low - low.mean()
    prior = PRIOR_PAIRS * variance
    total = float(away @ away) + prior
    slope = (float(away @ (high - high.mean())) + prior) / total if total > 0 else 1.0
    slope = min(SLOPE_MOST, max(SLOPE_LEAST, slope))
    return Line(slope, float(np.median(high)) - slope * float(np.median(low)))
