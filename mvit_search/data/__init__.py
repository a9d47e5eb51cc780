"""What a candidate LEARNS FROM: labelled images, decoded and resized once, held as `uint8`.

    data = load_data("digits", image_size=24)              # built in, no download
    data = load_data("photos/", image_size=64, fraction=0.1)
    data = load_data("photos.tar.xz", image_size=64, max_images=5000)

A data source is one function `(argument, seed) -> Catalogue` in a file of its own: it lists, and decodes what it is
asked for. Choosing, splitting and caching are the same for all (`_preparing.py`), and so is the contract of
`ImageSet`: the same arguments give the same arrays and the same `digest`, and no image stands on both sides of the
split. A new source is one file and one line in `OPENERS`; `tests/data` then holds it to the contract. Nothing here
loads torch.
"""

import os
import re
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

from mvit_search.data._base import ImageSet
from mvit_search.data._catalogue import Catalogue
from mvit_search.data._detecting import kind_of
from mvit_search.data._layout import EXTENSIONS
from mvit_search.data._preparing import Choice, prepare
from mvit_search.data.archive import archive
from mvit_search.data.cache import Cache, default_cache
from mvit_search.data.cifar import cifar
from mvit_search.data.digits import digits
from mvit_search.data.folder import image_folder
from mvit_search.data.hf_datasets import hf_datasets
from mvit_search.data.npz import npz
from mvit_search.data.shapes import shapes
from mvit_search.data.webdataset import webdataset
from mvit_search.errors import InputError, UnknownNameError

__all__ = ["BUILT_IN", "EXTENSIONS", "OPENERS", "Cache", "ImageSet", "catalogue_of", "load_data"]

OPENERS: dict[str, Callable[[str, int], Catalogue]] = {
    "digits": digits,
    "shapes": shapes,
    "folder": image_folder,
    "archive": archive,
    "cifar": cifar,
    "npz": npz,
    "datasets": hf_datasets,
    "webdataset": webdataset,
}
"""`name:argument` -> its source; `_detecting.py` gives a bare path one of these names."""

BUILT_IN = ("digits", "shapes")
"""Sources that need no argument."""

# Two letters at least: `C:\photos` is a path.
_NAMED = re.compile(r"([A-Za-z][A-Za-z0-9_-]+):(.*)", re.DOTALL)


def load_data(
    spec: str,
    *,
    image_size: int,
    max_images: int | None = None,
    fraction: float | None = None,
    seed: int = 0,
    cache: Cache | bool = True,
    max_unreadable: int | None = None,
) -> ImageSet:
    """The images that `spec` names: a path, `name:argument` with a key of `OPENERS`, or one of `BUILT_IN`.

    Args:
        image_size: side in pixels of the square images that come back.
        max_images: at most so many training images, evenly from all classes; held-out images are then
            capped too (see `_base.held_out_limit`). Only chosen files are read.
        fraction: of the training images, above 0 and at most 1, evenly from all classes and one of each at least;
            held-out images stay as they are. Where `max_images` is given too, the smaller number counts.
        seed: chooses the images, and the split where the source has none of its own.
        cache: where decoded pictures are kept for the next time and shared among processes; True: where
            `cache.default_cache` says, False: nowhere, decoded into memory. The images are the same.
        max_unreadable: so many chosen pictures may be damaged, and are skipped by name; None: 1 %, or ten.

    Raises:
        UnknownNameError: `name:argument` with a name that no source has.
        InputError: neither a path nor a known name, no images, one class, a missing split, labels out of range, or
            too many damaged pictures.
    """
    choice = Choice(image_size, max_images, fraction, seed, max_unreadable)
    where = default_cache(os.environ) if cache is True else cache or None
    return prepare(spec, catalogue_of(spec, seed), choice, where)


def catalogue_of(spec: str, seed: int) -> Catalogue:
    """What `spec` names, listed but not decoded. A path that exists goes before `name:argument`.

    Raises:
        InputError: as in `load_data`, as far as it is seen without decoding.
    """
    try:
        return _opened(spec, seed)
    except OSError as error:  # a folder or a file that may not be read, or that vanishes while it is listed
        rule = f"cannot be read ({error.strerror or type(error).__name__}: {error.filename or spec})"
        raise InputError("data", spec, rule) from None


def _opened(spec: str, seed: int) -> Catalogue:
    if spec in BUILT_IN:
        return OPENERS[spec]("", seed)
    path = _existing(spec)
    if path is not None:
        return OPENERS[kind_of(path)](str(path), seed)
    named = _NAMED.fullmatch(spec)
    if named and named[2].startswith("//"):
        raise InputError("data", spec, "is a web address", "download it and name the file")
    if named and named[1] in OPENERS and not named[2] and named[1] not in BUILT_IN:
        raise InputError("data", spec, "names nothing after the colon", f"say {spec}PATH")
    if named and named[1] in OPENERS:
        return OPENERS[named[1]](named[2], seed)
    if named:
        raise UnknownNameError("data", named[1], OPENERS)
    near = get_close_matches(spec.lower(), BUILT_IN, n=1, cutoff=0.5)
    advice = f"did you mean {near[0]!r}?" if near else f"built in: {', '.join(BUILT_IN)}; see docs/data.md"
    if "{" in spec:  # a pattern of shards
        advice = f"for shards say webdataset:{spec}"
    raise InputError("data", spec, "no such file or folder", advice)


def _existing(spec: str) -> Path | None:
    try:
        path = Path(spec).expanduser()
        return path if spec and path.exists() else None
    except (OSError, ValueError, RuntimeError):  # too long, a null byte, an unknown home
        return None
