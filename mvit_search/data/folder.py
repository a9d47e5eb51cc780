"""Image folders: `train/` and `val/` (or `test/`) of class folders, or one folder of class folders."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from mvit_search.data._base import (
    Images,
    ImageSet,
    Labels,
    balanced_choice,
    held_out_limit,
    image_set,
    require_memory,
    split_by_class,
)  # fmt: skip
from mvit_search.data._decoding import decode
from mvit_search.errors import InputError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
"""Files with another ending are ignored, and so is whatever starts with a dot."""

_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_HELD_OUT_SHARE = 0.2
_CHUNK = 1024  # files handed to the threads at once: keeps a failure or Ctrl-C from waiting on a long queue

_Listing = tuple[list[str], list[Path], Labels]


def image_folder(root: Path, image_size: int, max_images: int | None, seed: int) -> ImageSet:
    """Images of a folder, cropped to their central square and resized.

    With `train/`, the held-out images are those of `val/`, or of `test/` where there is no `val/`, and both
    sides must have the same class folders. Without, the folder holds the class folders itself and a fifth
    of every class, drawn by `seed`, is held out. `valid/` and `validation/` are `val/`; case does not matter.
    Links are followed to `train/`, `val/`, `test/` and image files, but to no folder below those.

    Raises:
        InputError: an empty folder, one class, a missing or doubled split, class folders that differ or are
            links, a cap below the class count, a file that is not an image (named), more than 2 GiB of
            decoded pixels, or held-out images that are all copies of training images.
    """
    name = str(root)
    splits = _splits(root)
    train_name, held_out = splits.get("train"), splits.get("val", splits.get("test"))
    if train_name is not None:
        if held_out is None:
            raise InputError("data", name, f"has {train_name}/ but neither val/ nor test/", "add one of them")
        classes, train_files, train_labels = _listing(root / train_name)
        val_classes, val_files, val_labels = _listing(root / held_out)
        _require_same(name, (train_name, classes), (held_out, val_classes))
        source = f"image folder with {train_name}/ and {held_out}/"
    elif held_out is not None:
        raise InputError("data", name, f"has {held_out}/ but no train/", "add train/, or rename it if it is a class")
    else:
        classes, files, labels = _listing(root)
        train_at, val_at = split_by_class(labels, _HELD_OUT_SHARE, seed)
        train_files, train_labels = [files[i] for i in train_at], labels[train_at]
        val_files, val_labels = [files[i] for i in val_at], labels[val_at]
        source = f"image folder, a fifth of every class held out by seed {seed}"
    if len(classes) < 2:
        raise InputError("data", name, f"has one class folder alone ({classes[0]!r})", "two or more are needed")
    train_at = balanced_choice(train_labels, max_images, seed)
    val_at = balanced_choice(val_labels, held_out_limit(max_images, len(classes)), seed)
    require_memory(name, len(train_at) + len(val_at), image_size)
    train = _decode_all([train_files[i] for i in train_at], image_size), train_labels[train_at]
    val = _decode_all([val_files[i] for i in val_at], image_size), val_labels[val_at]
    counts = f"{len(train_at)} of {len(train_files)} training and {len(val_at)} of {len(val_files)} held-out images"
    return image_set(name, classes, train, val, f"{source}; {counts}")


def _splits(root: Path) -> dict[str, str]:
    """`train`, `val` and `test` -> the folder's name for it, for those that are there."""
    found: dict[str, str] = {}
    for folder in sorted(entry.name for entry in os.scandir(root) if entry.is_dir()):
        split = _SPLITS.get(folder.lower())
        if split is None:
            continue
        if split in found:
            raise InputError("data", str(root), f"has both {found[split]}/ and {folder}/", "keep one of them")
        found[split] = folder
    return found


def _listing(root: Path) -> _Listing:
    """(class names, files, labels), sorted by name so that every machine sees one order."""
    entries = [entry for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith(".")]
    classes = sorted(entry.name for entry in entries)
    if not classes:
        layout = "train/CLASS/*.jpg and val/CLASS/*.jpg, or CLASS/*.jpg"
        raise InputError("data", str(root), "holds no class folder", f"expected {layout}")
    for link in sorted(entry.path for entry in entries if entry.is_symlink()):
        # Left out in silence, a class would be missing; followed, a link upwards makes one of all the others.
        raise InputError("data", link, "is a link, not a class folder", "put the folder itself there")
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = _image_files(root / name)
        if not found:
            rule = f"holds no image ({' '.join(EXTENSIONS)})"
            raise InputError("data", str(root / name), rule, "a class folder must hold some")
        files += found
        labels += [label] * len(found)
    return classes, files, np.array(labels, dtype=np.int64)


def _image_files(folder: Path) -> list[Path]:
    """Images in a class folder and the folders below it; links to folders are not followed."""
    found: list[Path] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, n) for n in names if not n.startswith(".") and n.lower().endswith(EXTENSIONS)]
    return sorted(found)


def _require_same(name: str, train: tuple[str, list[str]], val: tuple[str, list[str]]) -> None:
    """Both (folder, its classes) must hold the same classes."""
    for (folder, classes), (_, others) in ((val, train), (train, val)):
        missing = sorted(set(others) - set(classes))
        if missing:
            rule = f"{folder}/ lacks the class folder {missing[0]!r}"
            raise InputError("data", name, rule, "both sides need the same classes")


def _decode_all(files: Sequence[Path], image_size: int) -> Images:
    """(N, image_size, image_size, 3). Pillow decodes outside the interpreter lock, so a few threads pay."""
    images = np.empty((len(files), image_size, image_size, 3), dtype=np.uint8)
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        for start in range(0, len(files), _CHUNK):
            chunk = files[start : start + _CHUNK]
            for offset, image in enumerate(pool.map(decode, chunk, [image_size] * len(chunk))):
                images[start + offset] = image
    return images
