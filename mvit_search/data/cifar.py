"""CIFAR-10 and CIFAR-100 as they were published: the python layout (pickles) and the binary layout.

    cifar:DOWNLOADS                    the folder with the files, its parent, or the .tar.gz as it came
    cifar:DOWNLOADS#coarse             CIFAR-100's 20 groups instead of its 100 classes

Source: https://www.cs.toronto.edu/~kriz/cifar.html. A pickle can run any code when it is read, so only what these
files are made of is admitted: dictionaries, lists, text, numbers, numpy arrays of bytes.
"""

import io
import pickle
import tarfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mvit_search.data._arrays import ArrayCatalogue, Pixels
from mvit_search.data._base import Images, Labels
from mvit_search.data._catalogue import Catalogue, Side
from mvit_search.data._labels import whole_labels
from mvit_search.errors import InputError

_PIXELS = 3 * 32 * 32
_MAX_FILE_BYTES = 2**30  # the largest published file has 160 MB
_FOLDERS = ("cifar-10-batches-py", "cifar-100-python", "cifar-10-batches-bin", "cifar-100-binary")
_ADVICE = "download it again, or unpack it again"


@dataclass(frozen=True)
class _Layout:
    """One of the four published layouts.

    Attributes:
        sides: file names of each side.
        meta: the file with the class names.
        label_key, names_key: python layout: where a batch has its labels, and `meta` their names.
        label_bytes, label_at: binary layout: how many bytes of labels stand before the pixels, and which is ours.
    """

    title: str
    sides: Mapping[Side, tuple[str, ...]]
    meta: str
    label_key: str = ""
    names_key: str = ""
    label_bytes: int = 0
    label_at: int = 0

    @property
    def files(self) -> frozenset[str]:
        return frozenset((self.meta, *self.sides["train"], *self.sides["val"]))


def _layouts(coarse: bool) -> tuple[_Layout, ...]:
    level = "coarse" if coarse else "fine"
    batches = tuple(f"data_batch_{number}" for number in range(1, 6))
    binary = tuple(f"{batch}.bin" for batch in batches)
    hundred = _Layout(
        "CIFAR-100", {"train": ("train",), "val": ("test",)}, "meta", f"{level}_labels", f"{level}_label_names"
    )
    hundred_binary = _Layout(
        "CIFAR-100", {"train": ("train.bin",), "val": ("test.bin",)}, f"{level}_label_names.txt",
        label_bytes=2, label_at=0 if coarse else 1,
    )  # fmt: skip
    if coarse:
        return hundred, hundred_binary
    return (
        _Layout("CIFAR-10", {"train": batches, "val": ("test_batch",)}, "batches.meta", "labels", "label_names"),
        _Layout("CIFAR-10", {"train": binary, "val": ("test_batch.bin",)}, "batches.meta.txt", label_bytes=1),
        hundred,
        hundred_binary,
    )


class _Files(NamedTuple):
    """Where the files of a layout are: their common name, theirs, and how one is read."""

    where: str
    names: frozenset[str]
    read: Callable[[str], bytes]


def cifar(argument: str, seed: int) -> Catalogue:
    """CIFAR-10 or CIFAR-100, whichever is found, in either layout; its test images are the held-out ones.

    `argument` names the folder that holds the files, its parent, or the published archive. CIFAR-100 has its fine
    labels, or the coarse ones after `#coarse`. `seed` is not used: the split is the publishers'.

    Raises:
        InputError: nothing of a known layout, more than one, a missing or damaged file, a pickle of anything
            else, a label out of range, or #coarse without CIFAR-100.
    """
    path, mark, level = argument.rpartition("#")
    if not mark or level not in ("coarse", "fine"):
        path, level = argument, "fine"
    files = _found(Path(path).expanduser())
    layout = _layout(files, _layouts(level == "coarse"), level)
    missing = sorted(layout.files - files.names)
    if missing:
        raise InputError("data", files.where, f"lacks {', '.join(missing)} of {layout.title}", _ADVICE)
    names = _class_names(files, layout)
    images: dict[Side, Pixels] = {}
    labels: dict[Side, Labels] = {}
    for side, members in layout.sides.items():
        batches = [_batch(files, layout, member, len(names)) for member in members]
        _require_equal(files, members, [len(batch_labels) for _, batch_labels in batches])
        images[side] = np.concatenate([batch_images for batch_images, _ in batches])
        labels[side] = np.concatenate([batch_labels for _, batch_labels in batches])
    kind = "binary" if layout.label_bytes else "python"
    level_words = f", {level} labels" if layout.title == "CIFAR-100" else ""
    return ArrayCatalogue(names, labels, f"{layout.title} in its {kind} layout{level_words}", images)


