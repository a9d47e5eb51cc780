"""One image file or picture -> one square RGB array; many of them on a few threads."""

import io
import os
import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps

from mvit_search.data._base import Images
from mvit_search.data._catalogue import Unreadable
from mvit_search.errors import InputError

# What Pillow's decoders raise on damaged or hostile files.
_DAMAGED = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, struct.error,
    zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip
_MAX_THREADS = 16
_CHUNK = 16  # files handed to a thread at once

_Item = TypeVar("_Item")


def picture(source: Path | bytes, name: str, size: int) -> Images | Unreadable:
    """A file, or the bytes of one, as (size, size, 3): upright by its EXIF tag, central square, resized, RGB.

    `name` is what an `Unreadable` is called.
    """
    if isinstance(source, Path) and not source.is_file():  # opening a pipe would wait for a writer for ever
        return Unreadable(name, "is not a regular file, nor a link to one")
    try:
        with Image.open(source if isinstance(source, Path) else io.BytesIO(source)) as image:
            # A JPEG decodes at 1/2, 1/4 or 1/8 scale many times faster; twice the target keeps the quality.
            image.draft(None, (2 * size, 2 * size))
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return square(to_rgb(image), size)
    except _DAMAGED as error:
        # Pillow names a stream by its address in memory, which is no help and differs from run to run.
        words = "unknown image format" if "identify image file" in str(error) else str(error) or type(error).__name__
        return Unreadable(name, f"cannot be read as an image ({words})")


def decode(path: Path, size: int) -> Images:
    """The file as (size, size, 3), as `picture` has it.

    Raises:
        InputError: naming the file, when it cannot be read as an image.
    """
    found = picture(path, str(path), size)
    if isinstance(found, Unreadable):
        raise InputError("data", found.name, found.reason, "mend or remove the file")
    return found


def in_order(
    decode_chunk: Callable[[Sequence[_Item]], list[Images | Unreadable]], chunks: Iterable[Sequence[_Item]]
) -> Iterator[Images | Unreadable]:
    """What `decode_chunk` makes of the chunks, in their order, on a few threads.

    Few chunks are under way at once, so an endless or large source fills no memory and Ctrl-C is soon heard.
    """
    # Of the cores that this process may use, where the system says.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = min(_MAX_THREADS, cores)
    waiting: deque[Future[list[Images | Unreadable]]] = deque()
    with ThreadPoolExecutor(max_workers=threads) as pool:
        try:
            for chunk in chunks:
                waiting.append(pool.submit(decode_chunk, chunk))
                if len(waiting) > 2 * threads:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:  # also where the reader stops early
            pool.shutdown(wait=True, cancel_futures=True)


def pictures_of_files(files: Sequence[tuple[Path, str]], size: int) -> Iterator[Images | Unreadable]:
    """The pictures of (file, name) pairs, in order."""

    def decode_chunk(chunk: Sequence[tuple[Path, str]]) -> list[Images | Unreadable]:
        return [picture(path, name, size) for path, name in chunk]

    return in_order(decode_chunk, (files[i : i + _CHUNK] for i in range(0, len(files), _CHUNK)))


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
