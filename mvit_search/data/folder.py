"""Image folders: `train/` and `val/` (or `test/`) of class folders, or one folder of class folders."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvit_search.data._base import Images, Labels
from mvit_search.data._catalogue import Catalogue, Side, Unreadable
from mvit_search.data._decoding import pictures_of_files
from mvit_search.data._layout import EXPECTED, EXTENSIONS, require_classes, require_same_classes, sides
from mvit_search.errors import InputError

_Listing = tuple[list[str], list[Path], Labels]


def image_folder(argument: str, seed: int) -> Catalogue:
    """Images of the folder `argument`, cropped to their central square and resized.

    With `train/`, the held-out images are those of `val/`, or of `test/` where there is no `val/`, and both
    sides must have the same class folders. Without, the folder holds the class folders itself and a fifth
    of every class is held out. `valid/` and `validation/` are `val/`; case does not matter.
    Links are followed to `train/`, `val/`, `test/` and image files, but to no folder below those.

    Raises:
        InputError: no such folder, an empty one, one class, a missing or doubled split, or class folders that
            differ or are links.
    """
    root = Path(argument).expanduser()
    if not argument or not root.is_dir():
        raise InputError("data", argument, "no such folder", f"expected one that holds {EXPECTED}")
    split = sides(argument, (entry.name for entry in os.scandir(root) if entry.is_dir()))
    if split is None:
        classes, files, labels = _listing(root)
        return _catalogue(root, classes, {"train": files}, {"train": labels}, "image folder")
    train, held_out = split
    classes, train_files, train_labels = _listing(root / train)
    val_classes, val_files, val_labels = _listing(root / held_out)
    require_same_classes(argument, (train, classes), (held_out, val_classes))
    description = f"image folder with {train}/ and {held_out}/"
    return _catalogue(
        root, classes, {"train": train_files, "val": val_files}, {"train": train_labels, "val": val_labels}, description
    )


@dataclass(frozen=True)
class _Folder:
    class_names: tuple[str, ...]
    labels: Mapping[Side, Labels]
    description: str
    fingerprint: str
    files: Mapping[Side, list[Path]]

    def pictures(self, side: Side, indices: NDArray[np.int64], size: int) -> Iterator[Images | Unreadable]:
        files = self.files[side]
        return pictures_of_files([(files[i], str(files[i])) for i in indices], size)


def _catalogue(
    root: Path, classes: list[str], files: Mapping[Side, list[Path]], labels: Mapping[Side, Labels], description: str
) -> _Folder:
    require_classes(str(root), classes)
    return _Folder(tuple(classes), labels, description, _fingerprint(root, files), files)


def _fingerprint(root: Path, files: Mapping[Side, list[Path]]) -> str:
    """sha256 over where the files lie, their sizes and their times: the content itself is not read.

    With the time of the last change of status, because unpacking and copying may set the other to anything.
    """
    digest = hashlib.sha256(os.fsencode(root.resolve()))
    for side in files.values():
        for path in side:
            try:
                status = os.stat(path)
                facts = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
            except OSError:
                facts = "unreadable"
            digest.update(b"\0" + os.fsencode(path) + b"\0" + facts.encode())
    return digest.hexdigest()


def _listing(root: Path) -> _Listing:
    """(class names, files, labels), sorted by name so that every machine sees one order."""
    entries = [entry for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith(".")]
    classes = sorted(entry.name for entry in entries)
    if not classes:
        raise InputError("data", str(root), "holds no class folder", f"expected {EXPECTED}")
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
