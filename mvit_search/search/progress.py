"""What a running search tells whoever watches it."""

from typing import NamedTuple, Protocol

from mvit_search.records import Record


class Progress(NamedTuple):
    """A snapshot. `remaining_s` is an estimate from the trainings so far; None before the first.

    Attributes:
        phase: `search`, `finals` or `done`.
        finals: (trainings done, trainings planned) of the final re-training.
        trained: candidates trained, or scored where the run trains none.
        hypervolume: share of the reference box that the front dominates, 0..1; None where candidates are scored.
        best: the most accurate, or the highest scored, candidate so far.
    """

    phase: str
    trained: int
    trials: int
    failed: int
    rejected: int
    duplicates: int
    finals: tuple[int, int]
    best: Record | None
    hypervolume: float | None
    elapsed_s: float
    remaining_s: float | None


class Observer(Protocol):
    """Is told of each step. `record` is the candidate that the step finished, if it did."""

    def update(self, progress: Progress, record: Record | None) -> None: ...

    def notice(self, words: str) -> None:
        """What holds the run up, or no longer does, until the next `update`."""


class Silent:
    """An observer that looks away."""

    def update(self, progress: Progress, record: Record | None) -> None:
        return None

    def notice(self, words: str) -> None:
        return None
