"""A search over what a table recorded: accuracies are read, nothing is trained.

The table is a benchmark: a search that may only propose what it holds takes seconds, so that samplers and settings can
be compared over many seeds. How good its answers are is as good as the trainings in it.

A run with rungs is answered from the rows of one schedule on its way (`FILE#SCHEDULE`), or from complete schedules,
one a rung (`FILE#SHORT+LONGER+LONGEST`), which rank better (docs/proxies.md). Either way a rung costs what it adds to
the one below: a rung of a real run goes on from the weights below it.
"""

import hashlib
import itertools
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mvit_search.architecture import MobileViTConfig
from mvit_search.errors import InputError
from mvit_search.latency import Target
from mvit_search.records.table import TableRow, read_table
from mvit_search.search.ladder import DEFAULT_ETA, MOST_RUNGS, Ladder, Rung
from mvit_search.search.limits import Limits
from mvit_search.search.task import Evaluation, Failure, Task
from mvit_search.space import SearchSpace

_RUNGS = 4
"""Rungs that a ladder has where nobody says which, as `Ladder.halving`."""


class Step(NamedTuple):
    """Where a rung is answered from: the rows of one fidelity at one of its epochs."""

    fidelity: str
    epoch: int


class Replay:
    """The recorded candidates, as an `Evaluator` that looks them up.

    A candidate counts where a training of it, with one seed, was recorded at every rung, or up to the one that it
    failed at; what was left half-way would not compare.

    Attributes:
        ladder: the run's; one rung where there are no rungs.
        digest: sha256 over everything that is answered from, so that a run is not carried on with another table.
    """

    def __init__(
        self, source: str, rows: Iterable[TableRow], steps: tuple[Step, ...], space: SearchSpace, limits: Limits, *,
        seed: int, seeds: int, eta: int = DEFAULT_ETA, target: Target | None = None,
    ) -> None:  # fmt: skip
        """`steps` answer the rungs, the cheapest first. `target`: one that predicts, asked where latency is limited.

        Raises InputError for a candidate outside the space that is no preset, if none inside fits the limits, or if no
        training reached the last step.
        """
        self._source, self._space, self._first_seed, self._seeds = source, space, seed, seeds
        self.ladder = Ladder(tuple(Rung(step.epoch) for step in steps), eta)
        self._rows = _answers(rows, steps)
        if not any(row.top1 is not None for found in self._rows.values() for row in found.full.values()):
            rule = f"no training of {steps[-1].fidelity} reached its last epoch"
            if len(steps) > 1:
                rule = f"no candidate was trained at every rung ({', '.join(map(_words, steps))})"
            raise InputError("table", source, rule, "carry on what writes it, or name another fidelity")
        inside = [found.config for found in self._rows.values() if self._is_inside(found)]
        asked = target if limits.latency_ms is not None else None
        self._fitting = tuple(
            config
            for config in inside
            if not limits.excess(config, asked.latency(config, limits.num_classes).ms if asked else None)
        )
        if not self._fitting:
            rule = f"none of its {len(inside)} candidates inside space {space.name} is within the limits"
            raise InputError("table", source, rule, "raise --budget, or what else is limited")
        self._digests = tuple(config.digest() for config in self._fitting)
        self._axes = {key: _axis(values) for key, values in space.dimensions.items()}
        self._places = np.array([self._place(config) for config in self._fitting])
        self.digest = _digest(self._rows, steps)

    def knows(self, config: MobileViTConfig) -> bool:
        """Whether a training of it was recorded."""
        return config.digest() in self._rows

    def seeds(self, config: MobileViTConfig) -> tuple[int, ...]:
        """The seeds that the run asks for and that are recorded; where none is, the recorded ones from the lowest.

        The first has every rung. The others may have the last alone: finals ask for no other.
        """
        found = self._rows[config.digest()]
        wanted = range(self._first_seed, self._first_seed + self._seeds)
        climbed = [seed for seed in sorted(found.rungs) if seed in wanted]
        first = climbed[0] if climbed else min(found.rungs)
        rest = (seed for seed in sorted(found.full) if seed != first and (seed in wanted or not climbed))
        return (first, *rest)[: self._seeds]

    def evaluate(self, task: Task) -> Evaluation:
        """What was recorded at the task's rung; seconds and image steps less those of its `start_rung`.

        Whether there is a file to start from is not looked at: nothing here leaves any.
        """
        row = self._row(task, task.rung)
        if row is None:
            where = f" at {self.ladder.rungs[task.rung].epochs} epochs" if self.ladder.top else ""
            error = f"the table has no training of it with seed {task.seed}{where}"
            return Evaluation(None, 0.0, error, failure=Failure.OTHER)
        below = self._row(task, task.start_rung) if task.start_rung >= 0 else None
        seconds, steps = (below.cpu_seconds, below.image_steps) if below else (0.0, 0)
        return Evaluation(
            row.top1, max(0.0, row.cpu_seconds - seconds), row.error or None,
            image_steps=max(0, row.image_steps - steps), failure=Failure.OTHER if row.error else None,
        )  # fmt: skip

    def nearest(self, config: MobileViTConfig, used: Collection[str]) -> MobileViTConfig | None:
        """The fitting recorded candidate nearest to `config` whose digest is not in `used`; None if there is none.

        Nearest in the space's parameters, each scaled to 0..1, and 1 apart where two categories differ. Of equals
        the first in the table.
        """
        distances = ((self._places - self._place(config)) ** 2).sum(axis=1)
        order: list[int] = np.argsort(distances, kind="stable").tolist()
        for index in order:
            if self._digests[index] not in used:
                return self._fitting[index]
        return None

    def used_up(self, used: Collection[str]) -> bool:
        """Whether no fitting candidate is left."""
        return len(used) >= len(self._digests) and all(digest in used for digest in self._digests)

    def _row(self, task: Task, rung: int) -> TableRow | None:
        found = self._rows.get(task.config.digest())
        if found is None:
            return None
        if rung == self.ladder.top:
            return found.full.get(task.seed)
        climbed = found.rungs.get(task.seed, ())
        # Where it failed lower down, that is the answer further up too.
        return climbed[min(rung, len(climbed) - 1)] if climbed else None

    def _place(self, config: MobileViTConfig) -> list[float]:
        params = self._space.params(config)
        return [number for key, axis in self._axes.items() for number in axis[params[key]]]

    def _is_inside(self, found: "_Found") -> bool:
        try:
            self._space.params(found.config)
        except InputError as error:
            if found.name:
                return False  # a preset stands beside the front from outside the space too
            rule = f"candidate {found.config.digest()[:12]} lies outside space {self._space.name} ({error})"
            raise InputError("table", self._source, rule, "name the --space that the table was made from") from None
        return True


