"""Archives of class folders (tar, tar.gz, tar.xz, tar.bz2, zip), read where they lie: nothing is unpacked to disk.

An archive may come from anybody. Only regular members with a plain relative name and an image's ending are read,
each at most 64 MiB; links, devices, absolute names and names with `..` are passed over.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvit_search.data._base import Images, Labels
from mvit_search.data._catalogue import Catalogue, Side, Unreadable
from mvit_search.data._decoding import in_order, picture
from mvit_search.data._layout import EXPECTED, EXTENSIONS, is_split, require_classes, require_same_classes, sides
from mvit_search.data._members import Member, Packed, opened
from mvit_search.errors import InputError

_CHUNK_COUNT, _CHUNK_BYTES = 16, 4 * 2**20  # handed to a thread at once
_PASS_BYTES = 512 * 2**20  # of decoded pixels that wait for their turn, where members lie out of order

_Files = dict[str, list[Member]]  # class -> its members
_Parts = tuple[str, ...]


def archive(argument: str, seed: int) -> Catalogue:
    """Images of the archive `argument`, laid out as an image folder is, or one folder below.

    Classes and files are in the order of their names, so an archive gives the pictures of its unpacked folder.

    Raises:
        InputError: not an archive, damaged or cut off, encrypted, or its folders are not as an image folder's.
    """
    path = Path(argument).expanduser()
    if not argument or not path.is_file():
        if path.is_dir():
            raise InputError("data", argument, "is a folder, not an archive", f"say folder:{argument}")
        raise InputError("data", argument, "no such archive", "name a tar or zip file")
    packed = opened(path)
    _require_images(argument, packed.members)
    files = _below_one_folder(_image_members(packed.members))
    split = sides(argument, {parts[0] for parts in files if len(parts) > 2 or is_split(parts[0])})
    below = f", {packed.passed_over} members passed over (links, or unsafe names)" if packed.passed_over else ""
    if split is None:
        classes = _by_class(argument, files, "")
        names = sorted(classes)
        require_classes(argument, names)
        return _catalogue(path, packed, names, {"train": classes}, f"archive{below}")
    train, held_out = (_by_class(argument, files, folder) for folder in split)
    require_same_classes(argument, (split[0], sorted(train)), (split[1], sorted(held_out)))
    require_classes(argument, sorted(train))
    description = f"archive with {split[0]}/ and {split[1]}/{below}"
    return _catalogue(path, packed, sorted(train), {"train": train, "val": held_out}, description)


@dataclass(frozen=True)
class _Archive:
    class_names: tuple[str, ...]
    labels: Mapping[Side, Labels]
    description: str
    fingerprint: str
    path: Path
    packed: Packed
    members: Mapping[Side, Sequence[Member]]

    def pictures(self, side: Side, indices: NDArray[np.int64], size: int) -> Iterator[Images | Unreadable]:
        members = [self.members[side][i] for i in indices]
        places = [member.place for member in members]
        if self.packed.random_access or places == sorted(places):
            yield from self._decoded(members, size)
            return
        # Compressed and out of order: unpacked from the front, decoded as met, handed on in order.
        step = max(1, _PASS_BYTES // (size * size * 3))
        for start in range(0, len(members), step):
            order = sorted(range(start, min(start + step, len(members))), key=lambda i: places[i])
            found = self._decoded([members[i] for i in order], size)
            waiting = dict(zip(order, found, strict=True))
            for i in sorted(waiting):
                yield waiting.pop(i)

    def _decoded(self, members: Sequence[Member], size: int) -> Iterator[Images | Unreadable]:
        """The pictures of `members`, in this order."""

        def decode_chunk(chunk: Sequence[tuple[str, bytes | str]]) -> list[Images | Unreadable]:
            return [Unreadable(n, data) if isinstance(data, str) else picture(data, n, size) for n, data in chunk]

        return in_order(decode_chunk, self._chunks(members))

    def _chunks(self, members: Sequence[Member]) -> Iterator[list[tuple[str, bytes | str]]]:
        """(name, content or why there is none) of `members`, some at a time: bounded in number and in bytes."""
        chunk: list[tuple[str, bytes | str]] = []
        held = 0
        for member, content in zip(members, self.packed.contents(members), strict=True):
            chunk.append((f"{self.path.name}:{member.name}", content))
            held += len(content)
            if len(chunk) == _CHUNK_COUNT or held > _CHUNK_BYTES:
                yield chunk
                chunk, held = [], 0
        if chunk:
            yield chunk


def _image_members(members: Sequence[Member]) -> dict[_Parts, Member]:
    """Those that a folder would list as images, by the parts of their name; of two with one name the last counts."""
    found: dict[_Parts, Member] = {}
    for member in members:
        parts = tuple(part for part in member.name.split("/") if part not in ("", "."))
        hidden = any(part.startswith(".") for part in parts)
        if len(parts) > 1 and not hidden and parts[-1].lower().endswith(EXTENSIONS):
            found[parts] = member
    return found


def _require_images(name: str, members: Sequence[Member]) -> None:
    """Refuse what another source reads, and say which."""
    if _image_members(members):
        return
    advice = f"expected {EXPECTED}"
    names = {member.name.rpartition("/")[2] for member in members}
    if names & {"data_batch_1", "data_batch_1.bin", "train.bin", "meta"}:
        advice = f"CIFAR's own layout is read as cifar:{name}"
    elif any(other.endswith((".cls", ".json")) for other in names):
        advice = f"a WebDataset shard is read as webdataset:{name}"
    raise InputError("data", name, "holds no class folder with images", advice)


def _below_one_folder(files: dict[_Parts, Member]) -> dict[_Parts, Member]:
    """Without the one folder that everything lies in, where what lies there are splits or classes."""
    tops = {parts[0] for parts in files}
    if len(tops) != 1 or is_split(next(iter(tops))):
        return files
    below = {parts[1:]: member for parts, member in files.items() if len(parts) > 2}
    return below or files


def _by_class(name: str, files: dict[_Parts, Member], split: str) -> _Files:
    """The members of every class folder, in order of name: of the side `split`, or of all where it is empty."""
    found: _Files = {}
    depth = 1 if split else 0
    for parts in sorted(files):
        if len(parts) > depth + 1 and (not split or parts[0] == split):
            found.setdefault(parts[depth], []).append(files[parts])
    if not found:
        where = f"{split}/ holds" if split else "holds"
        raise InputError("data", name, f"{where} no class folder with images", f"expected {EXPECTED}")
    return found


def _catalogue(
    path: Path, packed: Packed, classes: Sequence[str], files: Mapping[Side, _Files], description: str
) -> _Archive:
    members: dict[Side, list[Member]] = {side: [m for c in classes for m in found[c]] for side, found in files.items()}
    labels: dict[Side, Labels] = {
        side: np.repeat(np.arange(len(classes)), [len(found[c]) for c in classes]) for side, found in files.items()
    }
    return _Archive(tuple(classes), labels, description, packed.fingerprint, path, packed, members)
