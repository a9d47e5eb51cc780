"""What a worker is asked for, and what it answers. Both are pickled to other processes and machines."""

from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, Protocol

from mvit_search.architecture import MobileViTConfig


class Task(NamedTuple):
    """A candidate to value, with one seed, at one rung of the run's ladder.

    Attributes:
        rung: index into the ladder, 0 the cheapest; the top one is the full fidelity.
        start: file with the weights that rung `start_rung` left. None, or a file that is gone: all rungs from 0 are
            trained again.
        keep: file that the weights go to, where a higher rung may want to go on from them.
    """

    config: MobileViTConfig
    seed: int
    rung: int = 0
    start_rung: int = -1
    start: Path | None = None
    keep: Path | None = None


class Failure(StrEnum):
    """Why a candidate has no value."""

    DIVERGED = "diverged"
    MEMORY = "out of memory"
    LATENCY = "no latency"
    LIMIT = "over a limit"
    WORKER = "worker died"
    OTHER = "error"


class Evaluation(NamedTuple):
    """One candidate with one seed at one rung: its value, or why there is none; and what it took.

    Attributes:
        value: held-out top-1 (0..1) of a training; where the run's proxy is a zero-cost score, that score.
        seconds: by the clock, of the rungs that were trained for it.
        largest_batch: images that fitted in memory at once, where a whole batch did not; else None.
        image_steps: training images that it saw now, an image counted each time.
        stopped: it was told to stop before it was done: there is nothing to record.
        remembered: it was not trained now, but by an earlier run; `seconds` and `image_steps` are that training's.
    """

    value: float | None
    seconds: float
    error: str | None = None
    largest_batch: int | None = None
    image_steps: int = 0
    failure: Failure | None = None
    stopped: bool = False
    remembered: bool = False


class Evaluator(Protocol):
    """Values a candidate with a seed. A candidate that fails is an `Evaluation` with `error`, not an exception."""

    def evaluate(self, task: Task) -> Evaluation: ...
