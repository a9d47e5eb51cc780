"""A run that a live process holds."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from mvit_search.records import RunFolder


@contextmanager
def held_lock(folder: RunFolder) -> Iterator[None]:
    """The folder's lock as a search holds it."""
    with (folder.path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
