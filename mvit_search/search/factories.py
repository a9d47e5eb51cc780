"""What is pickled to a worker so that it can make its evaluator there."""

from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any
from weakref import finalize

from mvit_search.data import ImageSet
from mvit_search.proxy import Recipe
from mvit_search.search.evaluator import LadderTrainer, RelativeSize, Stop, ZeroCostEvaluator
from mvit_search.search.ladder import Ladder
from mvit_search.search.rung_data import DataSource, RungData, plain

STOP_FILE = "stop"
"""In the run's folder: workers end their training after the epoch once it is there."""


@dataclass(frozen=True)
class TrainerFactory:
    """Makes a `LadderTrainer`, here or in a worker.

    Attributes:
        relative_size: of a config; `SearchSpace.relative_size` pickles with its space.
        folder: the run's. A worker that does not see it, on another machine, uses a temporary one.
        data: images that this process has loaded. They are not pickled: a worker loads its own, and has the same
            pages of the cache.
        shipped: for workers that cannot: the images of every side of the ladder are pickled as plain arrays.
        stop: asked in this process; a worker looks for `STOP_FILE`.
    """

    source: DataSource
    recipe: Recipe
    ladder: Ladder
    relative_size: RelativeSize
    folder: Path
    device: str = "cpu"
    threads: int = 1
    data: tuple[ImageSet, ...] = ()
    shipped: bool = False
    stop: Stop | None = None

    def __call__(self) -> LadderTrainer:
        """Loads the images of the full fidelity, so that what is wrong with them is told at once.

        Raises:
            InputError: as in `load_data`.
        """
        seen = self.folder.is_dir()
        folder = self.folder if seen else Path(mkdtemp(prefix="mvit-search-"))
        images = RungData(self.source, self.data)
        images.at(self.ladder.recipe_of(self.ladder.top, self.recipe).image_size)
        trainer = LadderTrainer(
            images, self.recipe, self.ladder, folder, relative_size=self.relative_size, device=self.device,
            threads=self.threads, stop=self.stop or (folder / STOP_FILE).exists,
        )  # fmt: skip
        if not seen:
            finalize(trainer, rmtree, folder, ignore_errors=True)
        return trainer

    def __getstate__(self) -> dict[str, Any]:
        sides = {self.ladder.recipe_of(rung, self.recipe).image_size for rung in range(len(self.ladder.rungs))}
        return {**vars(self), "stop": None, "data": _carried(self.source, self.data, sides if self.shipped else set())}


@dataclass(frozen=True)
class ScorerFactory:
    """Makes a `ZeroCostEvaluator`; fields as in `TrainerFactory`.

    Attributes:
        name: of the score.
        side: of the images, in pixels.
    """

    name: str
    source: DataSource
    side: int
    relative_size: RelativeSize
    device: str = "cpu"
    threads: int = 1
    data: tuple[ImageSet, ...] = ()
    shipped: bool = False

    def __call__(self) -> ZeroCostEvaluator:
        """Loads the images. Raises InputError as in `load_data`."""
        images = RungData(self.source, self.data).at(self.side)
        return ZeroCostEvaluator(
            self.name, images, relative_size=self.relative_size, device=self.device, threads=self.threads
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "data": _carried(self.source, self.data, {self.side} if self.shipped else set())}


def _carried(source: DataSource, loaded: tuple[ImageSet, ...], sides: set[int]) -> tuple[ImageSet, ...]:
    images = RungData(source, loaded)
    return tuple(plain(images.at(side)) for side in sorted(sides))
