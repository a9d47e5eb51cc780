"""Hugging Face `datasets` that were saved to disk with `save_to_disk`; nothing is ever downloaded.

    datasets:FOLDER                              the image and the label column are found by their types
    datasets:FOLDER#image=img,label=fine_label   or named

Needs the extra `mvit-search[datasets]`.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvit_search.data._base import Images, Labels
from mvit_search.data._catalogue import Catalogue, Side, Unreadable
from mvit_search.data._decoding import in_order, picture
from mvit_search.data._labels import labelled
from mvit_search.errors import InputError

_HELD_OUT = ("validation", "val", "valid", "dev", "test")
_LABELS = ("label", "labels", "fine_label", "class", "target", "y")
_ROWS = 16  # read and handed to a thread at once


def hf_datasets(argument: str, seed: int) -> Catalogue:
    """Images and labels of a saved dataset: the folder, then perhaps `#image=COLUMN,label=COLUMN`.

    Of a `DatasetDict`, `train` is the training side and the first of validation, val, valid, dev and test that is
    there is held out. A `Dataset`, or a dictionary with one split of any name, has no held-out side. Labels are a
    `ClassLabel`, whole numbers or words. Images are files, held inside or beside the dataset. `seed` is not used.

    Raises:
        InputError: the extra is missing, no such dataset, a damaged one, no or several image or label columns, a
            label that is missing or names no class, images that lie on the web.
    """
    name, image, label = _asked(argument)
    root = Path(name).expanduser()
    if not name or not root.is_dir():
        raise InputError(
            "data", f"datasets:{name}", "no such folder", "name what save_to_disk wrote; never a hub's name"
        )
    splits = _splits(root)
    features = splits["train"].features
    image = _image_column(str(root), features, image)
    label = _label_column(str(root), features, label)
    for side, rows in splits.items():
        if rows.features.get(image) != features[image] or rows.features.get(label) != features[label]:
            rule = f"its held-out side has other columns than {image} and {label} of the training side"
            raise InputError("data", f"{root} ({side})", rule, "save both sides alike")
    names, labels = _labels(str(root), splits, features[label], label)
    pictured = {side: _undecoded(rows, image) for side, rows in splits.items()}
    description = f"dataset saved to disk, columns {image} and {label}"
    return _Saved(names, labels, description, _fingerprint(root, image, label), str(root), pictured, image)


@dataclass(frozen=True, eq=False)
class _Saved:
    class_names: tuple[str, ...]
    labels: Mapping[Side, Labels]
    description: str
    fingerprint: str
    root: str
    rows: Mapping[Side, Any]  # datasets.Dataset with the image column alone
    column: str

    def pictures(self, side: Side, indices: NDArray[np.int64], size: int) -> Iterator[Images | Unreadable]:
        def decode_chunk(chunk: Sequence[tuple[str, bytes | Path | str]]) -> list[Images | Unreadable]:
            return [Unreadable(n, file) if isinstance(file, str) else picture(file, n, size) for n, file in chunk]

        return in_order(decode_chunk, self._chunks(side, indices))

    def _chunks(self, side: Side, indices: NDArray[np.int64]) -> Iterator[list[tuple[str, bytes | Path | str]]]:
        """(name, the file or why there is none), some rows at a time."""
        for start in range(0, len(indices), _ROWS):
            numbers = [int(i) for i in indices[start : start + _ROWS]]
            try:
                files = [_file(cell) for cell in self.rows[side].select(numbers)[self.column]]
            except Exception as error:  # whatever pyarrow raises on damaged batches
                files = [f"cannot be read ({type(error).__name__}: {error})"] * len(numbers)
            yield [(f"{self.root}: {side}[{i}]", file) for i, file in zip(numbers, files, strict=True)]


def _file(cell: Mapping[str, Any] | None) -> bytes | Path | str:
    """An image's bytes, or where they are on this machine, or why there is neither."""
    if cell is None or (not cell.get("bytes") and not cell.get("path")):
        return "has no image"
    if cell.get("bytes"):
        content: bytes = cell["bytes"]
        return content
    # `datasets` would fetch an address; what is not a file here is not had.
    return "is an address on the web, which is not fetched" if "://" in cell["path"] else Path(cell["path"])


def _asked(argument: str) -> tuple[str, str, str]:
    """(folder, image column, label column); columns are empty where they are to be found."""
    folder, mark, settings = argument.rpartition("#")
    columns = {"image": "", "label": ""}
    if not mark or "=" not in settings:
        return argument, "", ""
    for setting in settings.split(","):
        key, _, value = setting.partition("=")
        if key.strip() not in columns or not value.strip():
            raise InputError("data", setting, "must be image=COLUMN or label=COLUMN", "see docs/data.md")
        columns[key.strip()] = value.strip()
    return folder, columns["image"], columns["label"]