def _found(path: Path) -> _Files:
    """The files in `path`, in the one published folder below it, or in the archive `path`."""
    if path.is_file():
        return _archive(path)
    if not path.is_dir():
        raise InputError("data", f"cifar:{path}", "no such folder or file", "name the folder with CIFAR's files")
    below = [path / name for name in _FOLDERS if (path / name).is_dir()]
    if len(below) > 1:
        rule = f"holds {' and '.join(folder.name for folder in below)}"
        raise InputError("data", f"cifar:{path}", rule, "name the one that is meant")
    folder = below[0] if below else path

    def read(name: str) -> bytes:
        file = folder / name
        try:
            _require_small(str(file), file.stat().st_size)
            return file.read_bytes()
        except OSError as error:
            raise InputError("data", str(file), f"cannot be read ({error.strerror})", _ADVICE) from None

    return _Files(str(folder), frozenset(entry.name for entry in folder.iterdir() if entry.is_file()), read)


def _archive(path: Path) -> _Files:
    """CIFAR's files in a tar archive, by their last name; all read at once, for a .tar.gz has no random access."""
    contents: dict[str, bytes] = {}
    wanted = {
        name for layout in (*_layouts(False), *_layouts(True)) for names in layout.sides.values() for name in names
    }
    wanted |= {layout.meta for layout in (*_layouts(False), *_layouts(True))}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                if member.isreg() and name in wanted:
                    _require_small(f"{path}:{member.name}", member.size)
                    stream = archive.extractfile(member)
                    contents[name] = stream.read() if stream else b""
                    if len(contents[name]) != member.size:
                        raise EOFError("it ends within a file")
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError) as error:
        raise InputError("data", str(path), f"cannot be read as an archive ({error})", _ADVICE) from None
    return _Files(str(path), frozenset(contents), contents.__getitem__)


def _require_small(name: str, size: int) -> None:
    if size > _MAX_FILE_BYTES:
        raise InputError("data", name, f"has {size} bytes; no file of CIFAR has over 1 GiB", "check which file it is")


def _layout(files: _Files, layouts: tuple[_Layout, ...], level: str) -> _Layout:
    """The layout with the most of its files there."""
    counts = [len(files.names & layout.files) for layout in layouts]
    if max(counts) == 0:
        what = "CIFAR-100" if level == "coarse" else "CIFAR-10 (data_batch_1, ...) or CIFAR-100 (train, test, meta)"
        raise InputError("data", f"cifar:{files.where}", f"holds no file of {what}", "name the folder that holds them")
    return layouts[counts.index(max(counts))]


def _class_names(files: _Files, layout: _Layout) -> tuple[str, ...]:
    where = f"{files.where}/{layout.meta}"
    if layout.label_bytes:
        text = files.read(layout.meta).decode("utf-8", errors="replace")
        names: list[Any] = [line.strip() for line in text.splitlines() if line.strip()]
    else:
        found = _unpickled(where, files.read(layout.meta)).get(layout.names_key)
        names = found if isinstance(found, list) else []
    if len(names) < 2 or not all(isinstance(name, str) for name in names):
        key = f" under {layout.names_key!r}" if layout.names_key else ""
        raise InputError("data", where, f"holds no list of class names{key}", _ADVICE)
    return tuple(names)


def _batch(files: _Files, layout: _Layout, member: str, class_count: int) -> tuple[Images, Labels]:
    """(N, 32, 32, 3) images and (N,) labels of one file."""
    where = f"{files.where}/{member}"
    content = files.read(member)
    if layout.label_bytes:
        record = layout.label_bytes + _PIXELS
        if not content or len(content) % record:
            rule = f"has {len(content)} bytes, not a whole number of records of {record}"
            raise InputError("data", where, rule, _ADVICE)
        rows = np.frombuffer(content, dtype=np.uint8).reshape(-1, record)
        data: Pixels = rows[:, layout.label_bytes :]
        values: Pixels = rows[:, layout.label_at]
    else:
        data, values = _python_batch(where, _unpickled(where, content), layout.label_key)
    labels = whole_labels(where, values, class_count)
    # A record is 1024 bytes of red, then green, then blue, row by row.
    return np.ascontiguousarray(data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), labels