def load_replay(
    argument: str, space: SearchSpace, limits: Limits, *, seed: int, seeds: int, halving: bool = False,
    eta: int = DEFAULT_ETA, rungs: Ladder | None = None, target: Target | None = None,
) -> Replay:  # fmt: skip
    """The table of `FILE` or `FILE#FIDELITY`; without a fidelity the longest schedule is taken.

    With `halving`, `FILE#A+B+C` names a complete schedule a rung. Of one schedule, the rungs are those epochs of
    `rungs`; without them its end, and before that the epochs recorded on its way that are nearest below a share
    1/eta of the rung above.

    Raises:
        InputError: a file that is no table, an unknown fidelity, several that are equally long; rungs that the table
            does not hold, or several schedules without halving; or as `Replay`.
    """
    name, _, chosen = argument.partition("#")
    if Path(argument).is_file():
        name, chosen = argument, ""
    # A row with a score in place of a training answers nothing here.
    rows = [row for row in read_table(Path(name).expanduser()) if row.top1 is not None or row.error]
    steps = _Choice(name, _lengths(rows), _epochs(rows)).steps(chosen, halving=halving, eta=eta, asked=rungs)
    taken = eta if rungs is None else rungs.eta
    return Replay(name, rows, steps, space, limits, seed=seed, seeds=seeds, eta=taken, target=target)


