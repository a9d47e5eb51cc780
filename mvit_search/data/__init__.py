"""What a candidate LEARNS FROM: labelled images, decoded and resized once, held in memory as `uint8`.

    data = load_data("digits", image_size=24)              # built in, no download
    data = load_data("photos/", image_size=64, max_images=5000)

A data source is one function `(image_size, max_images, seed) -> ImageSet` in a file of its own. Every source
keeps the contract of `ImageSet`: the same arguments give the same arrays and the same `digest`, and no image
stands on both sides of the split. A new source is one file and one line in `BUILT_IN`; `tests/data` then holds
it to the contract. Nothing here loads torch.
"""

from collections.abc import Callable
from pathlib import Path

from mvit_search.data._base import ImageSet
from mvit_search.data.digits import digits
from mvit_search.data.folder import EXTENSIONS, image_folder
from mvit_search.errors import InputError, UnknownNameError

__all__ = ["BUILT_IN", "EXTENSIONS", "ImageSet", "load_data"]

BUILT_IN: dict[str, Callable[[int, int | None, int], ImageSet]] = {"digits": digits}


def load_data(spec: str, *, image_size: int, max_images: int | None = None, seed: int = 0) -> ImageSet:
    """The images that `spec` names: a key of `BUILT_IN` or a folder (see `folder.image_folder`).

    Args:
        image_size: side in pixels of the square images that come back.
        max_images: at most so many training images, evenly from all classes; held-out images are then
            capped too (see `_base.held_out_limit`). Only chosen files are read.
        seed: chooses the images, and the split where the source has none of its own.

    Raises:
        UnknownNameError: neither a built-in name nor a folder.
        InputError: no images, one class, a missing split, or a file that cannot be decoded.
    """
    if image_size < 1:
        raise InputError("image_size", image_size, "must be at least 1 pixel")
    if max_images is not None and max_images < 2:
        raise InputError("images", max_images, "must be at least 2: one for each of two classes")
    if spec in BUILT_IN:
        return BUILT_IN[spec](image_size, max_images, seed)
    path = Path(spec).expanduser()
    if spec and path.is_dir():
        return image_folder(path, image_size, max_images, seed)
    if spec and path.exists():
        raise InputError("data", spec, "is a file, not a folder of images", "unpack it and name the folder")
    if "/" in spec or "\\" in spec:
        raise InputError("data", spec, "no such folder", f"built in: {', '.join(BUILT_IN)}")
    raise UnknownNameError("data", spec, BUILT_IN)