def _python_batch(where: str, found: Mapping[str, Any], label_key: str) -> tuple[Pixels, Pixels]:
    data, labels = found.get("data"), found.get(label_key)
    data = data.array if isinstance(data, _PickledArray) else data
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != _PIXELS:
        shown = f"{data.dtype} of shape {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise InputError("data", where, f"'data' must be uint8 of shape (N, {_PIXELS}), not {shown}", _ADVICE)
    if not isinstance(labels, list) or not all(type(label) is int and abs(label) < 2**63 for label in labels):
        raise InputError("data", where, f"holds no list of whole numbers under {label_key!r}", _ADVICE)
    if len(labels) != len(data) or not labels:
        raise InputError("data", where, f"holds {len(data)} images but {len(labels)} labels", _ADVICE)
    return data, np.array(labels, dtype=np.int64)


def _require_equal(files: _Files, members: tuple[str, ...], counts: list[int]) -> None:
    """A batch cut off at the end of a record is seen by being shorter than the others alone."""
    shortest = counts.index(min(counts))
    if counts[shortest] != max(counts):
        where = f"{files.where}/{members[shortest]}"
        rule = f"holds {counts[shortest]} images, another batch {max(counts)}; it is cut off"
        raise InputError("data", where, rule, _ADVICE)


def _unpickled(where: str, content: bytes) -> dict[str, Any]:
    """The dictionary that a CIFAR pickle holds, its keys as text."""
    try:
        found = _CifarUnpickler(io.BytesIO(content), encoding="latin1").load()
    except _Foreign as error:
        rule = f"is a pickle that asks for {error}, which no CIFAR file does; it was not run"
        raise InputError("data", where, rule, "get the file from its publisher") from None
    except _BROKEN as error:
        rule = f"cannot be read as a pickle of CIFAR ({error or type(error).__name__})"
        raise InputError("data", where, rule, _ADVICE) from None
    if not isinstance(found, dict):
        raise InputError("data", where, f"holds a {type(found).__name__}, not a dictionary", _ADVICE)
    return {key.decode("latin1") if isinstance(key, bytes) else str(key): value for key, value in found.items()}


class _Foreign(Exception):
    """What a pickle asked for that is not admitted."""


_BROKEN = (
    pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError,
    MemoryError, ImportError, NotImplementedError, RecursionError,
)  # fmt: skip


class _CifarUnpickler(pickle.Unpickler):
    """Builds numpy arrays of whole numbers by the classes below; whatever else is looked up by name is refused.

    numpy's own code is not called with what the file says: it trusts such states more than a stranger's file deserves.
    """

    def find_class(self, module: str, name: str) -> Any:
        place = module.replace("numpy._core", "numpy.core")  # numpy 2 writes the former, CIFAR's files the latter
        if (place, name) not in _ADMITTED:
            raise _Foreign(f"{module}.{name}")
        return _ADMITTED[place, name]


class _PickledType:
    """Stands for numpy's `dtype`, of whole numbers alone."""

    def __init__(self, code: object, *_: object) -> None:
        text = code.decode("latin1") if isinstance(code, bytes) else str(code)
        if text.lstrip("|<") not in ("u1", "i4", "i8"):
            raise ValueError(f"an array of type {text!r}")
        self.dtype = np.dtype(f"<{text.lstrip('|<')}")

    def __setstate__(self, state: tuple[object, ...]) -> None:
        if state[1] not in ("<", "|", b"<", b"|"):
            raise ValueError(f"bytes in the order {state[1]!r}")


class _PickledArray:
    """Stands for numpy's `_reconstruct(ndarray, (0,), "b")`; the state that follows has shape, type and content."""

    def __init__(self, *_: object) -> None:
        self.array: NDArray[Any] = np.empty(0, dtype=np.uint8)

    def __setstate__(self, state: tuple[object, ...]) -> None:
        _, shape, kind, by_column, content = state
        if not isinstance(kind, _PickledType) or not isinstance(shape, tuple):
            raise ValueError("an array without a type or a shape")
        flat = np.frombuffer(_bytes_of(content), dtype=kind.dtype)
        self.array = flat.reshape(shape, order="F" if by_column else "C")


def _bytes_of(text: object, encoding: object = "latin1") -> bytes:
    """`_codecs.encode`, by which Python 3 writes bytes in the pickle protocol of CIFAR's files."""
    if isinstance(text, bytes):
        return text
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError(f"text in the encoding {encoding!r}")
    return text.encode("latin1")


def _number(kind: object, content: object) -> int:
    """numpy's `scalar`: one number of a type."""
    if not isinstance(kind, _PickledType):
        raise ValueError("a number without a type")
    (value,) = np.frombuffer(_bytes_of(content), dtype=kind.dtype)
    return int(value)


_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _PickledArray,
    ("numpy.core.multiarray", "scalar"): _number,
    ("numpy", "ndarray"): "ndarray",  # said as an argument only, never called
    ("numpy", "dtype"): _PickledType,
    ("_codecs", "encode"): _bytes_of,
}
