"""Candidates with several objectives from best to worst: by fronts, and well spread within a front.

As in MO-ASHA (Schmucker, Donini, Zafar, Salinas, Archambeau: Multi-objective asynchronous successive halving, 2021,
arXiv 2106.12639): the non-dominated rank decides, as in NSGA-II (Deb et al. 2002, section III A), and where a front is
cut, an epsilon-net says who stays (Salinas, Perrone, Cruchant, Archambeau: A multi-objective perspective on jointly
tuning hardware and hyperparameters, 2021, arXiv 2106.05680; the order is Clarkson's, 2006): the front's ends first,
then always the point that is farthest from those chosen.
"""

from bisect import bisect_right

import numpy as np
from numpy.typing import ArrayLike, NDArray

Points = NDArray[np.float64]
Ranks = NDArray[np.int32]

_BLOCK = 128
"""Points that are ranked at once where there are three objectives or more; tried between 32 and 1024."""


def order(points: ArrayLike, first: int | None = None) -> list[int]:
    """Indices of the points, best first; of equals the lower index.

    Args:
        points: (n, objectives), all to be minimised.
        first: how many are wanted; the rest is then not put in order, which is much faster. None: all.

    Raises:
        ValueError: not a table of finite numbers.
    """
    table = _checked(points)
    wanted = len(table) if first is None else min(first, len(table))
    if wanted <= 0:
        return []
    ranks = front_ranks(table)
    chosen: list[int] = []
    # Stable: within a front the indices rise.
    by_rank = np.argsort(ranks, kind="stable")
    ends = np.searchsorted(ranks[by_rank], np.arange(ranks.max() + 1), side="right")
    begin = 0
    for end in ends:
        members = by_rank[begin:end]
        chosen += members[spread(table[members], wanted - len(chosen))].tolist()
        if len(chosen) >= wanted:
            break
        begin = end
    return chosen


def front_ranks(points: ArrayLike) -> NDArray[np.int64]:
    """The front of each point, 0 the one that nobody dominates; equal points share one.

    A point dominates another where it is no worse in any objective and better in one. (n, objectives) -> (n,).

    Raises:
        ValueError: not a table of finite numbers.
    """
    table = _checked(points)
    return _ranks_of_pairs(table) if table.shape[1] == 2 else _ranks(table)


def spread(points: Points, first: int) -> list[int]:
    """The first `first` indices of an epsilon-net's order: ends, then the farthest from all before.

    Distances are Euclidean, each objective scaled to 0..1 over these points. O(first * n).
    """
    count = len(points)
    if count <= 2 and first >= count:
        return sorted(range(count), key=lambda index: tuple(points[index]))
    low, high = points.min(axis=0), points.max(axis=0)
    scaled = (points - low) / np.where(high > low, high - low, 1.0)
    chosen: list[int] = []
    # Squares order as distances do. Minus one stands for "chosen already": below every distance.
    nearest = np.full(count, np.inf)
    for objective in range(points.shape[1]):
        end = _best_in(points, objective)
        if nearest[end] >= 0 and len(chosen) < first:
            _choose(end, scaled, nearest, chosen)
    while len(chosen) < min(first, count):
        _choose(int(nearest.argmax()), scaled, nearest, chosen)
    return chosen


def _choose(index: int, scaled: Points, nearest: Points, chosen: list[int]) -> None:
    away = scaled - scaled[index]
    np.minimum(nearest, np.einsum("ij,ij->i", away, away), out=nearest)
    nearest[index] = -1.0
    chosen.append(index)


def _best_in(points: Points, objective: int) -> int:
    """The best in one objective; of equals the best in the others, from the first; then the lowest index."""
    keys = [points[:, key] for key in range(points.shape[1]) if key != objective]
    return int(np.lexsort((*reversed(keys), points[:, objective]))[0])


def _checked(points: ArrayLike) -> Points:
    table = np.asarray(points, dtype=np.float64)
    if not table.size:
        return table.reshape(len(table), -1) if table.ndim == 2 else np.empty((0, 2))
    if table.ndim != 2 or not np.isfinite(table).all():
        raise ValueError("points must be a table of finite numbers, a row for each")
    return table


def _ranks_of_pairs(table: Points) -> NDArray[np.int64]:
    """Two objectives, O(n log n): sorted by the first, a front is described by the point that joined it last.

    That point has the least second objective of its front, and these rise from front to front, so that the first front
    with nobody who dominates is found by bisection (Jensen 2003; Zhang et al. 2015, ENS-BS).
    """
    ranks = np.empty(len(table), dtype=np.int64)
    last_first: list[float] = []
    last_second: list[float] = []
    sequence = np.lexsort((table[:, 1], table[:, 0]))
    for index, (one, two) in zip(sequence.tolist(), table[sequence].tolist(), strict=True):
        rank = bisect_right(last_second, two)
        if rank and last_second[rank - 1] == two and last_first[rank - 1] == one:
            rank -= 1  # equal points do not dominate one another
        if rank == len(last_second):
            last_first.append(one)
            last_second.append(two)
        else:
            last_first[rank], last_second[rank] = one, two
        ranks[index] = rank
    return ranks


def _ranks(table: Points) -> NDArray[np.int64]:
    """Any number of objectives: one more than the highest rank among those that dominate.

    In lexicographic order only earlier points dominate later ones; O(n^2), a block of points against all before.
    """
    distinct, inverse = np.unique(table, axis=0, return_inverse=True)
    # Places in each objective compare as the numbers do, and faster.
    places = np.stack([np.unique(column, return_inverse=True)[1] for column in distinct.T]).astype(np.int32)
    count = len(distinct)
    ranks = np.zeros(count, dtype=np.int32)
    for begin in range(0, count, _BLOCK):
        end = min(begin + _BLOCK, count)
        block = places[:, begin:end]
        behind = np.zeros(end - begin, dtype=np.int32)
        if begin:
            behind = _ranks_behind(_no_worse(places[:, :begin], block), ranks[:begin])
        ranks[begin:end] = _settled(behind, np.tril(_no_worse(block, block), -1))
    return ranks[inverse.reshape(-1)].astype(np.int64)


def _settled(behind: Ranks, dominated: NDArray[np.bool_]) -> Ranks:
    """Ranks within a block: raised until everybody stands behind all that dominate it."""
    while True:
        raised = np.maximum(behind, _ranks_behind(dominated, behind))
        if (raised == behind).all():
            return raised
        behind = raised


def _ranks_behind(dominated: NDArray[np.bool_], ranks: Ranks) -> Ranks:
    """The least rank of each row's point; `dominated[j, i]`: point i, of rank `ranks[i]`, dominates it."""
    return np.asarray((dominated * (ranks + 1)).max(axis=1))


def _no_worse(one: Ranks, other: Ranks) -> NDArray[np.bool_]:
    """[j, i]: whether point i of `one`, (objectives, n), is no worse than point j of `other` in any objective.

    Between distinct points that is dominance.
    """
    result = one[0] <= other[0][:, None]
    for objective in range(1, len(one)):
        result &= one[objective] <= other[objective][:, None]
    return np.asarray(result)
