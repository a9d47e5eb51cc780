"""What a running search tells whoever watches it."""

from typing import NamedTuple, Protocol

from mvit_search.records import Record


class RungProgress(NamedTuple):
    """One rung of the ladder: its name (`3@32`), candidates valued there, and how many are under way to it."""

    name: str
    valued: int
    under_way: int


class Progress(NamedTuple):
    """A snapshot. `remaining_s` is an estimate from the trainings so far (estimate.py); None before the first.

    Attributes:
        phase: `search`, `finals` or `done`.
        begun: candidates begun, of `trials`, those under way included; what was taken over from an earlier run not.
        trained: candidates trained, or scored where the run trains none, at full fidelity.
        stopped: candidates valued at lower rungs alone.
        failures: how many failed, by reason.
        rejected, duplicates: proposals over a limit, or of candidates that were known.
        remembered: trainings taken from earlier runs.
        finals: (trainings done, trainings planned) of the final re-training.
        rungs: one where there is no halving.
        workers: (busy, at hand); more tasks may be under way than workers are busy, where one has just gone.
        hypervolume: share of the reference box that the front dominates, 0..1; None where candidates are scored.
        history: the hypervolume from the first point of the front until now, evenly over the seconds between; at most
            40 values.
        best: the most accurate, or the highest scored, candidate so far.
    """

    phase: str
    begun: int
    trained: int
    trials: int
    stopped: int
    failed: int
    failures: dict[str, int]
    rejected: int
    duplicates: int
    remembered: int
    finals: tuple[int, int]
    rungs: tuple[RungProgress, ...]
    workers: tuple[int, int]
    best: Record | None
    hypervolume: float | None
    history: tuple[float, ...]
    elapsed_s: float
    remaining_s: float | None


class Observer(Protocol):
    """Is told of each step. `record` is the candidate that the step finished, if it did."""

    def update(self, progress: Progress, record: Record | None) -> None: ...

    def notice(self, words: str) -> None:
        """What holds the run up, or no longer does, until the next `update`; or what happened beside it."""


class Silent:
    """An observer that looks away."""

    def update(self, progress: Progress, record: Record | None) -> None:
        return None

    def notice(self, words: str) -> None:
        return None
