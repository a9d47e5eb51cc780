"""The cache of decoded pictures: one file of `uint8` rows an entry, mapped into memory by whoever needs it.

    <folder>/<key>.pixels   a header, then rows of (size, size, 3)
    <folder>/<key>.json     what the builder found out, and how many rows there are; written last
    <folder>/<key>.lock     held while the entry is built
    <folder>/<key>.partial  what a builder has written so far

Several processes may ask for one key: the first builds it, the others wait and map its file. A builder that is killed
leaves a partial file, which the next one writes over. Who has an entry mapped holds a shared lock on its pixels, so
that making room never removes it; a replaced or removed file stays readable for those who have it mapped.
"""

import errno
import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from mvit_search.data._base import Images, bytes_needed
from mvit_search.errors import InputError

if sys.platform != "win32":
    import fcntl

DEFAULT_MAX_BYTES = 8 * 2**30

_FORMAT = 1
_HEADER_BYTES = 128
_FILE_NAME = re.compile(r"([0-9a-f]{64})\.(pixels|json|lock|partial)")
_OFF = ("off", "0", "no", "none")

Facts = Mapping[str, Any]
Rows = Iterable[Images]


class CacheUnusableError(Exception):
    """Nothing can be stored, for a reason that is no fault of the data: a full disk, a folder that is not ours."""


@dataclass(frozen=True)
class Cache:
    """Where decoded pictures are kept, and how many bytes of them; the longest unused give way to new ones."""

    folder: Path
    max_bytes: int = DEFAULT_MAX_BYTES


def default_cache(environment: Mapping[str, str]) -> Cache | None:
    """`$MVIT_SEARCH_CACHE`, else `$XDG_CACHE_HOME/mvit-search`, else `~/.cache/mvit-search`; None where it says `off`.

    `$MVIT_SEARCH_CACHE_GIB` is the bound. None too on Windows, which has no such locks, and where there is no home.

    Raises:
        InputError: a bound that is no positive number.
    """
    named = environment.get("MVIT_SEARCH_CACHE", "")
    if named.lower() in _OFF or sys.platform == "win32":
        return None
    bound = environment.get("MVIT_SEARCH_CACHE_GIB", "")
    try:
        max_bytes = int(float(bound) * 2**30) if bound else DEFAULT_MAX_BYTES
    except (ValueError, OverflowError):
        max_bytes = 0
    if max_bytes < 1:
        raise InputError("MVIT_SEARCH_CACHE_GIB", bound, "must be a number above 0", "say 20, or leave it out")
    above = environment.get("XDG_CACHE_HOME", "")
    try:
        if named:
            folder = Path(named).expanduser()
        else:  # the standard says that a relative one does not count
            folder = (Path(above) if os.path.isabs(above) else Path.home() / ".cache") / "mvit-search"
    except RuntimeError:
        return None
    return Cache(folder / "images", max_bytes)


def stored(
    cache: Cache, key: str, size: int, most: int, rows: Callable[[], Rows], facts: Callable[[Images], Facts]
) -> tuple[Images, Facts]:
    """The rows and facts of the entry `key`, which is built first if it is not there or is damaged.

    Args:
        key: 64 hexadecimal digits that stand for everything the rows depend on.
        size: side of a picture in pixels.
        most: so many rows at most.
        rows: decodes them; called by the builder alone.
        facts: what is found out from all rows, as JSON has it; called by the builder alone.

    Returns:
        (N, size, size, 3) mapped copy on write: writable, and shared with other processes until it is written to.

    Raises:
        CacheUnusableError: the entry is not there and cannot be stored. Nothing is left behind.
    """
    found = _mapped(cache, key, size)
    if found is not None:
        return found
    with _clear():
        cache.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = _locked(cache.folder / f"{key}.lock")
    with os.fdopen(lock, "rb"):
        found = _mapped(cache, key, size)
        if found is None:  # nobody else was faster
            _build(cache, key, size, most, rows, facts)
            found = _mapped(cache, key, size)
    if found is None:
        raise CacheUnusableError("what was stored cannot be read back")
    return found


@contextmanager
def _clear() -> Iterator[None]:
    """An error of the file system says that nothing can be cached, whatever it is."""
    try:
        yield
    except OSError as error:
        raise CacheUnusableError(error.strerror or type(error).__name__) from None


def _header(key: str) -> bytes:
    return f"mvit-search pixels {_FORMAT} {key}\n".encode().ljust(_HEADER_BYTES, b"\0")


def _mapped(cache: Cache, key: str, size: int) -> tuple[Images, Facts] | None:
    """The entry, if it is whole; it then counts as used now."""
    side = cache.folder / f"{key}.json"
    try:
        written = json.loads(side.read_text(encoding="utf-8"))
        count, facts = int(written["rows"]), dict(written["facts"])
        if written["sha256"] != _sha256(count, facts):
            return None
        with (cache.folder / f"{key}.pixels").open("rb") as stream:
            # The map keeps the open file, and with it this lock, for as long as an array needs it.
            fcntl.flock(stream, fcntl.LOCK_SH)
            whole = os.fstat(stream.fileno()).st_size == _HEADER_BYTES + bytes_needed(count, size)
            if not whole or count < 1 or stream.read(_HEADER_BYTES) != _header(key):
                return None
            pixels = np.memmap(stream, np.uint8, "c", _HEADER_BYTES, (count, size, size, 3))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    with suppress(OSError):  # somebody else's folder: it is used all the same
        os.utime(side)
    return pixels, facts


