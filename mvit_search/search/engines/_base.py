"""The seam between the driver and whatever works for it: tasks go in, evaluations come out, in any order."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from mvit_search.search.task import Evaluation, Evaluator, Task

RETRIES = 2
"""How often a task whose worker died is tried again; then it is a candidate that failed."""


class Finished(NamedTuple):
    """A task that came back."""

    task: Task
    evaluation: Evaluation


EvaluatorFactory = Callable[[], Evaluator]
"""Makes what a worker values candidates with, in the worker; pickled to it. Loads the data once."""


class EngineSettings(NamedTuple):
    """What an engine is opened with.

    Attributes:
        make: see `EvaluatorFactory`.
        folder: the run's; stop files and checkpoints live there.
        workers: tasks at once; None lets the engine choose.
        threads: torch threads of each worker, so that they do not fight over cores.
        device: `cpu`, `cuda`, `cuda:N`, `mps`; with `cuda` and several GPUs each worker gets its own in turn.
        address: of a Ray cluster; None starts one on this machine.
        notice: says a line to whoever watches the run (a worker died, a node came or went).
    """

    make: EvaluatorFactory
    folder: Path
    workers: int | None = None
    threads: int = 1
    device: str = "cpu"
    address: str | None = None
    notice: Callable[[str], None] = print


class Engine(Protocol):
    """Runs tasks, some at once.

    A task whose worker or node dies is tried again, `RETRIES` times, and healthy ones are left alone; after that its
    evaluation has `Failure.WORKER`. Weights files of tasks (`start`, `keep`) lie on the driver's machine: an engine
    whose workers are elsewhere carries them.
    """

    @property
    def capacity(self) -> int:
        """Tasks that can run at once now; it may change while the run goes on, and be 0 for a while."""

    @property
    def running(self) -> int:
        """Tasks submitted and not yet handed back."""

    def submit(self, task: Task) -> None:
        """Begin a task; returns at once, but for an engine that works in this process."""

    def wait(self, timeout_s: float | None) -> list[Finished]:
        """What came back, one at the least unless the time is up; None waits for ever.

        Raises:
            WorkError: there is nobody left to work, and none will come.
        """

    def stop(self) -> None:
        """Ask what runs to end early; it comes back as `stopped`. Called once, before `close`."""

    def close(self) -> None:
        """Let go of workers at once; what they were at is lost. Safe to call twice, and after an error."""
