"""The members of a tar or zip archive: listed, and read one after the other without unpacking to disk."""

import bz2
import gzip
import hashlib
import io
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mvit_search.errors import InputError

MAX_MEMBER_BYTES = 64 * 2**20
# xz packs zeros 7000 to 1; images hardly at all. A gigabyte beside it, so that small archives may hold anything.
_MAX_RATIO, _ALWAYS_ALLOWED = 200, 2**30
_PIECE = 2**20

_DAMAGED = (
    tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, lzma.LZMAError, zlib.error, ValueError, OverflowError,
    NotImplementedError, RuntimeError,
)  # fmt: skip
_DECOMPRESSORS: dict[bytes, Callable[[Any], io.BufferedIOBase]] = {
    b"\x1f\x8b": lambda packed: gzip.GzipFile(fileobj=packed),
    b"\xfd7zXZ\0": lzma.LZMAFile,
    b"BZh": bz2.BZ2File,
}


@dataclass(frozen=True)
class Member:
    """One regular file in an archive.

    Attributes:
        name: as the archive has it.
        place: where it lies: bytes from the start of the unpacked tar, or its number in a zip.
        size: bytes, as declared.
    """

    name: str
    place: int
    size: int


class Packed(Protocol):
    """A listed archive.

    Attributes:
        members: regular files with safe names, in the order of the archive.
        passed_over: how many members are links, devices, or named so that they would lie elsewhere.
        fingerprint: changes with the content.
        random_access: whether `contents` in any order costs the same.
    """

    @property
    def members(self) -> Sequence[Member]: ...

    @property
    def passed_over(self) -> int: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def random_access(self) -> bool: ...

    def contents(self, members: Sequence[Member]) -> Iterator[bytes | str]:
        """The bytes of each member, or why they cannot be had; without random access, `members` ascend by place.

        Raises:
            InputError: the archive is damaged there.
        """
        ...


def opened(path: Path) -> Packed:
    """The archive, listed; its kind is told by its first bytes, not by its name.

    Raises:
        InputError: neither a tar nor a zip, damaged, cut off or encrypted.
    """
    with _clear(path):
        with path.open("rb") as stream:
            start = stream.read(8)
        if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            return _listed_zip(path)
        return _listed_tar(path, next((magic for magic in _DECOMPRESSORS if start.startswith(magic)), None))


@contextmanager
def _clear(path: Path) -> Iterator[None]:
    """What readers of archives raise becomes one line."""
    try:
        yield
    except _DAMAGED as error:
        rule = f"cannot be read as an archive: damaged, cut off, or of another kind ({error or type(error).__name__})"
        raise InputError("data", str(path), rule, "get it again, or name the unpacked folder") from None


def _safe(name: str) -> bool:
    return not name.startswith("/") and ".." not in name.split("/") and "\0" not in name and name[1:2] != ":"


def _too_large(size: int) -> str:
    return f"is declared with {size} bytes; at most {MAX_MEMBER_BYTES // 2**20} MiB are read"


@dataclass(frozen=True)
class _Zip:
    path: Path
    members: Sequence[Member]
    passed_over: int
    fingerprint: str
    random_access: bool = True

    def contents(self, members: Sequence[Member]) -> Iterator[bytes | str]:
        with _clear(self.path):
            file = zipfile.ZipFile(self.path)
        with file:
            listed = file.infolist()
            for member in members:
                if member.size > MAX_MEMBER_BYTES:
                    yield _too_large(member.size)
                    continue
                try:
                    # `read` stops at the declared size, so a member that lies about it fills no memory.
                    yield file.read(listed[member.place])
                except _DAMAGED as error:
                    yield f"cannot be unpacked ({error})"


def _listed_zip(path: Path) -> _Zip:
    digest = hashlib.sha256(b"zip\0")
    members: list[Member] = []
    passed_over = 0
    with zipfile.ZipFile(path) as file:
        for place, info in enumerate(file.infolist()):
            digest.update(f"{info.filename}\0{info.CRC} {info.file_size} {info.header_offset}\0".encode())
            if info.is_dir():
                continue
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG) or not _safe(info.filename):
                passed_over += 1
                continue
            if info.flag_bits & 0x1:
                raise InputError("data", str(path), f"is encrypted ({info.filename})", "unpack it and name the folder")
            members.append(Member(info.filename, place, info.file_size))
    return _Zip(path, members, passed_over, digest.hexdigest())