def _splits(root: Path) -> dict[Side, Any]:
    """The two sides, memory-mapped.

    Raises:
        InputError: not a saved dataset, a damaged one, no training split among several, an empty side.
    """
    try:
        import datasets
    except ImportError:
        advice = "pip install 'mvit-search[datasets]'"
        raise InputError("data", "datasets", "needs the package datasets, which is not installed", advice) from None
    try:
        found = datasets.load_from_disk(str(root), keep_in_memory=False)
    except Exception as error:  # whatever pyarrow, json and datasets raise on damaged files
        rule = f"cannot be read as what save_to_disk writes ({type(error).__name__}: {error})"
        raise InputError("data", str(root), rule, "name the folder that save_to_disk wrote") from None
    sides: dict[Side, Any] = {"train": found}
    if isinstance(found, datasets.DatasetDict):
        held_out = next((name for name in _HELD_OUT if name in found), None)
        if "train" in found:
            sides = {"train": found["train"]}
            if held_out is not None:
                sides["val"] = found[held_out]
        elif len(found) == 1:
            sides = {"train": next(iter(found.values()))}
        else:
            rule = f"has no split train among {', '.join(found) or 'none'}"
            raise InputError("data", str(root), rule, "name the folder of the split that is meant")
    for side, rows in sides.items():
        if not len(rows):
            raise InputError("data", f"{root} ({side})", "holds no row", "save a side with images")
    return sides


def _image_column(root: str, features: Mapping[str, Any], asked: str) -> str:
    import datasets

    if asked and asked not in features:
        raise InputError("data", root, f"has no column {asked!r} (has {', '.join(features)})", "say image=COLUMN")
    found = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    if asked and asked not in found:
        raise InputError("data", root, f"column {asked!r} holds no images but {features[asked]}", "say image=COLUMN")
    if asked or len(found) == 1:
        return asked or found[0]
    raise _unclear(root, "images", "image", found, features)


def _label_column(root: str, features: Mapping[str, Any], asked: str) -> str:
    """The one `ClassLabel`; else the one usual name; else the one column of whole numbers or words."""
    import datasets

    if asked and asked not in features:
        raise InputError("data", root, f"has no column {asked!r} (has {', '.join(features)})", "say label=COLUMN")
    named = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    plain = [name for name, f in features.items() if name not in named and _is_plain(f)]
    if asked and asked not in named + plain:
        rule = f"column {asked!r} holds neither class labels nor whole numbers nor words but {features[asked]}"
        raise InputError("data", root, rule, "say label=COLUMN")
    usual = [name for name in plain if name.lower() in _LABELS]
    found = next((choice for choice in (named, usual, plain) if choice), [])
    if asked or len(found) == 1:
        return asked or found[0]
    raise _unclear(root, "labels", "label", found, features)


def _unclear(root: str, what: str, key: str, found: Sequence[str], features: Mapping[str, Any]) -> InputError:
    """None or several columns could be meant."""
    if not found:
        rule = f"has no column of {what} (has {', '.join(features) or 'no column'})"
        return InputError("data", root, rule, f"save a dataset with a column of {what}")
    rule = f"has {len(found)} columns of {what} ({', '.join(found)})"
    return InputError("data", root, rule, f"say which: datasets:{root}#{key}={found[0]}")


def _is_plain(feature: object) -> bool:
    kind = str(getattr(feature, "dtype", ""))
    return kind.startswith(("int", "uint")) or kind in ("string", "large_string")


def _labels(
    root: str, splits: Mapping[Side, Any], feature: Any, column: str
) -> tuple[tuple[str, ...], dict[Side, Labels]]:
    """(class names, labels of each side)."""
    import datasets

    values = {side: rows.select_columns([column]).with_format("arrow")[:][column] for side, rows in splits.items()}
    for side, cells in values.items():
        if cells.null_count:
            row = next(i for i, cell in enumerate(cells) if not cell.is_valid)
            raise InputError("data", f"{root} ({side})", f"row {row} has no {column}", "remove rows without a label")
    where = {side: f"{root} ({side}): {column}" for side in splits}
    words = str(feature.dtype).endswith("string")
    stored = {
        side: np.array(cells.to_pylist(), dtype=np.str_) if words else cells.to_numpy()
        for side, cells in values.items()
    }
    names = tuple(str(name) for name in feature.names) if isinstance(feature, datasets.ClassLabel) else None
    return labelled(where, stored, names)


def _undecoded(rows: Any, column: str) -> Any:
    """The image column alone, its cells as bytes and path: decoded by us, so that a damaged one is named."""
    import datasets

    return rows.with_format(None).select_columns([column]).cast_column(column, datasets.Image(decode=False))


def _fingerprint(root: Path, image: str, label: str) -> str:
    """sha256 over the dataset's files, their sizes and times, and the columns."""
    digest = hashlib.sha256(f"{root.resolve()}\0{image}\0{label}".encode(errors="surrogateescape"))
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        status = path.stat()
        facts = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
        digest.update(os.fsencode(path.relative_to(root)) + b"\0" + facts.encode() + b"\0")
    return digest.hexdigest()
