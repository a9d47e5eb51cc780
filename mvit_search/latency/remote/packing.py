"""Artifacts on their way to another machine: their digest, a zip that is the same each time, and safe unpacking.

What arrives is somebody else's file, so nothing of it is believed before it is checked: `unpack` writes inside
its folder or not at all.
"""

import hashlib
import json
import re
import stat
import struct
import unicodedata
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mvit_search.errors import InputError

MANIFEST = "Manifest.json"
"""Stands at the root of every .mlpackage; names the items under `Data/`."""

_CHUNK = 1 << 20
_HARMLESS_BYTES = 1 << 20
_END = struct.Struct("<4s4H2LH")
_ZIP64_LOCATOR = 20
_LONGEST_NAME = 240
_BYTES_PER_ENTRY = 46 + 2 * _LONGEST_NAME
_FIRST_DAY = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class UnpackLimits:
    """How large an unpacked package may be.

    Attributes:
        entries: most files and folders.
        total_bytes: most bytes of all files together.
        ratio: most times that they may be larger than in the zip, from 1 MiB on; random weights hardly shrink.
    """

    entries: int = 1000
    total_bytes: int = 1 << 30
    ratio: int = 100


def digest_of(artifact: Path) -> str:
    """`sha256:...` of a file, or of what a package folder holds, wherever it stands and whenever it was written.

    The identifiers in a package's manifest are drawn anew at each saving; its items count by their paths.
    """
    if artifact.is_file():
        return f"sha256:{_file_digest(artifact)}"
    whole = hashlib.sha256()
    for path in _files(artifact):
        name = path.relative_to(artifact).as_posix()
        content = _canonical_manifest(path) if name == MANIFEST else _file_digest(path)
        whole.update(f"{len(name)} {name} {content}\n".encode())
    return f"sha256:{whole.hexdigest()}"


def pack(package: Path, archive: Path) -> None:
    """Zip a package folder; the same content gives the same bytes. Stored, for random weights do not shrink."""
    with zipfile.ZipFile(archive, "x", zipfile.ZIP_STORED) as out:
        for path in _files(package):
            entry = zipfile.ZipInfo(path.relative_to(package).as_posix(), _FIRST_DAY)
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            out.writestr(entry, path.read_bytes())


def unpack(archive: Path, folder: Path, limits: UnpackLimits) -> None:
    """Unpack a zipped .mlpackage into `folder`, which must not be there yet; its manifest stands at the zip's root.

    Raises:
        InputError: the file is no plain zip, is too large unpacked, tries to leave its folder, holds anything but
            files and folders, or is no package.
    """
    _check_directory(archive, limits)
    try:
        with zipfile.ZipFile(archive) as source:
            entries = source.infolist()
            _check_sizes(entries, limits)
            _check_names(entries)
            folder.mkdir()
            for entry in entries:
                _extract(source, entry, folder)
    # RuntimeError and NotImplementedError are zipfile's for encrypted entries and unknown compression.
    except (zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError, UnicodeError, OSError) as error:
        raise _refused(f"cannot be unpacked ({error})") from None
    check_manifest(folder)


def check_manifest(package: Path) -> None:
    """Hold a package's manifest to the package: every item that it names lies inside.

    Raises:
        InputError: no manifest, one that cannot be read, or one that points out of the package or at nothing.
    """
    manifest = package / MANIFEST
    if not manifest.is_file():
        raise _refused(f"has no {MANIFEST} at its root, so it is no Core ML package")
    try:
        items = [str(item["path"]) for item in json.loads(manifest.read_bytes())["itemInfoEntries"].values()]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise _refused(f"has a {MANIFEST} that cannot be read") from None
    for item in items:
        _check_name(item)
        if not (package / "Data" / item).exists():
            raise _refused(f"names the item {item[:80]!r} in its {MANIFEST} and does not hold it")


def _files(package: Path) -> list[Path]:
    return sorted((path for path in package.rglob("*") if path.is_file()), key=lambda path: path.as_posix())


def _file_digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _canonical_manifest(path: Path) -> str:
    """The manifest without the identifiers that each saving draws anew; one that is none counts as it is."""
    try:
        manifest = json.loads(path.read_bytes())
        items: dict[str, Any] = manifest["itemInfoEntries"]
        root = items[manifest["rootModelIdentifier"]]
        plain = {"items": sorted(items.values(), key=lambda item: str(item["path"])), "root": root}
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return _file_digest(path)


def _check_directory(archive: Path, limits: UnpackLimits) -> None:
    """Read the zip's last record alone: Python would load a directory of millions of entries before we see one."""
    size = archive.stat().st_size
    with archive.open("rb") as stream:
        stream.seek(max(0, size - _END.size - _ZIP64_LOCATOR))
        tail = stream.read()
    if len(tail) < _END.size or not tail[-_END.size :].startswith(b"PK\5\6"):
        raise _refused("is no zip file, or one with a comment at its end")
    if b"PK\6\7" in tail[: -_END.size]:
        raise _refused("is a zip64 file, which no package needs")
    _, _, _, _, entries, directory_bytes, _, _ = _END.unpack(tail[-_END.size :])
    if entries > limits.entries or directory_bytes > limits.entries * _BYTES_PER_ENTRY:
        raise _refused(f"holds more than {limits.entries} entries")


def _check_sizes(entries: Sequence[zipfile.ZipInfo], limits: UnpackLimits) -> None:
    unpacked, packed = sum(e.file_size for e in entries), sum(e.compress_size for e in entries)
    if len(entries) > limits.entries:
        raise _refused(f"holds more than {limits.entries} entries")
    if unpacked > limits.total_bytes:
        raise _refused(f"is {unpacked} bytes unpacked, more than {limits.total_bytes}")
    if unpacked > _HARMLESS_BYTES and unpacked > limits.ratio * packed:
        raise _refused(f"grows more than {limits.ratio} times when unpacked")


def _check_names(entries: Iterable[zipfile.ZipInfo]) -> None:
    seen: set[str] = set()
    for entry in entries:
        # zipfile cuts a name at a NUL, so the name as it was written is the one to check.
        _check_name(entry.orig_filename.removesuffix("/"))
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _refused(f"holds {entry.filename[:80]!r}, which is neither a file nor a folder")
        # A Mac's disk takes names that differ in case or in composition alone for one.
        name = unicodedata.normalize("NFC", entry.filename).casefold().removesuffix("/")
        if name in seen:
            raise _refused(f"holds {entry.filename[:80]!r} twice")
        seen.add(name)


def _check_name(name: str) -> None:
    parts = name.split("/")
    if len(name) > _LONGEST_NAME or re.search(r"[\x00-\x1f\x7f\\:]", name) or not name:
        raise _refused(f"holds a name that is no plain path: {name[:80]!r}")
    if PurePosixPath(name).is_absolute() or any(part in ("", ".", "..") for part in parts):
        raise _refused(f"tries to leave its folder: {name[:80]!r}")


def _extract(source: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path) -> None:
    path = folder / entry.filename
    if not path.resolve().is_relative_to(folder.resolve()):
        raise _refused(f"tries to leave its folder: {entry.filename[:80]!r}")
    if entry.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # zipfile reads no more than the size an entry declares, and the sum of those is bounded by now.
    with source.open(entry) as packed, path.open("xb") as out:
        while chunk := packed.read(_CHUNK):
            out.write(chunk)


def _refused(rule: str) -> InputError:
    return InputError("package", None, rule, "send a zip of the inside of an .mlpackage folder")
