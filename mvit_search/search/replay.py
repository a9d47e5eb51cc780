"""A search over what a table recorded: accuracies are read, nothing is trained.

The table is a benchmark: a search that may only propose what it holds takes seconds, so that samplers and settings can
be compared over many seeds. How good its answers are is as good as the trainings in it.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np

from mvit_search.architecture import MobileViTConfig
from mvit_search.errors import InputError
from mvit_search.records.table import TableRow, read_table
from mvit_search.search.evaluator import Evaluation
from mvit_search.search.limits import Limits
from mvit_search.space import SearchSpace


class Replay:
    """The recorded candidates, as an `Evaluator` that looks them up.

    A candidate counts where a training of it was recorded to the last epoch of the schedule, or failed; a training
    that was left half-way would not compare.

    Attributes:
        digest: sha256 over everything that is answered from, so that a run is not carried on with another table.
    """

    def __init__(
        self, source: str, rows: Iterable[TableRow], fidelity: str, space: SearchSpace, limits: Limits, *, seed: int,
        seeds: int,
    ) -> None:  # fmt: skip
        """Raises InputError for a candidate outside the space that is no preset, or if none inside fits the limits.

        So it does where no training reached the schedule's last epoch.
        """
        self._source, self._space, self._first_seed, self._seeds = source, space, seed, seeds
        self._rows = _last_rows(rows, fidelity)
        if all(row.error for found in self._rows.values() for row in found.values()):
            rule = f"no training of {fidelity} reached its last epoch"
            raise InputError("table", source, rule, "carry on what writes it, or name another fidelity")
        configs = {digest: next(iter(found.values())).config for digest, found in self._rows.items()}
        inside = [config for config in configs.values() if self._is_inside(config)]
        self._fitting = tuple(config for config in inside if not limits.excess(config))
        if not self._fitting:
            rule = f"none of its {len(inside)} candidates inside space {space.name} is within {limits.params:,} params"
            raise InputError("table", source, rule, "raise --budget")
        self._places = np.array([self._place(config) for config in self._fitting])
        self.digest = _digest(self._rows)

    def knows(self, config: MobileViTConfig) -> bool:
        """Whether a training of it was recorded."""
        return config.digest() in self._rows

    def seeds(self, config: MobileViTConfig) -> tuple[int, ...]:
        """The seeds that the run asks for and that are recorded; where none is, the recorded ones from the lowest."""
        recorded = sorted(self._rows[config.digest()])
        wanted = range(self._first_seed, self._first_seed + self._seeds)
        return tuple(seed for seed in recorded if seed in wanted) or tuple(recorded[: self._seeds])

    def evaluate(self, config: MobileViTConfig, seed: int) -> Evaluation:
        """What was recorded; `seconds` too are the recorded ones."""
        row = self._rows.get(config.digest(), {}).get(seed)
        if row is None:
            return Evaluation(None, 0.0, f"the table has no training of it with seed {seed}")
        return Evaluation(row.top1, row.cpu_seconds, row.error or None)

    def nearest(self, config: MobileViTConfig, used: Collection[str]) -> MobileViTConfig | None:
        """The fitting recorded candidate nearest to `config` whose digest is not in `used`; None if there is none.

        Nearest in the space's parameters, each scaled to 0..1, and 1 apart where two categories differ. Of equals
        the first in the table.
        """
        free = [index for index, known in enumerate(self._fitting) if known.digest() not in used]
        if not free:
            return None
        distances = ((self._places[free] - self._place(config)) ** 2).sum(axis=1)
        return self._fitting[free[int(distances.argmin())]]

    def used_up(self, used: Collection[str]) -> bool:
        """Whether no fitting candidate is left."""
        return all(config.digest() in used for config in self._fitting)

    def _place(self, config: MobileViTConfig) -> list[float]:
        place: list[float] = []
        for key, value in self._space.params(config).items():
            values = self._space.dimensions[key]
            if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
                low, high = min(values), max(values)
                place.append((value - low) / (high - low))  # type: ignore[operator]
            else:
                # Two categories are 1 apart, as a square: half for the one that is left, half for the other.
                place += [0.5**0.5 if value == v else 0.0 for v in values]
        return place

    def _is_inside(self, config: MobileViTConfig) -> bool:
        try:
            self._space.params(config)
        except InputError as error:
            row = next(iter(self._rows[config.digest()].values()))
            if row.name:
                return False  # a preset stands beside the front from outside the space too
            rule = f"candidate {row.digest[:12]} lies outside space {self._space.name} ({error})"
            raise InputError("table", self._source, rule, "name the --space that the table was made from") from None
        return True


def load_replay(argument: str, space: SearchSpace, limits: Limits, *, seed: int, seeds: int) -> Replay:
    """The table of `FILE` or `FILE#FIDELITY`; without a fidelity the longest schedule is taken.

    Raises:
        InputError: a file that is no table, an unknown fidelity, several that are equally long, or as `Replay`.
    """
    name, _, fidelity = argument.partition("#")
    if Path(argument).is_file():
        name, fidelity = argument, ""
    # A row with a score in place of a training answers nothing here.
    rows = [row for row in read_table(Path(name).expanduser()) if row.top1 is not None or row.error]
    epochs: dict[str, int] = {}
    for row in rows:
        epochs[row.fidelity] = max(epochs.get(row.fidelity, 0), row.epochs)
    if not epochs:
        raise InputError("table", name, "holds no training")
    if fidelity:
        if fidelity not in epochs:
            raise InputError("table", argument, f"has no fidelity {fidelity!r}", f"it has {', '.join(sorted(epochs))}")
        return Replay(name, rows, fidelity, space, limits, seed=seed, seeds=seeds)
    longest = sorted(key for key, length in epochs.items() if length == max(epochs.values()))
    if len(longest) > 1:
        rule = f"has {len(longest)} fidelities of {max(epochs.values())} epochs: {', '.join(longest)}"
        raise InputError("table", name, rule, f"say which, for example {name}#{longest[0]}")
    return Replay(name, rows, longest[0], space, limits, seed=seed, seeds=seeds)


def _last_rows(rows: Iterable[TableRow], fidelity: str) -> dict[str, dict[int, TableRow]]:
    """digest -> seed -> the row that answers; of several for the same the last in the table."""
    found: dict[str, dict[int, TableRow]] = {}
    for row in rows:
        if row.fidelity == fidelity and (row.error or row.epoch == row.epochs):
            found.setdefault(row.digest, {})[row.seed] = row
    return found


def _digest(rows: Mapping[str, Mapping[int, TableRow]]) -> str:
    content = [
        (digest, seed, row.top1, row.error, row.cpu_seconds)
        for digest, by_seed in sorted(rows.items())
        for seed, row in sorted(by_seed.items())
    ]
    return hashlib.sha256(repr(content).encode()).hexdigest()
