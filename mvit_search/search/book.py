"""Every candidate's record in memory, and the figures that follow from them, kept up to date one record at a time."""

from collections import Counter
from collections.abc import Iterable, Mapping

from mvit_search.records import Front, Record
from mvit_search.records.record import Evaluated


class Book:
    """The records of a run, by number, by digest, and summed up.

    `reference` is the corner of the hypervolume's box; None where candidates are scored, which have no natural worst.

    Attributes:
        records: by number.
        front: of those at full fidelity.
        failures: how many candidates failed, by reason.
        proposed: candidates that count against the run's trials: all but those taken over from an earlier run.
        trainings, image_steps: what this run spent.
        valued_at, trained_at, seconds_at: by rung: valuations, those that this run trained, and their seconds.
        remembered: trainings that an earlier run had done.
    """

    def __init__(
        self, records: Iterable[Record], objectives: tuple[str, ...], reference: Mapping[str, float] | None,
        rungs: int = 1,
    ) -> None:  # fmt: skip
        self.records: list[Record] = []
        self.front = Front(objectives, reference)
        self._by_digest: dict[str, Record] = {}
        self.outcomes: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.succeeded = self.proposed = self.trainings = self.remembered = self.image_steps = 0
        self.valued_at, self.trained_at, self.seconds_at = [0] * rungs, [0] * rungs, [0.0] * rungs
        self._named: set[int] = set()
        for record in records:
            self.add(record)

    def __contains__(self, digest: str) -> bool:
        return digest in self._by_digest

    def get(self, digest: str) -> Record | None:
        """The record of a candidate, if there is one."""
        return self._by_digest.get(digest)

    def add(self, record: Record) -> None:
        """Enter a new candidate."""
        assert record.number == len(self.records)
        self.records.append(record)
        self._by_digest[record.digest] = record
        self.proposed += record.origin != "earlier"
        if record.name is not None:
            self._named.add(record.number)
        self._count(record, 1)
        for evaluated in record.evaluations:
            self._spend(evaluated)
        self.front.add(record)

    def update(self, record: Record) -> None:
        """Put a candidate's newer state in the place of the old one."""
        old = self.records[record.number]
        self._count(old, -1)
        self.records[record.number] = self._by_digest[record.digest] = record
        self._count(record, 1)
        for evaluated in record.evaluations[len(old.evaluations) :]:
            self._spend(evaluated)
        self.front.update(record)

    def _count(self, record: Record, by: int) -> None:
        self.outcomes[record.outcome] += by
        self.succeeded += by * record.succeeded
        if record.outcome == "failed":
            self.failures[record.failure or "error"] += by

    def _spend(self, evaluated: Evaluated) -> None:
        self.valued_at[evaluated.rung] += evaluated.value is not None
        if evaluated.remembered:
            self.remembered += 1
            return
        self.trainings += 1
        self.trained_at[evaluated.rung] += 1
        self.seconds_at[evaluated.rung] += evaluated.seconds
        self.image_steps += evaluated.image_steps

    def named(self) -> list[Record]:
        """The presets that were valued."""
        return [self.records[number] for number in sorted(self._named)]

    def full_training_s(self) -> float | None:
        """Mean seconds of a whole training, of the front's members; None before there is one."""
        members = [record for record in self.front.members if record.value_by_seed]
        seeds = sum(len(record.value_by_seed) for record in members)
        return sum(record.train_seconds for record in members) / seeds if seeds else None
