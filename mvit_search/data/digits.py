"""scikit-learn's handwritten digits: 1,797 grey pictures of 8 x 8, ten classes, in the installed package."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mvit_search.data._base import Images, Labels, split_by_class
from mvit_search.data._catalogue import Catalogue, Side, Unreadable
from mvit_search.errors import InputError

_CLASSES = tuple(str(digit) for digit in range(10))
_HELD_OUT_SHARE = 0.5
# Plain held-out digits are soon told apart at 98 % by any network, which ranks nothing. Turned, scaled and
# shifted by fixed amounts they are harder, and accuracies stay apart: with 10 degrees, 10 % and 5 % networks were
# right about 98 times in 100 after 16 epochs, which left nothing to rank by.
_MAX_DEGREES, _MAX_ZOOM, _MAX_SHIFT = 25.0, 0.25, 0.12


def digits(argument: str, seed: int) -> Catalogue:
    """The built-in digits, white on black, grey in all three channels.

    Half of every class, drawn by `seed`, is held out. Training images are the plain digits. Every held-out
    image is one view of a held-out digit, also drawn by `seed`: turned by up to 25 degrees, scaled by up to
    25 %, shifted by up to 12 % of the side.

    Raises:
        InputError: an argument; there is nothing to choose.
    """
    if argument:
        raise InputError("data", f"digits:{argument}", "digits takes no argument", "say digits")
    from sklearn.datasets import load_digits

    bunch = load_digits()
    labels = bunch.target.astype(np.int64)
    pictures = [Image.fromarray(np.round(picture * (255 / 16)).astype(np.uint8)) for picture in bunch.images]
    train_at, val_at = split_by_class(labels, _HELD_OUT_SHARE, seed)
    return _Digits(
        {"train": labels[train_at], "val": labels[val_at]}, {"train": train_at, "val": val_at}, pictures, seed
    )


@dataclass(frozen=True)
class _Digits:
    labels: Mapping[Side, Labels]
    at: Mapping[Side, NDArray[np.int64]]
    digits: Sequence[Image.Image]
    seed: int
    class_names: tuple[str, ...] = _CLASSES
    description: str = "scikit-learn's handwritten digits, half held out, turned and shifted"
    fingerprint: str = ""  # drawn anew faster than a cache is opened

    def pictures(self, side: Side, indices: NDArray[np.int64], size: int) -> Iterator[Images | Unreadable]:
        # One generator for all views: a view depends on which digits are chosen with it.
        generator = np.random.default_rng(self.seed)
        for index in self.at[side][indices]:
            digit = self.digits[index]
            grey = np.asarray(_enlarged(digit, size) if side == "train" else _view(digit, size, generator))
            yield np.repeat(grey[..., None], 3, axis=-1)


def _enlarged(picture: Image.Image, size: int) -> Image.Image:
    return picture.resize((size, size), Image.Resampling.BICUBIC)


def _view(picture: Image.Image, size: int, generator: np.random.Generator) -> Image.Image:
    """A turned, scaled and shifted copy; black where it looks past the edge."""
    turn, zoom, right, down = generator.uniform(-1, 1, 4)
    angle, scale = math.radians(_MAX_DEGREES * turn), 1 + _MAX_ZOOM * zoom
    a, b = scale * math.cos(angle), scale * math.sin(angle)
    middle = size / 2
    # Pillow wants output pixel -> input pixel: about the middle, then the shift.
    x = middle - a * middle - b * middle + _MAX_SHIFT * size * right
    y = middle + b * middle - a * middle + _MAX_SHIFT * size * down
    matrix = (a, b, x, -b, a, y)
    large = _enlarged(picture, size)
    return large.transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
