"""What a stopped or killed task leaves in the run's folder for the next time that it is tried."""

from pathlib import Path

from mvit_search.search.task import Task

FOLDER = "checkpoints"


class Leftovers:
    """The files of one candidate and seed: weights between rungs, and the training that was under way."""

    def __init__(self, run_folder: Path, task: Task) -> None:
        """Makes the folder. Raises OSError where it cannot."""
        self._folder = run_folder / FOLDER
        self._stem = f"{task.config.digest()[:16]}-{task.seed}-"
        self._keep = task.keep
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._keep is not None:
            self._keep.parent.mkdir(parents=True, exist_ok=True)

    def weights(self, rung: int) -> Path:
        """What a rung below the task's own leaves for the next."""
        return self._folder / f"{self._stem}{rung}.weights"

    def training(self, rung: int) -> Path:
        """A training under way."""
        return self._folder / f"{self._stem}{rung}.training"

    def sweep(self) -> None:
        """Remove temporary files of a writer that was killed."""
        torn = list(self._folder.glob(f".{self._stem}*"))
        if self._keep is not None:
            torn += self._keep.parent.glob(f".{self._keep.name}.*")
        for path in torn:
            path.unlink(missing_ok=True)

    def clear(self) -> None:
        """The task is done: remove everything."""
        self.sweep()
        for path in self._folder.glob(f"{self._stem}*"):
            path.unlink(missing_ok=True)
