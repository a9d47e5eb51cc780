"""How candidates stand: what samplers are told of each, and who is promoted, from the records alone.

Only valuations with the search's own seed count here: further seeds come in the finals, and a run that goes on after
them should decide as one that has not had them.

Samplers are told of every candidate as soon as it was valued at the lowest rung. Its value is carried up to the scale
of the highest rung (translation.py) and told anew as more is known; nothing of that enters a front.
"""

from collections.abc import Callable, Iterable
from operator import attrgetter

import numpy as np

from mvit_search.records import Record
from mvit_search.records.pareto import costs_of
from mvit_search.records.record import Evaluated
from mvit_search.search.halving import Halving
from mvit_search.search.ladder import Ladder
from mvit_search.search.limits import Limits
from mvit_search.search.sampling import Sampling
from mvit_search.search.task import Failure
from mvit_search.search.translation import Line, Translation


class Standing:
    """Told of every valuation in the order of events; tells samplers and promotes."""

    def __init__(
        self, ladder: Ladder, objectives: tuple[str, ...], limits: Limits, seed_of: Callable[[Record], int],
        sampling: Sampling,
    ) -> None:  # fmt: skip
        """`seed_of`: the seed that the search values a candidate with."""
        self.halving = Halving(ladder)
        self._ladder, self._limits, self._sampling, self._seed_of = ladder, limits, sampling, seed_of
        self._costs = [attrgetter(key) for key in costs_of(objectives)]
        self._records: dict[int, Record] = {}
        self._order: list[tuple[int, int, float]] = []
        """(candidate, rung, value) of each valuation."""
        self._translation = Translation((Line(),) * len(ladder.rungs), 0)
        self._learnt = 0
        """How many valuations the lines follow from."""

    def restore(self, records: Iterable[Record]) -> None:
        """Take over what is known, as if told one by one."""
        known = list(records)
        steps = [(e.ended, e.rung, e.value, record) for record in known for e in self._searched(record)]
        for _, rung, value, record in sorted(steps, key=lambda step: step[0]):
            self._enter(record, rung, value)
            self._is_due()
        self._learn()
        for record in known:
            self._tell(record)

    def valued(self, record: Record, rung: int, value: float | None) -> None:
        """A candidate was valued at a rung with the search's seed; None: it failed."""
        self._enter(record, rung, value)
        if self._is_due() and self._ladder.top:
            before = self._translation.lines
            self._learn()
            if self._translation.lines != before:
                for other in self._records.values():
                    self._tell(other)
        self._tell(record)

    def _enter(self, record: Record, rung: int, value: float | None) -> None:
        number = record.number
        self._records[number] = record
        if value is None:
            self.halving.fail(number)
            return
        self._order.append((number, rung, value))
        if record.origin != "preset":  # presets go up whatever they reach, and take nobody's place
            self.halving.add(rung, number, self._minimised(record, value))

    def _is_due(self) -> bool:
        """Whether the lines are learnt anew: when there are a hundredth more valuations, and so by their number alone.

        Each time everybody is told anew, which for ten thousand candidates takes longer than a proposal.
        """
        if len(self._order) < self._learnt + max(1, self._learnt // 100):
            return False
        self._learnt = len(self._order)
        return True

    def _learn(self) -> None:
        if not self._ladder.top:
            return
        size = self._learnt
        rows: dict[int, int] = {}
        for number, _, _ in self._order[:size]:
            rows.setdefault(number, len(rows))
        table = np.full((len(rows), len(self._ladder.rungs)), np.nan)
        for number, rung, value in self._order[:size]:
            table[rows[number], rung] = value
        self._translation = Translation.learnt(table)

    def _tell(self, record: Record) -> None:
        """Tell samplers how a candidate stands."""
        if record.trial is None:
            return
        searched = self._searched(record)
        if searched[-1].value is not None:
            highest = searched[-1]
            value = self._translation.carried_up(highest.rung, searched[-1].value)
            over = self._limits.excess_after(value, record.latency_ms) if highest.rung == self._ladder.top else {}
        elif record.failure == Failure.LIMIT:
            # Measured to be over a limit, and not trained: no value is worse than 0.
            value, over = 0.0, self._limits.excess_after(None, record.latency_ms)
        else:
            self._sampling.fail(record.trial)
            return
        self._sampling.set_values(record.trial, [value, *(float(cost(record)) for cost in self._costs)])
        if over:
            self._sampling.set_violation(record.trial, over)

    def _searched(self, record: Record) -> list[Evaluated]:
        """Its valuations with the search's seed, from the lowest rung up."""
        return [e for e in record.evaluations if e.seed == self._seed_of(record)]

    def _minimised(self, record: Record, value: float) -> list[float]:
        return [-value, *(float(cost(record)) for cost in self._costs)]
