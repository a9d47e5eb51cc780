"""`run.log` in a run's folder: what the run said, with the time, whatever was shown of it."""

import os
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

FILE = "run.log"
_MOST_WAITING = 1000


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


class RunLog:
    """Appends a line at a time, each in one write, so that a kill leaves at most half of the last one.

    The folder is the store's to make, so the file is opened with the first line after that; lines before it wait. A log
    that cannot be written is no reason to end a run: `trouble` is told once, and every later line is tried again.
    """

    def __init__(self, folder: Path, begun: str, trouble: Callable[[str], None], now: Callable[[], str] = _now) -> None:
        """`begun`: the line of this start, written with `begin` or before anything else that is."""
        self._path, self._trouble, self._now = folder / FILE, trouble, now
        self._waiting = [f"{now()} {begun}\n"]
        self._file: int | None = None
        self._torn = False
        self._told = False

    @property
    def begun(self) -> bool:
        """Whether this start has written anything."""
        return self._file is not None

    def begin(self) -> None:
        """Write what waits: the run has begun."""
        self._write_waiting()

    def write(self, words: str) -> None:
        """Append a line."""
        self._waiting = self._waiting[-_MOST_WAITING:]
        self._waiting.append(f"{self._now()} {' '.join(words.split())}\n")
        self._write_waiting()

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            with suppress(OSError):
                os.close(self._file)
            self._file = None

    def _write_waiting(self) -> None:
        if self._file is None and not self._path.parent.is_dir():
            return
        try:
            if self._file is None:
                self._file = self._open()
            while self._waiting:
                self._append(self._waiting[0])
                self._waiting.pop(0)
        except OSError as error:
            if not self._told:
                self._told = True
                self._trouble(f"{self._path} cannot be written ({error.strerror or error}): going on without it")

    def _open(self) -> int:
        file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o644)
        size = os.fstat(file).st_size
        self._torn = size > 0 and os.pread(file, 1, size - 1) != b"\n"
        return file

    def _append(self, line: str) -> None:
        assert self._file is not None
        content = (b"\n" if self._torn else b"") + line.encode(errors="backslashreplace")
        written = os.write(self._file, content)
        self._torn = written < len(content)  # a disk that has just got full; the line is written again
        if self._torn:
            raise OSError(f"{written} of {len(content)} bytes written")
