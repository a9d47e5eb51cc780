"""From a `Catalogue` to an `ImageSet`: check, split, choose, decode, count what cannot be read.

The same for every source, so that no source can leak held-out pictures or choose in its own way.
"""

import hashlib
import json
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import PIL
from numpy.typing import NDArray

from mvit_search.data._base import (
    Images,
    ImageSet,
    Labels,
    balanced_choice,
    copies_held_out,
    copies_said,
    digest_of,
    held_out_limit,
    require_memory,
    split_by_class,
)  # fmt: skip
from mvit_search.data._catalogue import Catalogue, Side, Unreadable
from mvit_search.data.cache import Cache, CacheUnusableError, Facts, stored
from mvit_search.errors import InputError

_VERSION = 1  # of decoding and choosing: part of the cache's key
_HELD_OUT_SHARE = 0.2
_UNREADABLE_SHARE, _UNREADABLE_AT_LEAST = 0.01, 10
_NAMED = 3  # unreadable pictures that a refusal names


@dataclass(frozen=True)
class Choice:
    """Which of a source's pictures, and how large.

    Attributes:
        image_size: pixels.
        max_images: at most so many training images; the held-out ones are then capped too.
        fraction: of the training images, above 0 and at most 1; held-out images are not touched, so that
            accuracies of several fractions compare. With `max_images` the smaller number counts.
        seed: chooses, and splits where the source has no split of its own.
        max_unreadable: chosen pictures that may be unreadable; None: 1 % of them, or ten.
    """

    image_size: int
    max_images: int | None = None
    fraction: float | None = None
    seed: int = 0
    max_unreadable: int | None = None

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise InputError("image_size", self.image_size, "must be at least 1 pixel")
        if self.max_images is not None and self.max_images < 2:
            raise InputError("images", self.max_images, "must be at least 2: one for each of two classes")
        if self.fraction is not None and not 0 < self.fraction <= 1:  # NaN too
            raise InputError("data_fraction", self.fraction, "must be above 0 and at most 1")
        if self.max_unreadable is not None and self.max_unreadable < 0:
            raise InputError("max_unreadable", self.max_unreadable, "must not be negative")

    def training_limit(self, available: int, num_classes: int) -> int | None:
        """How many training images at most; None: all."""
        if self.fraction is None:
            return self.max_images
        part = max(num_classes, round(self.fraction * available))
        return part if self.max_images is None else min(part, self.max_images)

    def unreadable_limit(self, chosen: int) -> int:
        if self.max_unreadable is not None:
            return self.max_unreadable
        return max(_UNREADABLE_AT_LEAST, math.ceil(_UNREADABLE_SHARE * chosen))


def prepare(name: str, catalogue: Catalogue, choice: Choice, cache: Cache | None) -> ImageSet:
    """The chosen pictures of `catalogue`: mapped from the cache, or decoded into it, or into memory without one.

    Raises:
        InputError: one class, labels out of range, a side that lacks a class, a cap below the class count, more
            pixels than can be held, too many unreadable pictures, or held-out pictures that are all copies.
    """
    chosen = _chosen(name, catalogue, choice)
    with warnings.catch_warnings():
        # What is wrong with a picture is told once, by name, if it cannot be read for it. Here and not where it is
        # decoded: the filters are those of all threads.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        return _prepared(name, catalogue, chosen, choice, cache)


def _prepared(name: str, catalogue: Catalogue, chosen: "_Chosen", choice: Choice, cache: Cache | None) -> ImageSet:
    count = sum(len(part.indices) for part in chosen.parts)
    tally = _Tally(name, choice.unreadable_limit(count))
    size, classes = choice.image_size, catalogue.class_names

    def decoded() -> Iterator[Images]:
        return _decoded(catalogue, chosen, size, tally)

    def found_out(rows: Images) -> _Facts:
        return _facts(name, classes, chosen, rows, tally.skipped)

    why_not = ""
    if cache is not None and catalogue.fingerprint:
        try:
            key = _key(catalogue, chosen, size)
            rows, facts = stored(cache, key, size, count, decoded, lambda rows: found_out(rows).as_json())
            known = _Facts.from_json(facts)
            require_few(name, known.skipped, choice.unreadable_limit(count))
            return _image_set(name, classes, chosen, rows, known)
        except CacheUnusableError as error:
            why_not = str(error)
            tally.skipped.clear()
    require_memory(name, count, size, why_not)
    rows = np.empty((count, size, size, 3), dtype=np.uint8)
    filled = 0
    for filled, image in enumerate(decoded(), start=1):
        rows[filled - 1] = image
    data = _image_set(name, classes, chosen, rows[:filled], found_out(rows[:filled]))
    if not why_not:
        return data
    return replace(data, source=f"{data.source}; not cached: {why_not}", not_cached=why_not)


