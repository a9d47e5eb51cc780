"""`Front`: the Pareto front of a run that goes on, kept up to date record by record."""

from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from functools import cached_property

from mvit_search.records.objectives import DEFAULT_OBJECTIVES
from mvit_search.records.pareto import Key, costs_of, dominates, front_keys, hypervolume, key_maker
from mvit_search.records.record import Record


class Front:
    """Equal to `pareto_front` of all records at any time; adding one costs microseconds with two objectives.

    Records that have not succeeded may be added and updated too: they are on no front until they do.
    """

    def __init__(
        self, objectives: Sequence[str] = DEFAULT_OBJECTIVES, reference: Mapping[str, float] | None = None
    ) -> None:
        """`reference`: where the box of the hypervolume ends, for each cost; empty or None where there is no box."""
        self.objectives = tuple(objectives)
        costs = costs_of(objectives)
        self._worst = tuple(reference[cost] for cost in costs) if reference else ()
        self._key = key_maker(objectives)
        self._records: dict[float, Record] = {}
        self._keys: dict[float, Key] = {}
        self._all: list[Key] = []
        """Of every record that succeeded, sorted; so are `_on_front`."""
        self._on_front: list[Key] = []

    def add(self, record: Record) -> bool:
        """Take a record in; whether the front's members changed, or one of them."""
        self._records[record.number] = record
        if not record.succeeded:
            return False
        key = self._keys[record.number] = self._key(record)
        insort(self._all, key)
        return self._enter(key)

    def update(self, record: Record) -> bool:
        """The same record (by its number) with other values, or a first one; whether the front changed."""
        old = self._keys.pop(record.number, None)
        if old is None:
            return self.add(record)
        del self._all[bisect_left(self._all, old)]
        at = bisect_left(self._on_front, old)
        if at == len(self._on_front) or self._on_front[at] != old:
            return self.add(record)
        # A member: whatever it alone dominated may come back.
        self.add(record)
        self._on_front = front_keys(self._all)
        self._forget()
        return True

    @cached_property
    def members(self) -> tuple[Record, ...]:
        """The front, fastest first; see `pareto_front`."""
        return tuple(self._records[key[-1]] for key in self._on_front)

    def hypervolume(self) -> float | None:
        """Share of the box up to the reference that the front dominates; None where there is no box."""
        return self._hypervolume if self._worst else None

    @cached_property
    def _hypervolume(self) -> float:
        # A key is the first cost, the value with its sign turned, the other costs, the number.
        return hypervolume([(key[0], *key[2:-1], -key[1]) for key in self._on_front], *self._worst)

    def _enter(self, key: Key) -> bool:
        front = self._on_front
        at = bisect_left(front, key)
        if len(key) == 3:
            # Two objectives: the front's values rise, so that the neighbours decide.
            if at and front[at - 1][1] <= key[1]:
                return False
            end = at
            while end < len(front) and front[end][1] >= key[1]:
                end += 1
            front[at:end] = [key]
        else:
            if any(dominates(member, key) for member in front[:at]):
                return False
            front[at:] = [key, *(member for member in front[at:] if not dominates(key, member))]
        self._forget()
        return True

    def _forget(self) -> None:
        self.__dict__.pop("members", None)
        self.__dict__.pop("_hypervolume", None)
