"""How much of a difference seeds alone explain: when two candidates are told apart, and when they are not."""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

from mvit_search.records.record import Record

# Student's t at 97.5 %, by degrees of freedom from 1; from 5 on the expansion below is exact to three digits.
_FEW_DEGREES = (12.7062, 4.3027, 3.1824, 2.7764)
_Z = 1.959964


class SeedNoise(NamedTuple):
    """Standard deviation of one training (or score) over seeds, pooled over candidates of a run.

    Pooled, and not each candidate's own as in Welch's test: two or three seeds say next to nothing of a deviation
    (three may agree to a hundredth by luck, and Welch would call any difference real), while candidates of one run are
    trained by one recipe on the same images, so that their noise is much alike.

    Attributes:
        std: of the value of one seed, 0..1 or as the score.
        degrees: of freedom that it was estimated with.
    """

    std: float
    degrees: int

    @classmethod
    def pooled(cls, spreads: Iterable[tuple[float | None, int]]) -> Self | None:
        """From (sample standard deviation, number of seeds) of each candidate; None if none has two seeds."""
        squares, degrees = 0.0, 0
        for std, seeds in spreads:
            if std is not None:
                squares += max(1, seeds - 1) * std**2
                degrees += max(1, seeds - 1)
        return cls(math.sqrt(squares / degrees), degrees) if degrees else None

    def margin(self, seeds: int, other_seeds: int) -> float:
        """What the means of two equally good candidates differ by no more than, 19 times of 20.

        Half the 95 % interval of their difference by Student's t: t * std * sqrt(1/seeds + 1/other_seeds).
        """
        return _t(self.degrees) * self.std * math.sqrt(1 / max(1, seeds) + 1 / max(1, other_seeds))


def indistinguishable(front: Sequence[Record], others: Iterable[Record] = ()) -> dict[int, tuple[int, ...]] | None:
    """Which neighbours on a front seeds do not tell apart: numbers of the neighbours, by each member's number.

    Neighbours are next to each other in the order of values. They are level where their means differ by no more than
    `SeedNoise.margin`. A candidate with one seed is judged by the noise that the others show. It is no relation of
    whole groups: of three in a row each two neighbours may be level, and the ends not.

    Args:
        others: candidates off the front whose seeds tell of the noise too, such as presets; members may be among them.

    Returns:
        None if nobody has a second seed: then it is not known.
    """
    known = {record.number: record for record in (*others, *front) if record.value_by_seed}
    noise = SeedNoise.pooled((record.value_std, len(record.value_by_seed)) for record in known.values())
    if noise is None:
        return None
    ordered = sorted(front, key=lambda record: (record.value, record.number))
    level: dict[int, tuple[int, ...]] = {record.number: () for record in ordered}
    for low, high in itertools.pairwise(ordered):
        if high.value - low.value <= noise.margin(len(low.value_by_seed), len(high.value_by_seed)):
            level[low.number] += (high.number,)
            level[high.number] += (low.number,)
    return level


def _t(degrees: int) -> float:
    """Student's t at 97.5 %. Abramowitz and Stegun 26.7.5, so that a printed front need not load scipy."""
    if degrees <= len(_FEW_DEGREES):
        return _FEW_DEGREES[degrees - 1]
    z = _Z
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / degrees**power for power, term in enumerate(terms, start=1))
