"""`ArrayCatalogue`: a catalogue over pictures that are arrays in memory already, and what their labels must be."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mvit_search.data._base import Images, Labels
from mvit_search.data._catalogue import Side, Unreadable
from mvit_search.data._decoding import square, to_rgb
from mvit_search.errors import InputError

Pixels = NDArray[Any]


@dataclass(frozen=True, eq=False)
class ArrayCatalogue:
    """Pictures of any whole-number, truth or real type as they were stored; see `Catalogue`.

    Attributes:
        images: of every side (N, H, W), (N, H, W, 1), (N, H, W, 3) or (N, H, W, 4).
        scale: what a pixel is multiplied with to become 0..255.
    """

    class_names: tuple[str, ...]
    labels: Mapping[Side, Labels]
    description: str
    images: Mapping[Side, Pixels]
    scale: float = 1.0
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.blake2b(repr((self.class_names, self.scale)).encode(), digest_size=32)
        for side, images in self.images.items():
            digest.update(f"{side} {images.shape} {images.dtype}".encode())
            digest.update(np.ascontiguousarray(images).data)
            digest.update(np.ascontiguousarray(self.labels[side]).data)
        object.__setattr__(self, "fingerprint", digest.hexdigest())

    def pictures(self, side: Side, indices: NDArray[np.int64], size: int) -> Iterator[Images | Unreadable]:
        for index in indices:
            pixels = self.images[side][index]
            if pixels.dtype != np.uint8:
                # Half is added before the fraction is cut off: rounding to the nearest.
                pixels = (pixels.astype(np.float64) * self.scale + 0.5).astype(np.uint8)
            if pixels.ndim == 3 and pixels.shape[2] == 1:
                pixels = pixels[..., 0]
            yield square(to_rgb(Image.fromarray(np.ascontiguousarray(pixels))), size)


def whole_labels(where: str, values: NDArray[Any], class_count: int | None) -> Labels:
    """Labels as (N,) indices; `where` names them in errors ("labels.npz: y_train").

    Args:
        values: (N,) or (N, 1) whole numbers.
        class_count: of the classes that are known by name; None where the labels say how many there are.

    Raises:
        InputError: another type or shape, or a label that is negative or no index of a class, by its place.
    """
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or values.dtype.kind not in "iu":
        rule = f"must be whole numbers of shape (N,) or (N, 1), not {values.dtype} of shape {values.shape}"
        raise InputError("data", where, rule, "store one class index for each image")
    limit = np.iinfo(np.int64).max if class_count is None else class_count
    wrong = np.flatnonzero((values < 0) | (values >= limit))
    if len(wrong):
        known = "0 or above" if class_count is None else f"0 to {class_count - 1}"
        rule = f"label {values[wrong[0]]} of image {wrong[0]} must be {known}"
        raise InputError("data", where, rule, f"{len(wrong)} labels are out of range" if len(wrong) > 1 else "mend it")
    return values.astype(np.int64)


def counted_classes(where: str, train: Labels) -> tuple[str, ...]:
    """Names "0", "1", ... for classes that only training labels tell of.

    Raises:
        InputError: no label, or one between 0 and the largest that never occurs.
    """
    present = np.unique(train)
    if not len(present):
        raise InputError("data", where, "holds no label", "add images")
    missing = np.flatnonzero(present != np.arange(len(present)))
    if len(missing):
        rule = f"no training image has label {missing[0]}, the largest is {present[-1]}"
        raise InputError("data", where, rule, "number the classes from 0 without gaps")
    return tuple(str(label) for label in present)


def named_classes(values: Sequence[str]) -> tuple[tuple[str, ...], Labels]:
    """(class names in alphabetical order, labels) of words."""
    names, labels = np.unique(np.asarray(values, dtype=np.str_), return_inverse=True)
    return tuple(str(name) for name in names), labels.astype(np.int64)
