"""The images of each rung: their side, and a class-balanced share of the training images."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvit_search.data import ImageSet, load_data
from mvit_search.data._base import balanced_choice, digest_of
from mvit_search.errors import InputError
from mvit_search.proxy import Recipe
from mvit_search.search.ladder import Ladder

_MOST_KEPT = 2
_SHARE_SEED = 0  # of the choice within the data: it is then the data's alone, whichever seed a run has


@dataclass(frozen=True)
class DataSource:
    """What `load_data` is asked for; `fraction` and `max_images` are the user's, rungs take their shares of that."""

    spec: str
    max_images: int | None = None
    fraction: float | None = None
    seed: int = 0

    def load(self, side: int) -> ImageSet:
        """The images at that side, mapped from the cache where there is one.

        Raises:
            InputError: as in `load_data`.
        """
        return load_data(
            self.spec, image_size=side, max_images=self.max_images, fraction=self.fraction, seed=self.seed
        )  # fmt: skip


class RungData:
    """Loads the images of a rung when it is first asked for them; keeps those of the two latest rungs."""

    def __init__(self, source: DataSource, given: Iterable[ImageSet] = ()) -> None:
        """`given` are sides that are loaded already; they stay."""
        self._source = source
        self._given = {data.image_size: data for data in given}
        self._kept: dict[tuple[int, float], ImageSet] = {}  # the latest last

    def at(self, side: int, fraction: float = 1.0) -> ImageSet:
        """All held-out images, and that share of the training images, at that side.

        Raises:
            InputError: as in `load_data`.
        """
        key = (side, fraction)
        data = self._kept.pop(key, None)
        if data is None:
            while len(self._kept) >= _MOST_KEPT:
                del self._kept[next(iter(self._kept))]  # before another is loaded: a share is a copy of its pixels
            whole = self._given.get(side) or self._kept.get((side, 1.0)) or self._source.load(side)
            data = share_of(whole, fraction)
        self._kept[key] = data
        return data


def images_of(images: int, fraction: float, classes: int) -> int:
    """How many of so many training images a share is: one of every class at the least."""
    return min(images, max(classes, round(fraction * images)))


def share_of(data: ImageSet, fraction: float) -> ImageSet:
    """A class-balanced share of the training images, and all held-out ones; a smaller share is part of a larger."""
    count = images_of(len(data.train_images), fraction, data.num_classes)
    if count == len(data.train_images):
        return data
    chosen = balanced_choice(data.train_labels, count, _SHARE_SEED)
    train = np.ascontiguousarray(data.train_images[chosen]), data.train_labels[chosen]
    digest = digest_of(data.class_names, train, (data.val_images, data.val_labels))
    source = f"{data.source}; {count} of the training images"
    return replace(data, digest=digest, train_images=train[0], train_labels=train[1], source=source)


def plain(data: ImageSet) -> ImageSet:
    """The same over plain arrays: what is mapped from a file of this machine pickles as its bytes, without a copy."""
    return replace(
        data, train_images=_array(data.train_images), train_labels=_array(data.train_labels),
        val_images=_array(data.val_images), val_labels=_array(data.val_labels),
    )  # fmt: skip


def _array(array: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(np.asarray(array))


def require_climbable(data: ImageSet, recipe: Recipe, ladder: Ladder) -> None:
    """Refuse rungs that the recipe cannot be trained at; cheap, for checking before a search begins.

    Raises:
        InputError: a rung's share of the images is less than a batch, or the recipe does not allow a rung's side.
    """
    for index, rung in enumerate(ladder.rungs):
        own = ladder.recipe_of(index, recipe)
        needed = max([own.batch_size, *map(own.batch_at, own.scales)])
        count = images_of(len(data.train_images), rung.fraction, data.num_classes)
        if count < needed:
            rule = f"has {count} training images at that rung, fewer than a batch of {needed}"
            advice = "give it a larger share, or lower the recipe's batch_size (--recipe)"
            raise InputError("--rungs", str(rung), rule, advice)
