"""How folders of classes are laid out, on disk and inside archives: which files are images, which folder is which side.

train/CLASS/*.jpg and val/CLASS/*.jpg, or CLASS/*.jpg
"""

from collections.abc import Iterable, Sequence

from mvit_search.errors import InputError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
"""Files with another ending are ignored, and so is whatever starts with a dot."""

EXPECTED = "train/CLASS/*.jpg and val/CLASS/*.jpg, or CLASS/*.jpg"

_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def is_split(folder: str) -> bool:
    """Whether a folder of this name is a side of a split, not a class; case does not matter."""
    return folder.lower() in _SPLITS


def sides(name: str, folders: Iterable[str]) -> tuple[str, str] | None:
    """The folders of the training and the held-out side; None where `folders` are classes.

    Held out is `val/` (or `valid/`, `validation/`), or `test/` where there is none.

    Raises:
        InputError: one side without the other, or two folders for one side.
    """
    found: dict[str, str] = {}
    for folder in sorted(folders):
        split = _SPLITS.get(folder.lower())
        if split is None:
            continue
        if split in found:
            raise InputError("data", name, f"has both {found[split]}/ and {folder}/", "keep one of them")
        found[split] = folder
    train, held_out = found.get("train"), found.get("val", found.get("test"))
    if train is None and held_out is not None:
        raise InputError("data", name, f"has {held_out}/ but no train/", "add train/, or rename it if it is a class")
    if train is not None and held_out is None:
        raise InputError("data", name, f"has {train}/ but neither val/ nor test/", "add one of them")
    return None if train is None or held_out is None else (train, held_out)


def require_classes(name: str, classes: Sequence[str]) -> None:
    """There must be two at least."""
    if len(classes) < 2:
        raise InputError("data", name, f"has one class folder alone ({classes[0]!r})", "two or more are needed")


def require_same_classes(name: str, train: tuple[str, Sequence[str]], val: tuple[str, Sequence[str]]) -> None:
    """Both (folder, its classes) must hold the same classes."""
    for (folder, classes), (_, others) in ((val, train), (train, val)):
        missing = sorted(set(others) - set(classes))
        if missing:
            rule = f"{folder}/ lacks the class folder {missing[0]!r}"
            raise InputError("data", name, rule, "both sides need the same classes")
