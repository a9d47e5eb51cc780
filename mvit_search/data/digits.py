"""scikit-learn's handwritten digits: 1,797 grey pictures of 8 x 8, ten classes, in the installed package."""

import math

import numpy as np
from PIL import Image

from mvit_search.data._base import (
    Images,
    ImageSet,
    balanced_choice,
    held_out_limit,
    image_set,
    require_memory,
    split_by_class,
)  # fmt: skip

_CLASSES = [str(digit) for digit in range(10)]
_HELD_OUT_SHARE = 0.5
# Plain held-out digits are soon told apart at 98 % by any network, which ranks nothing. Turned, scaled and
# shifted by fixed amounts they are harder, and accuracies stay apart.
_MAX_DEGREES, _MAX_ZOOM, _MAX_SHIFT = 10.0, 0.1, 0.05


def digits(image_size: int, max_images: int | None, seed: int) -> ImageSet:
    """The built-in digits at (image_size, image_size), white on black, grey in all three channels.

    Half of every class, drawn by `seed`, is held out. Training images are the plain digits. Every held-out
    image is one view of a held-out digit, also drawn by `seed`: turned by up to 10 degrees, scaled by up to
    10 %, shifted by up to 5 % of the side.

    Raises:
        InputError: `max_images` below ten, or more than 2 GiB of pixels.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    labels = bunch.target.astype(np.int64)
    pictures = [Image.fromarray(np.round(picture * (255 / 16)).astype(np.uint8)) for picture in bunch.images]
    train_at, val_at = split_by_class(labels, _HELD_OUT_SHARE, seed)
    train_at = train_at[balanced_choice(labels[train_at], max_images, seed)]
    val_at = val_at[balanced_choice(labels[val_at], held_out_limit(max_images, len(_CLASSES)), seed)]
    require_memory("digits", len(train_at) + len(val_at), image_size)
    generator = np.random.default_rng(seed)
    views = [_view(pictures[i], image_size, generator) for i in val_at]
    train = _stack([_enlarged(pictures[i], image_size) for i in train_at]), labels[train_at]
    val = _stack(views), labels[val_at]
    counts = f"{len(train_at)} training digits, {len(val_at)} held-out digits turned and shifted"
    return image_set("digits", _CLASSES, train, val, f"scikit-learn's handwritten digits: {counts}")


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


def _stack(pictures: list[Image.Image]) -> Images:
    """Grey pictures as (N, size, size, 3)."""
    grey = np.stack([np.asarray(picture) for picture in pictures])
    return np.ascontiguousarray(np.repeat(grey[..., None], 3, axis=-1))
