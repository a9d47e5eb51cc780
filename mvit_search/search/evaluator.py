"""Evaluators: what values a task. One trains along the ladder, one scores untrained networks."""

import hashlib
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mvit_search.architecture import MobileViTConfig
from mvit_search.data import ImageSet
from mvit_search.errors import InputError, MvitSearchError, OutOfMemory, TrainingDiverged
from mvit_search.proxy import Recipe
from mvit_search.search.ladder import Ladder
from mvit_search.search.leftovers import Leftovers
from mvit_search.search.rung_data import RungData
from mvit_search.search.task import Evaluation, Evaluator, Failure, Task

if TYPE_CHECKING:
    from mvit_search.proxy import ProxyResult
    from mvit_search.proxy.kept_weights import KeptWeights

__all__ = ["Evaluation", "Evaluator", "LadderTrainer", "ZeroCostEvaluator", "rung_seed"]

SAVE_EVERY_S = 120.0
"""Seconds of a training that a killed worker loses at most, but for the epoch it was in."""

RelativeSize = Callable[[MobileViTConfig], float]
Stop = Callable[[], bool]


def rung_seed(seed: int, rung: int) -> int:
    """What orders and crops the images at a rung: the task's seed at the lowest, so that it is a plain training.

    Another one at each rung above, which would otherwise show the same views in the same order once more.
    """
    if rung == 0:
        return seed
    return int.from_bytes(hashlib.sha256(f"rung {rung} of seed {seed}".encode()).digest()[:4]) >> 1


class LadderTrainer:
    """Trains the rungs that a task asks for, one after the other, in this process.

    Each rung is a complete schedule on its side and share of the images, from the weights that the rung below left.
    On the CPU the value depends on candidate, seed, rung, data, recipe, ladder, threads and torch alone: not on which
    rungs were trained in which task, nor on whether it was stopped and carried on.

    `relative_size` is a candidate's resolution over the largest of the space: one of half sees images of half the
    recipe's side, so that what resolution costs in accuracy is seen as well as what it saves in latency.
    """

    def __init__(
        self, data: RungData, recipe: Recipe, ladder: Ladder, folder: Path, *, relative_size: RelativeSize,
        device: str = "cpu", threads: int = 1, stop: Stop | None = None, save_every_s: float = SAVE_EVERY_S,
    ) -> None:  # fmt: skip
        """Trains nothing yet.

        Args:
            folder: the run's; what a stopped training leaves for later goes to its `checkpoints`.
            stop: asked between epochs; once it says so the training is saved, and its evaluation is `stopped`.
            save_every_s: how often a long training is saved.
        """
        self.data, self.recipe, self.ladder, self.folder = data, recipe, ladder, folder
        self.relative_size, self.device, self.threads = relative_size, device, threads
        self.stop, self.save_every_s = stop, save_every_s

    def evaluate(self, task: Task) -> Evaluation:
        """Train and score; what fails here is the candidate.

        Raises:
            InputError: the data cannot be loaded any more, or are too few for the recipe: wrong for all candidates.
            OSError: a file cannot be written, for want of space or leave.
            RuntimeError: the process has lost its GPU.
        """
        return _Climb(self, task).run()


