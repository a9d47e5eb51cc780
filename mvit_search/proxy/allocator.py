"""Freed memory stays with the process while it trains, so that a step does not ask the system for it anew.

glibc gives every block above 32 MiB back to the system when it is freed, and a good part of what is smaller. A training
step allocates and frees the same hundreds of megabytes again and again, and the system clears every page of them each
time: a seventh of a step's time at 64 px, more on a busy machine (docs/training-speed.md).
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# malloc.h of glibc.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_NEVER = 2**31 - 1
_USUAL_MMAP_MAX = 65_536
_LARGEST_USUAL_THRESHOLD = 32 * 2**20  # what the moving default ends at after large blocks


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep freed memory within the block; afterwards it goes back to the system. Nothing happens without glibc.

    The setting is the process's. Results do not depend on it.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    libc.mallopt(_MMAP_MAX, 0)
    libc.mallopt(_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        libc.mallopt(_MMAP_MAX, _USUAL_MMAP_MAX)
        libc.mallopt(_MMAP_THRESHOLD, _LARGEST_USUAL_THRESHOLD)
        libc.mallopt(_TRIM_THRESHOLD, 2 * _LARGEST_USUAL_THRESHOLD)
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """The C library, where it is glibc: macOS, Windows and musl have no `mallopt`, or one that does nothing."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
