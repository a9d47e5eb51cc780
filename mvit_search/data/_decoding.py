"""One image file or picture -> one square RGB array."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from mvit_search.data._base import Images
from mvit_search.errors import InputError

# What Pillow's decoders raise on damaged or hostile files.
_DAMAGED = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, struct.error,
    zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip


def decode(path: Path, size: int) -> Images:
    """The file as (size, size, 3): turned upright by its EXIF tag, central square, resized, RGB.

    Raises:
        InputError: naming the file, when it cannot be read as an image.
    """
    if not path.is_file():  # opening a pipe would wait for a writer for ever
        rule = "is not a regular file, nor a link to one"
        raise InputError("data", str(path), rule, "mend or remove it")
    try:
        with Image.open(path) as image:
            # A JPEG decodes at 1/2, 1/4 or 1/8 scale many times faster; twice the target keeps the quality.
            image.draft(None, (2 * size, 2 * size))
            image.load()
            return square(to_rgb(ImageOps.exif_transpose(image)), size)
    except _DAMAGED as error:
        rule = f"cannot be read as an image ({error})"
        raise InputError("data", str(path), rule, "mend or remove the file") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode to RGB: 16-bit grey keeps its range, transparency is laid on white.

    Raises:
        ValueError: a mode without a known range (floating point).
    """
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    if image.mode.startswith("I"):
        # Pillow's own conversion clips 16-bit grey at 255 instead of scaling it.
        grey = np.asarray(image).astype(np.int64) // 257
        return Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        opaque = image.convert("RGBA")
        white = Image.new("RGBA", opaque.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, opaque).convert("RGB")
    return image.convert("RGB")


def square(image: Image.Image, size: int) -> Images:
    """Central square of an RGB image, resized: (size, size, 3)."""
    return np.asarray(ImageOps.fit(image, (size, size), method=Image.Resampling.BICUBIC))
