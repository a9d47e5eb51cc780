"""`ImageSet`, which every data source returns, and how a seeded choice among its images is made."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mvit_search.errors import InputError

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]

_MAX_HELD_OUT = 2000


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled square RGB images in memory.

    Attributes:
        name: as the user named the source.
        digest: sha256 over pixels, labels, class names and split; not over where the files lie.
        train_images, val_images: (N, image_size, image_size, 3), C-contiguous.
        train_labels, val_labels: (N,), indices into `class_names`.
        source: one sentence: where the images come from and how they were split.
    """

    name: str
    digest: str
    class_names: tuple[str, ...]
    train_images: Images
    train_labels: Labels
    val_images: Images
    val_labels: Labels
    image_size: int
    source: str

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


def image_set(
    name: str, class_names: Sequence[str], train: tuple[Images, Labels], val: tuple[Images, Labels], source: str
) -> ImageSet:
    """An `ImageSet` with its digest.

    Raises:
        InputError: fewer than two classes, or an empty side of the split.
    """
    if len(class_names) < 2:
        raise InputError("data", name, f"has one class alone ({', '.join(class_names)})", "two or more are needed")
    for side, (images, _) in (("training", train), ("held-out", val)):
        if not len(images):
            raise InputError("data", name, f"has no {side} image", "add images or another split")
    size = train[0].shape[1]
    digest = hashlib.sha256(json.dumps([list(class_names), size, len(train[0]), len(val[0])]).encode())
    for array in (*train, *val):
        digest.update(array.data)
    return ImageSet(name, digest.hexdigest(), tuple(class_names), *train, *val, size, source)


def held_out_limit(max_images: int | None) -> int | None:
    """How many held-out images go with a cap on training images: as many, but 2000 are enough to rank by."""
    return None if max_images is None else min(max_images, _MAX_HELD_OUT)


def balanced_choice(labels: Labels, limit: int | None, seed: int) -> NDArray[np.int64]:
    """Indices of at most `limit` items, evenly from all classes, in ascending order; all where `limit` is None.

    A class with fewer items than its share gives all it has, and the others fill up.
    """
    if limit is None or limit >= len(labels):
        return np.arange(len(labels))
    rank = np.empty(len(labels), dtype=np.int64)  # an item's place within its own shuffled class
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(len(labels))
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        rank[members] = np.arange(len(members))
    return np.sort(np.lexsort((shuffled, labels, rank))[:limit])


def split_by_class(labels: Labels, held_out: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(training, held-out) indices, ascending; the share `held_out` of every class, and at least one of each side.

    A class of one item trains only.
    """
    generator = np.random.default_rng(seed)
    val: list[NDArray[np.int64]] = []
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        count = min(max(1, round(held_out * len(members))), len(members) - 1)
        val.append(members[:count])
    val_indices = np.sort(np.concatenate(val))
    return np.setdiff1d(np.arange(len(labels)), val_indices), val_indices
