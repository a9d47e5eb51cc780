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
_MAX_BYTES = 2 * 2**30  # of pixels that are not cached: a laptop must hold them next to the training


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled square RGB images, in memory or mapped from the cache.

    Attributes:
        name: as the user named the source.
        digest: sha256 over pixels, labels, class names and split; not over where the files lie.
        train_images, val_images: (N, image_size, image_size, 3), C-contiguous.
        train_labels, val_labels: (N,), indices into `class_names`.
        source: one sentence: where the images come from and how they were split.
        skipped: chosen pictures that could not be read, each with the reason.
        not_cached: why the images are in memory although a cache was asked for; empty if they are not.
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
    skipped: tuple[str, ...] = ()
    not_cached: str = ""

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


def image_set(
    name: str, class_names: Sequence[str], train: tuple[Images, Labels], val: tuple[Images, Labels], source: str
) -> ImageSet:
    """An `ImageSet` with its digest; `source` also says how many held-out images are copies, if any.

    Raises:
        InputError: fewer than two classes, an empty side of the split, or held-out images that are all copies.
    """
    if len(class_names) < 2:
        raise InputError("data", name, f"has one class alone ({', '.join(class_names)})", "two or more are needed")
    for side, (images, _) in (("training", train), ("held-out", val)):
        if not len(images):
            raise InputError("data", name, f"has no {side} image", "add images or another split")
    copies = copies_held_out(name, train[0], val[0])
    digest = digest_of(class_names, train, val)
    return ImageSet(name, digest, tuple(class_names), *train, *val, train[0].shape[1], source + copies_said(copies))


def digest_of(class_names: Sequence[str], train: tuple[Images, Labels], val: tuple[Images, Labels]) -> str:
    """sha256 over class names, pixels and labels of both sides."""
    size = train[0].shape[1]
    digest = hashlib.sha256(json.dumps([list(class_names), size, len(train[0]), len(val[0])]).encode())
    for array in (*train, *val):
        digest.update(array.data)
    return digest.hexdigest()


def copies_held_out(name: str, train: Images, val: Images) -> int:
    """How many held-out images have the very pixels of a training image.

    Raises:
        InputError: all of them.
    """
    trained = {_fingerprint(image) for image in train}
    copies = sum(_fingerprint(image) in trained for image in val)
    if copies == len(val):
        rule = f"all {copies} held-out images are copies of training images"
        raise InputError("data", name, rule, "hold out images that are not trained on")
    return copies


def copies_said(copies: int) -> str:
    """What `ImageSet.source` adds about copies; nothing where there is none."""
    if not copies:
        return ""
    return f"; {copies} of the held-out images {'is a copy' if copies == 1 else 'are copies'} of training images"


def _fingerprint(image: Images) -> bytes:
    return hashlib.blake2b(image.data, digest_size=16).digest()


def bytes_needed(count: int, image_size: int) -> int:
    return count * image_size * image_size * 3


def require_memory(name: str, count: int, image_size: int, why_no_cache: str = "") -> None:
    """Refuse more decoded pixels than are held in memory, before any is decoded.

    Raises:
        InputError: `count` images need more than 2 GiB.
    """
    needed = bytes_needed(count, image_size)
    if needed > _MAX_BYTES:
        rule = f"{count} images of {image_size} px need {needed / 2**30:.1f} GiB; at most 2 GiB are held in memory"
        if why_no_cache:
            rule += f", and they cannot be cached ({why_no_cache})"
        fitting = _MAX_BYTES // bytes_needed(1, image_size) // 2
        raise InputError("data", name, rule, f"cap the training images at {fitting} or fewer (--images)")


def held_out_limit(max_images: int | None, num_classes: int) -> int | None:
    """How many held-out images go with a cap on training images.

    As many, but 2000 are enough to rank by, or one of every class where there are more classes than that.
    """
    return None if max_images is None else min(max_images, max(_MAX_HELD_OUT, num_classes))


def balanced_choice(labels: Labels, limit: int | None, seed: int) -> NDArray[np.int64]:
    """Indices of at most `limit` items, evenly from all classes, in ascending order; all where `limit` is None.

    A class with fewer items than its share gives all it has, and the others fill up.

    Raises:
        InputError: `limit` is below the number of classes: some would be left out.
    """
    if limit is None or limit >= len(labels):
        return np.arange(len(labels))
    classes = np.unique(labels)
    if limit < len(classes):
        raise InputError("images", limit, f"must be at least the number of classes ({len(classes)})", "raise --images")
    rank = np.empty(len(labels), dtype=np.int64)  # an item's place within its own shuffled class
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(len(labels))
    for label in classes:
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