def _key(catalogue: Catalogue, chosen: "_Chosen", size: int) -> str:
    """sha256 over everything that the pixels and what is found out from them depend on.

    Not over how the pictures came to be chosen: two seeds that choose the same share an entry.
    """
    facts = [_VERSION, PIL.__version__, catalogue.fingerprint, catalogue.class_names, size]
    digest = hashlib.sha256(json.dumps(facts).encode())
    for part in chosen.parts:
        digest.update(f"{part.side} {len(part.indices)}".encode())
        digest.update(np.ascontiguousarray(part.indices, dtype="<i8").data)
        digest.update(np.ascontiguousarray(part.labels, dtype="<i8").data)
    return digest.hexdigest()


@dataclass(frozen=True)
class _Part:
    """One side of the split: where its pictures stand in the catalogue.

    Attributes:
        side: of the catalogue; "train" for a part held out of the training pictures too.
        indices: ascending.
        labels: of those indices.
    """

    side: Side
    indices: NDArray[np.int64]
    labels: Labels


@dataclass(frozen=True)
class _Chosen:
    train: _Part
    val: _Part
    description: str

    @property
    def parts(self) -> tuple[_Part, _Part]:
        return self.train, self.val


@dataclass(frozen=True)
class _Skipped:
    """A picture that could not be read: `part` 0 is training, 1 held out; `position` counts within it."""

    part: int
    position: int
    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} {self.reason}"


@dataclass(frozen=True)
class _Facts:
    """What is found out from pixels."""

    digest: str
    copies: int
    skipped: tuple[_Skipped, ...]

    def as_json(self) -> Facts:
        skipped = [[one.part, one.position, one.name, one.reason] for one in self.skipped]
        return {"digest": self.digest, "copies": self.copies, "skipped": skipped}

    @classmethod
    def from_json(cls, facts: Facts) -> "_Facts":
        return cls(facts["digest"], facts["copies"], tuple(_Skipped(*one) for one in facts["skipped"]))


class _Tally:
    """Unreadable pictures so far; refuses one too many."""

    def __init__(self, name: str, limit: int) -> None:
        self._name, self._limit = name, limit
        self.skipped: list[_Skipped] = []

    def add(self, skipped: _Skipped) -> None:
        self.skipped.append(skipped)
        require_few(self._name, self.skipped, self._limit)


def require_few(name: str, skipped: Sequence[_Skipped], limit: int) -> None:
    if len(skipped) <= limit:
        return
    if len(skipped) == 1:
        raise InputError("data", name, str(skipped[0]), "mend or remove the file")
    first = ", ".join(str(one) for one in skipped[:_NAMED])
    rule = f"more than {limit} pictures are unreadable, the first: {first}"
    raise InputError("data", name, rule, "mend or remove them (in Python, max_unreadable allows more)")