@dataclass(frozen=True)
class _Tar:
    path: Path
    magic: bytes | None  # of the compression
    members: Sequence[Member]
    passed_over: int
    fingerprint: str

    @property
    def random_access(self) -> bool:
        return self.magic is None

    def contents(self, members: Sequence[Member]) -> Iterator[bytes | str]:
        with self.path.open("rb") as raw:
            stream = _Forward(raw, self.magic)
            for member in members:
                if member.size > MAX_MEMBER_BYTES:
                    yield _too_large(member.size)
                    continue
                with _clear(self.path):
                    stream.seek(member.place)
                    content = stream.read(member.size)
                if len(content) < member.size:
                    raise InputError("data", str(self.path), "has changed while it was read", "start again")
                yield content


def _listed_tar(path: Path, magic: bytes | None) -> _Tar:
    """Headers alone are read of a plain tar; a compressed one is unpacked once, which also proves it whole."""
    members: list[Member] = []
    passed_over = 0
    with path.open("rb") as raw:
        status = os.fstat(raw.fileno())
        stream = _Forward(raw, magic)
        with tarfile.open(fileobj=stream, mode="r:", errorlevel=2) as tar:  # type: ignore[call-overload]
            for info in tar:
                if info.isreg() and not info.issparse() and _safe(info.name):
                    members.append(Member(info.name, info.offset_data, info.size))
                elif not info.isdir():
                    passed_over += 1
                tar.members.clear()  # it keeps all of them otherwise
        # A damaged header ends the listing too, and so does a cut between two members.
        if stream.last_block != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"neither a header nor the end mark after {len(members)} members")
        stream.drain()
        if magic is not None:
            return _Tar(path, magic, members, passed_over, stream.digest)
    digest = hashlib.sha256(os.fsencode(path.resolve()))
    digest.update(f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}".encode())
    for member in members:
        digest.update(f"{member.name}\0{member.place} {member.size}\0".encode(errors="surrogateescape"))
    return _Tar(path, magic, members, passed_over, digest.hexdigest())


class _Hashed(io.RawIOBase):
    """A file read from front to back, and the sha256 of what was read."""

    def __init__(self, raw: io.BufferedReader) -> None:
        self._raw = raw
        self.sha256 = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._raw.read(len(buffer))
        buffer[: len(data)] = data
        self.sha256.update(data)
        return len(data)


class _Forward:
    """An archive's unpacked bytes; if compressed, from front to back only, and no more than a bound.

    A single read is bounded too: `tarfile` reads a long name whole, however long it is declared.
    """

    def __init__(self, raw: io.BufferedReader, magic: bytes | None) -> None:
        self._compressed = magic is not None
        self._hashed = _Hashed(raw)
        self._stream: io.BufferedIOBase = raw
        if magic is not None:
            packed = io.BufferedReader(self._hashed, _PIECE)
            self._stream = _DECOMPRESSORS[magic](packed)
        self._allowed = _ALWAYS_ALLOWED + _MAX_RATIO * os.fstat(raw.fileno()).st_size
        self._at = 0
        self.last_block = b""

    @property
    def digest(self) -> str:
        """sha256 of the packed bytes; of all, after `drain`."""
        return self._hashed.sha256.hexdigest()

    def tell(self) -> int:
        return self._at

    def read(self, size: int) -> bytes:
        if size > MAX_MEMBER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        data = self._stream.read(size)
        self._moved(len(data))
        self.last_block = data
        return data

    def seek(self, place: int) -> None:
        if not self._compressed:
            self._stream.seek(place)
            self._at = place
            return
        if place < self._at:
            raise ValueError("read backwards")
        while self._at < place and (data := self._stream.read(min(_PIECE, place - self._at))):
            self._moved(len(data))

    def drain(self) -> None:
        """Read what is left of a compressed stream: its checksums come last."""
        while self._compressed and (data := self._stream.read(_PIECE)):
            self._moved(len(data))

    def _moved(self, count: int) -> None:
        self._at += count
        if self._compressed and self._at > self._allowed:
            raise tarfile.ReadError(f"unpacks to more than {_MAX_RATIO} times its size")