class _Climb:
    """One task under way, and what was spent on it."""

    def __init__(self, trainer: LadderTrainer, task: Task) -> None:
        self._trainer, self._task = trainer, task
        self._leftovers = Leftovers(trainer.folder, task)
        self._seconds, self._image_steps = 0.0, 0
        self._largest_batch: int | None = None

    def run(self) -> Evaluation:
        self._leftovers.sweep()
        top1 = None
        first, weights = self._start()
        for rung in range(first, self._task.rung + 1):
            data = self._data(rung)
            if not self._left_by(rung, data):
                if self._trainer.stop is not None and self._trainer.stop():
                    return self._evaluation(None)._replace(stopped=True)
                result = self._trained(rung, data, weights)
                if isinstance(result, Evaluation):
                    return result
                top1 = result.top1
            weights = self._leftovers.weights(rung)
        self._leftovers.clear()
        return self._evaluation(top1)

    def _start(self) -> tuple[int, Path | None]:
        """The rung to begin at, and the weights to begin it with."""
        task = self._task
        if task.start is None or not 0 <= task.start_rung < task.rung:
            return 0, None
        first = task.start_rung + 1
        if _weights(task.start, task.config, self._data(first)) is None:
            return 0, None
        return first, task.start

    def _data(self, rung: int) -> ImageSet:
        side = self._recipe(rung).image_size
        return self._trainer.data.at(side, self._trainer.ladder.rungs[rung].fraction)

    def _recipe(self, rung: int) -> Recipe:
        return self._trainer.ladder.recipe_of(rung, self._trainer.recipe)

    def _left_by(self, rung: int, data: ImageSet) -> bool:
        """Whether an earlier try at this task finished the rung; its cost is then counted."""
        left = None
        if rung < self._task.rung:
            left = _weights(self._leftovers.weights(rung), self._task.config, data)
        if left is None:
            return False
        self._seconds += left.seconds
        self._image_steps += left.image_steps
        return True

    def _trained(self, rung: int, data: ImageSet, weights: Path | None) -> "ProxyResult | Evaluation":
        """One rung, its cost counted; or the end of the task: it failed, or was stopped."""
        recipe, began = self._recipe(rung), time.perf_counter()
        epochs = 0

        def count(epoch: int, loss: float) -> None:
            nonlocal epochs
            epochs = epoch

        try:
            with _quiet_about_shared_arrays():
                result = self._train(rung, data, recipe, weights, count)
        except (MvitSearchError, MemoryError, RuntimeError) as error:
            # RuntimeError is torch's: an operator that cannot run. One candidate's, not the run's.
            if _everyones(error):
                raise
            self._leftovers.clear()
            self._seconds += time.perf_counter() - began
            self._image_steps += epochs * _images_per_epoch(data, recipe)
            return self._evaluation(None)._replace(error=_words(error), failure=_failure(error))
        if not result.rungs or result.epochs < recipe.epochs:
            return self._evaluation(None)._replace(stopped=True)
        self._seconds += result.seconds
        self._image_steps += result.rungs[-1].image_steps
        if result.largest_batch < recipe.batch_size:
            self._largest_batch = min(result.largest_batch, self._largest_batch or recipe.batch_size)
        return result

    def _train(
        self, rung: int, data: ImageSet, recipe: Recipe, weights: Path | None, on_epoch: Callable[[int, float], None]
    ) -> "ProxyResult":
        from mvit_search import proxy

        trainer, task = self._trainer, self._task
        checkpoint = self._leftovers.training(rung)
        keep = task.keep if rung == task.rung else self._leftovers.weights(rung)
        for last_try in (False, True):
            try:
                return proxy.train(
                    task.config, data, recipe, seed=rung_seed(task.seed, rung), device=trainer.device,
                    threads=trainer.threads, share=trainer.relative_size(task.config), checkpoint=checkpoint,
                    save_every_s=trainer.save_every_s, stop=trainer.stop, on_epoch=on_epoch, first_weights=weights,
                    keep_weights=keep,
                )  # fmt: skip
            except InputError as error:
                if error.field != "checkpoint" or last_try:
                    raise
            # Damaged, or of another torch: it was there to save time, and is no reason to give the candidate up.
            checkpoint.unlink(missing_ok=True)
        raise AssertionError

    def _evaluation(self, value: float | None) -> Evaluation:
        return Evaluation(
            value, self._seconds, largest_batch=self._largest_batch, image_steps=self._image_steps
        )  # fmt: skip


class ZeroCostEvaluator:
    """Scores untrained networks in this process; a score knows no rungs."""

    def __init__(
        self, name: str, data: ImageSet, *, relative_size: RelativeSize, device: str = "cpu", threads: int = 1
    ) -> None:
        self.name, self.data, self.device, self.threads = name, data, device, threads
        self.relative_size = relative_size

    def evaluate(self, task: Task) -> Evaluation:
        """The score; a network that cannot be scored is a failure.

        Raises:
            InputError: too few images.
        """
        from mvit_search.proxy.zero_cost import score

        start = time.perf_counter()
        try:
            with _quiet_about_shared_arrays():
                found = score(
                    self.name, task.config, self.data, seed=task.seed, device=self.device, threads=self.threads,
                    share=self.relative_size(task.config),
                )  # fmt: skip
        except MvitSearchError as error:
            if _everyones(error):
                raise
            return Evaluation(None, time.perf_counter() - start, _words(error), failure=_failure(error))
        return Evaluation(found.value, found.seconds)


def _weights(path: Path, config: MobileViTConfig, data: ImageSet) -> "KeptWeights | None":
    """Weights that are there, whole, and of this network; else None."""
    from mvit_search.proxy.kept_weights import read_weights

    try:
        return read_weights(path, config, data.num_classes)
    except InputError:
        return None


def _everyones(error: Exception) -> bool:
    """Whether every other candidate would fail likewise: unusable data, or a process that has lost its GPU."""
    return "CUDA error" in str(error) or (isinstance(error, InputError) and error.field == "data")


def _failure(error: Exception) -> Failure:
    if isinstance(error, TrainingDiverged):
        return Failure.DIVERGED
    return Failure.MEMORY if isinstance(error, (OutOfMemory, MemoryError)) else Failure.OTHER


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__


def _images_per_epoch(data: ImageSet, recipe: Recipe) -> int:
    count = len(data.train_images)
    return count if recipe.scales else count // recipe.batch_size * recipe.batch_size


@contextmanager
def _quiet_about_shared_arrays() -> Iterator[None]:
    """Arrays in Ray's object store are read-only, of which torch warns; nothing here writes to images."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable", category=UserWarning)
        yield