class _Choice(NamedTuple):
    """Which rows answer: `lengths` has the epochs of each fidelity, `epochs` those of its rows."""

    name: str
    lengths: dict[str, int]
    epochs: dict[str, tuple[int, ...]]

    def steps(self, chosen: str, *, halving: bool, eta: int, asked: Ladder | None) -> tuple[Step, ...]:
        if not self.lengths:
            raise InputError("table", self.name, "holds no training")
        # A fidelity whose own name has a plus sign is one fidelity.
        named = [chosen] if chosen in self.lengths else chosen.split("+") if chosen else [self._longest()]
        for fidelity in named:
            if fidelity not in self.lengths:
                known = ", ".join(sorted(self.lengths))
                raise InputError("table", f"{self.name}#{chosen}", f"has no fidelity {fidelity!r}", f"it has {known}")
        if asked is not None and any(rung.image_size is not None or rung.fraction != 1 for rung in asked.rungs):
            raise InputError(
                "--rungs", asked.key(asked.top), "a table answers epochs alone", "leave sides and shares out"
            )
        if len(named) > 1:
            return self._of_several(named, chosen, halving=halving, asked=asked)
        if not halving:
            return (Step(named[0], self.lengths[named[0]]),)
        return self._of_one(named[0], eta, asked)

    def _longest(self) -> str:
        most = max(self.lengths.values())
        longest = sorted(key for key, length in self.lengths.items() if length == most)
        if len(longest) > 1:
            rule = f"has {len(longest)} fidelities of {most} epochs: {', '.join(longest)}"
            raise InputError("table", self.name, rule, f"say which, for example {self.name}#{longest[0]}")
        return longest[0]

    def _of_several(self, named: list[str], chosen: str, *, halving: bool, asked: Ladder | None) -> tuple[Step, ...]:
        shown = f"{self.name}#{chosen}"
        if not halving:
            raise InputError("table", shown, "names several fidelities: they are rungs", "add --fidelity halving")
        steps = tuple(Step(fidelity, self.lengths[fidelity]) for fidelity in named)
        lengths = [step.epoch for step in steps]
        if any(low >= high for low, high in itertools.pairwise(lengths)) or len(steps) > MOST_RUNGS:
            rule = f"its schedules are of {', '.join(map(str, lengths))} epochs"
            raise InputError("table", shown, rule, f"name up to {MOST_RUNGS}, each longer than the one before")
        if asked is not None and lengths != [rung.epochs for rung in asked.rungs]:
            rule = f"the schedules named have {','.join(map(str, lengths))} epochs"
            raise InputError("--rungs", asked.key(asked.top), rule, "leave --rungs out")
        return steps

    def _of_one(self, fidelity: str, eta: int, asked: Ladder | None) -> tuple[Step, ...]:
        recorded, length = self.epochs[fidelity], self.lengths[fidelity]
        if asked is not None:
            wanted = [rung.epochs for rung in asked.rungs]
            if wanted[-1] != length or not {*wanted} <= {*recorded}:
                rule = f"{self.name} has {fidelity} after {', '.join(map(str, recorded))} epochs"
                raise InputError("--rungs", asked.key(asked.top), rule, f"name some of these, {length} the last")
            return tuple(Step(fidelity, epochs) for epochs in wanted)
        taken = [length]
        while len(taken) < _RUNGS and (lower := [epoch for epoch in recorded if epoch * eta <= taken[-1]]):
            taken.append(max(lower))
        if len(taken) < 2:
            rule = f"has no epoch of {fidelity} that could be a rung below {length} with eta {eta}"
            advice = "name complete schedules as #SHORT+LONG, or give --rungs or --fidelity full"
            raise InputError("table", self.name, rule, advice)
        return tuple(Step(fidelity, epochs) for epochs in reversed(taken))


