"""What a worker process does: load the data once, train one candidate at a time, stop when told."""

import multiprocessing
import os
import re
import signal
import threading
from dataclasses import dataclass
from pathlib import Path

from mvit_search.data import ImageSet, load_data
from mvit_search.errors import InputError, MvitSearchError
from mvit_search.proxy import Rung
from mvit_search.ranking.candidates import Candidate
from mvit_search.ranking.fidelity import Fidelity, subset
from mvit_search.records.table import TableRow


@dataclass(frozen=True)
class WorkerSettings:
    """What all trainings of a table share.

    Attributes:
        data: as `load_data` takes it.
        images: of the training side that are loaded; fidelities take their share of these.
        held_out: images that every training is scored on.
        threads: torch threads of a training.
    """

    data: str
    images: int | None = None
    held_out: int | None = None
    data_seed: int = 0
    device: str = "cpu"
    threads: int = 1


@dataclass(frozen=True)
class Outcome:
    """Rungs of a training so far, or its zero-cost score, or why there is none; and which images it saw."""

    rungs: tuple[Rung, ...]
    error: str = ""
    data: str = ""
    score: float | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Job:
    """One training: who, with which seed, how. A zero-cost score in place of a training where `zero_cost` names one."""

    candidate: Candidate
    seed: int
    fidelity: Fidelity
    zero_cost: str = ""

    @property
    def label(self) -> str:
        """The fidelity's name in the table."""
        return f"zero-cost:{self.zero_cost}" if self.zero_cost else self.fidelity.name

    @property
    def epochs(self) -> int:
        return 1 if self.zero_cost else self.fidelity.recipe.epochs

    @property
    def key(self) -> tuple[str, int, str]:
        return self.candidate.config.digest(), self.seed, self.label

    def checkpoint(self, folder: Path) -> Path:
        """Where the training is saved between chunks."""
        digest, seed, label = self.key
        name = re.sub(r"[^\w.+-]", "_", label)
        return folder / "checkpoints" / f"{digest[:16]}-{seed}-{name}.safetensors"

    def rows(self, outcome: Outcome) -> list[TableRow]:
        """The outcome as rows of the table."""
        if outcome.score is not None:
            return [self._row(outcome, Rung(0, 0.0, 0.0, 0, outcome.seconds, outcome.seconds), score=outcome.score)]
        rows = [self._row(outcome, rung) for rung in outcome.rungs]
        if outcome.error:
            last = outcome.rungs[-1] if outcome.rungs else Rung(0, 0.0, 0.0, 0, outcome.seconds, outcome.seconds)
            reached = Rung(min(last.epoch + 1, self.epochs), 0.0, 0.0, last.image_steps, last.seconds, last.cpu_seconds)
            rows.append(self._row(outcome, reached, error=outcome.error))
        return rows

    def _row(self, outcome: Outcome, rung: Rung, *, score: float | None = None, error: str = "") -> TableRow:
        trained = score is None and not error
        candidate = self.candidate
        return TableRow(
            name=candidate.name, digest=candidate.config.digest(), seed=self.seed,
            recipe="" if self.zero_cost else self.fidelity.recipe.digest()[:12], data=outcome.data[:12],
            fidelity=self.label, epoch=rung.epoch, epochs=self.epochs, top1=rung.top1 if trained else None,
            loss=round(rung.loss, 6) if trained else None, image_steps=rung.image_steps,
            cpu_seconds=round(rung.cpu_seconds, 3), params=candidate.params, macs=candidate.macs,
            latency_ms=round(candidate.latency_ms, 4), error=error, config=candidate.config, score=score,
        )  # fmt: skip


class _Worker:
    """This process's settings, and the images of its latest job: jobs come fidelity by fidelity."""

    def __init__(self, settings: WorkerSettings, folder: Path) -> None:
        self.settings, self.folder = settings, folder
        self._loaded: ImageSet | None = None
        self._subset: tuple[tuple[int, int], ImageSet] | None = None

    def data(self, side: int, images: int) -> ImageSet:
        """So many training images at that side; earlier ones are let go, for each is a copy of its pixels."""
        if self._subset is None or self._subset[0] != (side, images):
            self._subset = None
            settings = self.settings
            if self._loaded is None or self._loaded.image_size != side:
                self._loaded = None
                self._loaded = load_data(
                    settings.data, image_size=side, max_images=settings.images, seed=settings.data_seed
                )
            self._subset = (side, images), subset(self._loaded, images, settings.held_out, settings.data_seed)
        return self._subset[1]


_worker: _Worker | None = None  # one a process: what `prepare_worker` made


def prepare_worker(settings: WorkerSettings, folder: Path) -> None:
    """Called once in every worker process."""
    global _worker
    _worker = _Worker(settings, folder)
    # Ctrl-C reaches every process of a terminal. The driver passes it on by the stop file, so that epochs are saved.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """A killed driver's workers would train on, or wait for jobs for good, beside those of the next run."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def work(job: Job) -> Outcome:
    """Train, or carry on, one job, until it is finished or the folder's stop file is there."""
    assert _worker is not None
    data = _worker.data(job.fidelity.recipe.image_size, job.fidelity.images)  # what is wrong here is wrong for all
    try:
        return _scored(job, data, _worker.settings) if job.zero_cost else _trained(job, data, _worker)
    except (MvitSearchError, MemoryError, RuntimeError) as error:
        # RuntimeError is torch's. One candidate's failure is a row of the table, not the end of it.
        if "CUDA error" in str(error):
            os._exit(1)  # the process has lost its GPU and would fail every later job too: this one is tried once more
        return Outcome((), " ".join(str(error).split())[:500] or type(error).__name__, data.digest)


def _trained(job: Job, data: ImageSet, worker: _Worker) -> Outcome:
    checkpoint = job.checkpoint(worker.folder)
    try:
        return _trained_from(checkpoint, job, data, worker)
    except InputError as error:
        if error.field != "checkpoint":
            raise
    # Damaged, or of other data or another torch: it was there to save time, and is no reason to give the candidate up.
    checkpoint.unlink(missing_ok=True)
    return _trained_from(checkpoint, job, data, worker)


def _trained_from(checkpoint: Path, job: Job, data: ImageSet, worker: _Worker) -> Outcome:
    from mvit_search.proxy import train

    stop = worker.folder / "stop"
    result = train(
        job.candidate.config, data, job.fidelity.recipe, seed=job.seed, device=worker.settings.device,
        threads=worker.settings.threads, rungs=job.fidelity.rungs, checkpoint=checkpoint, stop=stop.exists,
    )  # fmt: skip
    return Outcome(result.rungs, "", data.digest)


def _scored(job: Job, data: ImageSet, settings: WorkerSettings) -> Outcome:
    from mvit_search.proxy.zero_cost import score

    scored = score(
        job.zero_cost, job.candidate.config, data, seed=job.seed, device=settings.device, threads=settings.threads
    )
    return Outcome((), "", data.digest, scored.value, scored.seconds)
