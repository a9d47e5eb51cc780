"""Asynchronous successive halving for several objectives: who goes on to the next rung, from results alone.

MO-ASHA (Schmucker et al. 2021, arXiv 2106.12639) with two changes.

- ASHA promotes whoever is among the best 1/eta now. While the sampler gets better, each newcomer is among them and
  displaces nobody who was promoted before, so that more than 1/eta go up. Here promotions are counted: of n results at
  a rung n/eta go on, the best that did not yet.
- The best are looked up among the first s results of a rung, s growing by a hundredth at a time (by one up to 200), so
  that ten thousand candidates cost no more than a hundred. Which s depends on the number of results alone. Nothing here
  knows a clock or a random number: whoever is told the same results in the same order decides the same.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence, Set
from typing import NamedTuple

from mvit_search.search.ladder import Ladder
from mvit_search.search.ordering import order

KEPT_LEAST, KEPT_MOST = 8, 64
"""Bounds on the candidates of a rung, promoted ones left out, whose weights are kept."""


class Promotion(NamedTuple):
    """A candidate, and the rung that it should be valued at next."""

    number: int
    rung: int


class _Results:
    """Of one rung: who was valued, in the order of events, and who of them was promoted.

    Attributes:
        spent: how many of those valued here were promoted.
        grid: how many of the first results decide; see the module.
    """

    def __init__(self) -> None:
        self._points: list[tuple[float, ...]] = []
        self._numbers: list[int] = []
        self._members: set[int] = set()
        self._promoted: set[int] = set()
        self.spent = 0
        self.grid = 0
        self._ordered: list[int] = []
        self._ordered_size = 0
        self._passed = 0

    def __len__(self) -> int:
        return len(self._numbers)

    def __contains__(self, number: int) -> bool:
        return number in self._members

    def add(self, number: int, objectives: Sequence[float]) -> None:
        if number in self._members:
            raise ValueError(f"candidate {number} was valued at this rung before")
        self._points.append(tuple(objectives))
        self._numbers.append(number)
        self._members.add(number)
        self.spent += number in self._promoted
        if len(self) >= self.grid + max(1, self.grid // 100):
            self.grid = len(self)

    def promote(self, number: int) -> None:
        if number not in self._promoted:
            self._promoted.add(number)
            self.spent += number in self._members

    def give_back(self, number: int) -> None:
        if number in self._promoted:
            self._promoted.remove(number)
            self.spent -= number in self._members
            self._passed = 0

    def best(self, size: int, failed: Set[int]) -> int | None:
        """The best of the first `size` results that may still go on."""
        return next(self._in_line(size, failed), None)

    def next_in_line(self, count: int, failed: Set[int]) -> list[int]:
        """The best that may still go on, and the newest that nobody compared yet."""
        size = max(self.grid, self._ordered_size)
        newest = [number for number in self._numbers[size:][-KEPT_MOST:] if self._may_go_on(number, failed)]
        return [*itertools.islice(self._in_line(size, failed), count), *newest]

    def _in_line(self, size: int, failed: Set[int]) -> Iterator[int]:
        if size != self._ordered_size:
            self._order(size, self.spent + 2 * KEPT_MOST)
        place = self._passed
        in_front = True
        while place < size:
            if place == len(self._ordered):
                self._order(size, size)  # begins as the shorter one did
            number = self._ordered[place]
            if self._may_go_on(number, failed):
                in_front = False
                yield number
            place += 1
            if in_front:
                self._passed = place  # nobody of these will ever go on: not looked at again

    def _may_go_on(self, number: int, failed: Set[int]) -> bool:
        return number not in self._promoted and number not in failed

    def _order(self, size: int, first: int) -> None:
        self._ordered = [self._numbers[index] for index in order(self._points[:size], first)]
        self._ordered_size, self._passed = size, 0


class Halving:
    """What successive halving knows: results by rung, in the order of events; who was promoted, and who failed.

    Numbers are those of candidates. A run that is carried on tells its events again and goes on as it would have.
    """

    def __init__(self, ladder: Ladder) -> None:
        self._eta = ladder.eta
        self._rungs = [_Results() for _ in ladder.rungs]
        self._under_way: list[set[int]] = [set() for _ in ladder.rungs]
        self._failed: set[int] = set()

    def begin(self, rung: int, number: int) -> None:
        """A candidate was sent to be valued at this rung."""
        self._under_way[rung].add(number)
        self._promoted(rung, number)

    def add(self, rung: int, number: int, objectives: Sequence[float]) -> None:
        """A candidate was valued at this rung; objectives all to be minimised.

        Raises:
            ValueError: it was before.
        """
        self._rungs[rung].add(number, objectives)
        self._under_way[rung].discard(number)
        self._promoted(rung, number)

    def drop(self, rung: int, number: int) -> None:
        """What was begun came to nothing, and says nothing of the candidate: it may be promoted again."""
        self._under_way[rung].discard(number)
        if rung and not any(number in results for results in self._rungs[rung:]):
            self._rungs[rung - 1].give_back(number)

    def fail(self, number: int) -> None:
        """A candidate is never promoted (again). Its promotion stays spent: others like it may fail as well."""
        self._failed.add(number)
        for under_way in self._under_way:
            under_way.discard(number)

    def next_promotion(self, *, closing: bool = False) -> Promotion | None:
        """Who goes on next, from the highest rung down; None if nobody may at present.

        Args:
            closing: no new candidates will come. Then shares are rounded up, and where nobody reached a rung, nor is
                on the way to it, the best below goes up in any case: eight candidates with eta 3 over three rungs end
                8, 3, 1 instead of 8, 2, 0. The top rung is empty only if all fail. Promotion is then from the lowest
                rung up, so that a costly place is given away after all that may compete for it are known.
        """
        if not closing:
            return self._first(range(len(self._rungs) - 2, -1, -1), self._due)
        upwards = range(len(self._rungs) - 1)
        return self._first(upwards, self._due_at_the_end) or self._first(upwards, self._best_below_nobody)

    def keepers(self) -> set[Promotion]:
        """Whose weights, left at which rung, may still be needed: on the way up, or next in line for it.

        Bounded for each rung; who is promoted without weights is trained from the start.
        """
        kept = set()
        for rung, results in enumerate(self._rungs[:-1]):
            count = min(KEPT_MOST, max(KEPT_LEAST, 2 * len(results) // self._eta))
            numbers = [*results.next_in_line(count, self._failed), *self._under_way[rung + 1]]
            kept |= {Promotion(number, rung) for number in numbers if number in results}
        return kept

    def _promoted(self, rung: int, number: int) -> None:
        for results in self._rungs[:rung]:
            results.promote(number)

    def _first(self, rungs: Sequence[int], find: Callable[[int], int | None]) -> Promotion | None:
        for rung in rungs:
            number = find(rung)
            if number is not None:
                return Promotion(number, rung + 1)
        return None

    def _due(self, rung: int) -> int | None:
        results = self._rungs[rung]
        return results.best(results.grid, self._failed) if results.spent < results.grid // self._eta else None

    def _due_at_the_end(self, rung: int) -> int | None:
        results = self._rungs[rung]
        share = -(-len(results) // self._eta)
        return results.best(len(results), self._failed) if results.spent < share else None

    def _best_below_nobody(self, rung: int) -> int | None:
        if len(self._rungs[rung + 1]) or self._under_way[rung + 1]:
            return None
        results = self._rungs[rung]
        return results.best(len(results), self._failed)