class _Found(NamedTuple):
    """What answers for a candidate.

    Attributes:
        rungs: seed -> its rows from the lowest rung, up to the top or the one that it failed at.
        full: seed -> its row at the top, or where it failed.
    """

    config: MobileViTConfig
    name: str
    rungs: dict[int, tuple[TableRow, ...]]
    full: dict[int, TableRow]


def _lengths(rows: Iterable[TableRow]) -> dict[str, int]:
    lengths: dict[str, int] = {}
    for row in rows:
        lengths[row.fidelity] = max(lengths.get(row.fidelity, 0), row.epochs)
    return lengths


def _epochs(rows: Iterable[TableRow]) -> dict[str, tuple[int, ...]]:
    epochs: dict[str, set[int]] = {}
    for row in rows:
        epochs.setdefault(row.fidelity, set()).update([] if row.error else [row.epoch])
    return {fidelity: tuple(sorted(found)) for fidelity, found in epochs.items()}


def _answers(rows: Iterable[TableRow], steps: tuple[Step, ...]) -> dict[str, _Found]:
    """By digest, in the table's order. A candidate without a seed that has every rung answers nothing."""
    at: dict[str, dict[int, dict[int, TableRow]]] = {}  # digest -> seed -> rung -> row
    for row in rows:
        for rung, step in enumerate(steps):
            if row.fidelity == step.fidelity and (row.error or (row.epoch == step.epoch)):
                by_rung = at.setdefault(row.digest, {}).setdefault(row.seed, {})
                # A failed training answers the rungs that it had passed too; else, of two for the same the last counts.
                passed = row.error and step.epoch <= row.epoch and step.epoch < row.epochs
                by_rung[rung] = by_rung.get(rung, row) if passed else row
    found = {}
    for digest, by_seed in at.items():
        rungs = {seed: climbed for seed, known in by_seed.items() if (climbed := _climbed(known, len(steps)))}
        if rungs:
            full = {seed: climbed[-1] for seed, climbed in rungs.items()}
            full |= {seed: known[len(steps) - 1] for seed, known in by_seed.items() if len(steps) - 1 in known}
            first = next(iter(rungs.values()))[0]
            found[digest] = _Found(first.config, first.name, rungs, full)
    return found


def _climbed(by_rung: dict[int, TableRow], rungs: int) -> tuple[TableRow, ...]:
    """The rows from the lowest rung to the top or to a failure; none where one is missing."""
    climbed: list[TableRow] = []
    for rung in range(rungs):
        if rung not in by_rung:
            return ()
        climbed.append(by_rung[rung])
        if by_rung[rung].error:
            break
    return tuple(climbed)


def _axis(values: tuple[object, ...]) -> dict[object, tuple[float, ...]]:
    """Where each value of a dimension lies."""
    numbers = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if len(numbers) == len(values):
        low, high = min(numbers), max(numbers)
        return {value: ((value - low) / (high - low),) for value in numbers}
    # Two categories are 1 apart, as a square: half for the one that is left, half for the other.
    return {value: tuple(0.5**0.5 if value == other else 0.0 for other in values) for value in values}


def _words(step: Step) -> str:
    return f"{step.fidelity} after {step.epoch}"


def _digest(found: dict[str, _Found], steps: tuple[Step, ...]) -> str:
    content = [
        (digest, seed, *((row.top1, row.error, row.cpu_seconds, row.image_steps) for row in rows))
        for digest, one in sorted(found.items())
        for seed, rows in sorted({**{seed: (row,) for seed, row in one.full.items()}, **one.rungs}.items())
    ]
    return hashlib.sha256(repr((steps, content)).encode()).hexdigest()