def _chosen(name: str, catalogue: Catalogue, choice: Choice) -> _Chosen:
    """Split, then choose from each side."""
    labels = catalogue.labels
    classes = catalogue.class_names
    if len(classes) < 2:
        raise InputError("data", name, f"has one class alone ({', '.join(classes)})", "two or more are needed")
    for side, side_labels in labels.items():
        _require_in_range(name, side, side_labels, len(classes))
    train_labels = labels["train"]
    _require_every_class(name, "training", train_labels, classes)
    train_at = np.arange(len(train_labels))
    description = catalogue.description
    if "val" in labels:
        val_side: Side = "val"
        val_labels = labels["val"]
        val_at = np.arange(len(val_labels))
        _require_every_class(name, "held-out", val_labels, classes)
    else:
        val_side = "train"
        train_at, val_at = split_by_class(train_labels, _HELD_OUT_SHARE, choice.seed)
        val_labels, train_labels = train_labels[val_at], train_labels[train_at]
        description += f", a fifth of every class held out by seed {choice.seed}"
        alone = np.setdiff1d(np.arange(len(classes)), val_labels)
        if len(alone):
            rule = f"has one picture alone of class {classes[alone[0]]!r}, so none can be held out"
            raise InputError("data", name, rule, "add pictures of it, or a split of your own")
    limit = choice.training_limit(len(train_labels), len(classes))
    picked = balanced_choice(train_labels, limit, choice.seed)
    held_out = balanced_choice(val_labels, held_out_limit(choice.max_images, len(classes)), choice.seed)
    description += (
        f"; {len(picked)} of {len(train_labels)} training and {len(held_out)} of {len(val_labels)} held-out images"
    )
    return _Chosen(
        _Part("train", train_at[picked], train_labels[picked]),
        _Part(val_side, val_at[held_out], val_labels[held_out]),
        description,
    )


def _require_in_range(name: str, side: str, labels: Labels, num_classes: int) -> None:
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        rule = f"{side}[{wrong[0]}] has label {labels[wrong[0]]}; {num_classes} classes are 0 to {num_classes - 1}"
        if len(wrong) > 1:
            rule += f" ({len(wrong)} labels are out of range)"
        raise InputError("data", name, rule, "mend the labels or the class names")


def _require_every_class(name: str, side: str, labels: Labels, classes: Sequence[str]) -> None:
    if not len(labels):
        raise InputError("data", name, f"has no {side} image", "add images or another split")
    missing = np.setdiff1d(np.arange(len(classes)), labels)
    if len(missing):
        more = f" and of {len(missing) - 1} other classes" if len(missing) > 1 else ""
        rule = f"has no {side} image of class {classes[missing[0]]!r}{more}"
        raise InputError("data", name, rule, "both sides need every class")


def _decoded(catalogue: Catalogue, chosen: _Chosen, size: int, tally: _Tally) -> Iterator[Images]:
    """The readable pictures, first the training ones; the others go to `tally`."""
    for number, part in enumerate(chosen.parts):
        pictures = catalogue.pictures(part.side, part.indices, size)
        for position, found in enumerate(pictures):
            if isinstance(found, Unreadable):
                tally.add(_Skipped(number, position, found.name, found.reason))
            else:
                yield found


def _labels(part: _Part, number: int, skipped: Sequence[_Skipped]) -> Labels:
    """Those of the pictures that could be read."""
    return np.delete(part.labels, [one.position for one in skipped if one.part == number])


def _facts(name: str, classes: Sequence[str], chosen: _Chosen, rows: Images, skipped: Sequence[_Skipped]) -> _Facts:
    train_labels, val_labels = (_labels(part, number, skipped) for number, part in enumerate(chosen.parts))
    if len(rows) != len(train_labels) + len(val_labels):
        raise AssertionError(f"{name}: {len(rows)} pictures for {len(train_labels) + len(val_labels)} labels")
    for side, labels in (("readable training", train_labels), ("readable held-out", val_labels)):
        _require_every_class(name, side, labels, classes)
    train, val = rows[: len(train_labels)], rows[len(train_labels) :]
    copies = copies_held_out(name, train, val)
    return _Facts(digest_of(classes, (train, train_labels), (val, val_labels)), copies, tuple(skipped))


def _image_set(name: str, classes: Sequence[str], chosen: _Chosen, rows: Images, facts: _Facts) -> ImageSet:
    train_labels, val_labels = (_labels(part, number, facts.skipped) for number, part in enumerate(chosen.parts))
    train, val = rows[: len(train_labels)], rows[len(train_labels) :]
    source = chosen.description + copies_said(facts.copies)
    if facts.skipped:
        source += f"; {len(facts.skipped)} unreadable, skipped"
    size = rows.shape[1]
    skipped = tuple(str(one) for one in facts.skipped)
    return ImageSet(name, facts.digest, tuple(classes), train, train_labels, val, val_labels, size, source, skipped)
