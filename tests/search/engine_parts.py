"""Evaluators for the tests of engines: scripted by seed, pickled to workers, which write down what they do."""

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from mvit_search.architecture import preset
from mvit_search.errors import InputError
from mvit_search.search.task import Evaluation, Failure, Task

CONFIG = preset("mobilevit-xxs")
PATIENCE_S = 60.0


def task(seed: int, **more) -> Task:
    return Task(CONFIG, seed, **more)


def lines(diary: Path) -> list[list[str]]:
    """What workers wrote: `made PID`, `began SEED PID THREADS GPU`."""
    return [line.split(" ") for line in diary.read_text().splitlines()] if diary.exists() else []


def began(diary: Path, seed: int) -> int:
    return sum(line[:2] == ["began", str(seed)] for line in lines(diary))


def pids(diary: Path) -> set[int]:
    return {int(line[1]) for line in lines(diary) if line[0] == "made"}


def eventually(holds) -> bool:
    """Whether it comes to hold, within a patience that no test should need."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def alive(pid: int) -> bool:
    """Whether a process, or a thread of it, still runs: until the last has ended its files stay open."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z" or len(os.listdir(f"/proc/{pid}/task")) > 1
    except (FileNotFoundError, ProcessLookupError):
        return False


def write(diary: Path, *words: object) -> None:
    with diary.open("a") as file:  # appended in one write, whole
        file.write(" ".join(map(str, words)) + "\n")


@dataclass(frozen=True)
class Script:
    """Factory and evaluator. Each field names seeds and what becomes of them; others are valued at once.

    Attributes:
        deaths: how often the worker kills itself at that seed.
        meets: ends once each of these seeds was begun so often.
        lingers: works until there is a file `go`, or the run's stop file.
    """

    folder: Path
    fails: tuple[int, ...] = ()
    raises: tuple[int, ...] = ()
    lingers: tuple[int, ...] = ()
    deaths: dict[int, int] = field(default_factory=dict)
    meets: dict[int, dict[int, int]] = field(default_factory=dict)

    @property
    def diary(self) -> Path:
        return self.folder / "diary"

    def __call__(self) -> "Script":
        write(self.diary, "made", os.getpid())
        return self

    def evaluate(self, task: Task) -> Evaluation:
        seed, gpu = task.seed, os.environ.get("CUDA_VISIBLE_DEVICES", "")
        write(self.diary, "began", seed, os.getpid(), os.environ.get("OMP_NUM_THREADS", ""), gpu)
        if began(self.diary, seed) <= self.deaths.get(seed, 0):
            os.kill(os.getpid(), signal.SIGKILL)
        if seed in self.fails:
            return Evaluation(None, 1.0, error="loss is nan in epoch 1", failure=Failure.DIVERGED)
        if seed in self.raises:
            raise ValueError(f"seed {seed}")
        for other, times in self.meets.get(seed, {}).items():
            if not eventually(lambda other=other, times=times: began(self.diary, other) >= times):
                return Evaluation(None, 1.0, error=f"nobody began {other}")
        if seed in self.lingers:
            eventually(lambda: (self.folder / "go").exists() or (self.folder / "stop").exists())
            if (self.folder / "stop").exists():
                return Evaluation(None, 1.0, stopped=True)
        if task.keep is not None:
            given = task.start.read_bytes() if task.start is not None and task.start.exists() else b"nothing"
            task.keep.write_bytes(given + b">%d" % seed)
        return Evaluation(value_of(seed), 1.0, image_steps=seed)


def value_of(seed: int) -> float:
    return seed / 1000


def no_data() -> Script:
    raise InputError("--data", "nowhere", "no such folder")


def dies() -> Script:
    os._exit(3)


@dataclass(frozen=True)
class OneAtATime:
    """As `Script`, but every process that starts after the first dies."""

    script: Script

    def __call__(self) -> Script:
        try:
            (self.script.folder / "first").touch(exist_ok=False)
        except FileExistsError:
            os._exit(3)
        return self.script()