def _locked(path: Path, *, wait: bool = True) -> int:
    """A descriptor with the exclusive lock on `path`.

    Raises:
        BlockingIOError: not `wait`, and somebody holds it.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            # Whoever makes room removes lock files too: one that is no longer in the folder locks nothing.
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _build(
    cache: Cache, key: str, size: int, most: int, rows: Callable[[], Rows], facts: Callable[[Images], Facts]
) -> None:
    partial, side, pixels = (cache.folder / f"{key}.{ending}" for ending in ("partial", "json", "pixels"))
    try:
        with _clear():
            for old in (side, pixels, partial):  # what is damaged, or was left by a killed builder
                old.unlink(missing_ok=True)
            stream = _reserved(cache, partial, _HEADER_BYTES + bytes_needed(most, size))
        with stream:
            _write(stream, _header(key))
            count = 0
            for row in rows():
                _write(stream, row.data)
                count += 1
            with _clear():
                os.ftruncate(stream.fileno(), _HEADER_BYTES + bytes_needed(count, size))
                os.fsync(stream.fileno())
                shape = (count, size, size, 3)
                written = np.memmap(stream, np.uint8, "r", _HEADER_BYTES, shape) if count else np.empty(shape, np.uint8)
        found = facts(written)
        with _clear():
            os.replace(partial, pixels)
            # The name is free again. Renamed when it is complete, so that it is whole or not there.
            partial.write_text(json.dumps({"rows": count, "facts": found, "sha256": _sha256(count, found)}))
            os.replace(partial, side)
    except BaseException:
        with suppress(OSError):
            _unlink(cache, key)
        raise


def _sha256(count: int, facts: Facts) -> str:
    return hashlib.sha256(json.dumps([count, facts], sort_keys=True).encode()).hexdigest()


def _write(stream: FileIO, data: bytes | memoryview) -> None:
    """All of `data`; the stream has no buffer, whose last bytes could fail on closing."""
    left = memoryview(data).cast("B")
    with _clear():
        while left:
            left = left[stream.write(left) or 0 :]


def _reserved(cache: Cache, partial: Path, needed: int) -> FileIO:
    """The partial file with its bytes reserved, after making room for them.

    Raises:
        OSError: no space on the disk, although what is not in use was removed.
        CacheUnusableError: no room in the cache.
    """
    # Under one lock, so that several builders together keep to the bound.
    with os.fdopen(_locked(cache.folder / "room.lock"), "rb"):
        make_room(cache, needed)
        unused = iter(_longest_unused_first(cache))
        while True:
            stream = FileIO(partial, "w+")
            try:
                _reserve(stream.fileno(), needed)
                return stream
            except BaseException as error:
                stream.close()
                full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
                if not full or not any(_removed(cache, key) for key, _ in unused):  # the next that can be removed
                    raise


def _reserve(descriptor: int, needed: int) -> None:
    """A full disk is known before anything is decoded, where the system and the file system can tell."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, needed)
            return
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
    os.ftruncate(descriptor, needed)


def make_room(cache: Cache, needed: int) -> None:
    """Remove the longest unused entries until `needed` more bytes fit, none that is in use or being built.

    Raises:
        CacheUnusableError: they would not fit beside what is in use; nothing is removed if they never would.
    """
    if needed > cache.max_bytes:
        raise CacheUnusableError(f"{_gib(needed)} needed, the cache holds {_gib(cache.max_bytes)}")
    entries = _longest_unused_first(cache)
    held = sum(size for _, size in entries)
    for key, size in entries:
        if held + needed <= cache.max_bytes:
            return
        if _removed(cache, key):
            held -= size
    if held + needed > cache.max_bytes:
        raise CacheUnusableError(f"{_gib(held)} of {_gib(cache.max_bytes)} are in use")


def _longest_unused_first(cache: Cache) -> list[tuple[str, int]]:
    """(key, bytes) of everything in the folder that is the cache's, whole or not."""
    sizes: dict[str, int] = {}
    used_at: dict[str, float] = {}
    for entry in os.scandir(cache.folder):
        named = _FILE_NAME.fullmatch(entry.name)
        if named is None:
            continue
        with suppress(FileNotFoundError):
            status = entry.stat()
            sizes[named[1]] = sizes.get(named[1], 0) + status.st_size
            used_at[named[1]] = max(used_at.get(named[1], 0.0), status.st_mtime)
    return sorted(sizes.items(), key=lambda entry: used_at[entry[0]])


def _removed(cache: Cache, key: str) -> bool:
    """Remove an entry unless it is in use."""
    lock, pixels = cache.folder / f"{key}.lock", cache.folder / f"{key}.pixels"
    try:
        with os.fdopen(_locked(lock, wait=False), "rb"):
            if pixels.exists():
                with pixels.open("rb") as stream:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _unlink(cache, key)
            else:
                _unlink(cache, key)
            return True
    except OSError:
        return False


def _unlink(cache: Cache, key: str) -> None:
    for ending in ("json", "pixels", "partial", "lock"):
        (cache.folder / f"{key}.{ending}").unlink(missing_ok=True)


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
