"""One driver for a run's folder and for a study in a database: locks that die with the process that holds them.

    a folder      flock on `.lock` in it
    SQLite        flock on a file beside the database, one a study
    PostgreSQL    a session's advisory lock
    MySQL         GET_LOCK, which is a session's, too

Whom a lock belongs to stands beside it (in the file, or in an attribute of the study), for nothing but the message.
"""

import fcntl
import hashlib
import json
import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from mvit_search.errors import ConflictError, InputError

if TYPE_CHECKING:
    from sqlalchemy import Connection

OWNER = "owner"
"""Attribute of a study in a database: who held its lock last."""


class Owner(NamedTuple):
    """Who holds a lock, and since when (seconds since 1970)."""

    pid: int
    host: str | None = None
    started: float | None = None

    @classmethod
    def me(cls) -> Self:
        return cls(os.getpid(), socket.gethostname(), round(time.time(), 3))

    @classmethod
    def read(cls, value: Any) -> Self | None:
        """From what `_asdict` gave, or a bare process number, as older versions left it; else None."""
        match value:
            case bool():
                return None
            case int(pid):
                return cls(pid)
            case {"pid": int(pid), "host": str(host), "started": int(started) | float(started)}:
                return cls(pid, host, started)
        return None


def in_use(owner: Owner | None) -> str:
    """`is in use by another run (process 4711 on host attic, for 12 min)`."""
    if owner is None:
        return "is in use by another run (of an unknown process)"
    where = f" on host {owner.host}" if owner.host else ""
    age = f", for {_age(time.time() - owner.started)}" if owner.started is not None else ""
    return f"is in use by another run (process {owner.pid}{where}{age})"


class Held(Exception):
    """A lock that another process holds."""

    def __init__(self, owner: Owner | None) -> None:
        self.owner = owner
        super().__init__(in_use(owner))


class FileLock:
    """A file under flock, with its owner in it. `close` lets go, and so does the end of the process."""

    def __init__(self, path: Path) -> None:
        """Take the lock.

        Raises:
            Held: by another process.
            OSError: the file cannot be made or opened.
        """
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not _flocked(self._file):
                raise Held(_owner_in(self._file))
            content = json.dumps(Owner.me()._asdict()).encode() + b"\n"
            # Written over and then cut: who reads in between finds the whole first line.
            os.pwrite(self._file, content, 0)
            os.ftruncate(self._file, len(content))
        except BaseException:
            os.close(self._file)
            raise

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def hold_folder(folder: Path) -> FileLock:
    """Hold a run's folder, which is made where it is missing.

    Raises:
        ConflictError: another live process holds it; says which, and for how long.
        InputError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / ".lock")
    except Held as held:
        advice = "wait for it, or give another --name"
        raise ConflictError("results folder", str(folder), str(held), advice) from None
    except OSError as error:
        raise InputError("results folder", str(folder), f"cannot be written ({error.strerror})") from None


def sqlite_lock_file(database: Path, study_name: str) -> Path:
    """The file that stands for one study of a SQLite database."""
    return database.with_name(f"{database.name}.{_digest(study_name)[:4].hex()}.lock")


def take_study(connection: "Connection", study_name: str) -> bool:
    """Take a study's lock for as long as the connection lives; False if another session has it.

    A connection that has it already may ask again. Databases of other kinds than PostgreSQL and MySQL have no such
    lock that is known here: True.
    """
    from sqlalchemy import text

    match connection.dialect.name:
        case "postgresql":
            statement = "SELECT pg_try_advisory_lock(:key)"
            # Of a whole database, where the tables may be another schema's.
            schema = connection.execute(text("SELECT current_schema()")).scalar()
            key: int | str = int.from_bytes(_digest(f"{schema}:{study_name}")[:8], signed=True)
        case "mysql" | "mariadb":
            # Names are the whole server's, and 64 characters at most.
            statement = "SELECT GET_LOCK(:key, 0)"
            key = f"mvit-search:{_digest(f'{connection.engine.url.database}:{study_name}').hex()[:40]}"
        case _:
            return True
    taken = bool(connection.execute(text(statement), {"key": key}).scalar())
    connection.commit()
    return taken


def _digest(name: str) -> bytes:
    return hashlib.sha256(f"mvit-search:{name}".encode()).digest()


def _flocked(file: int) -> bool:
    """Take the lock; a second look, because a dashboard that asks whether a run is alive holds it for an instant."""
    for attempt in range(3):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05 * attempt)
        else:
            return True
    return False


def _owner_in(file: int) -> Owner | None:
    try:
        return Owner.read(json.loads(os.pread(file, 4096, 0).split(b"\n")[0]))
    except ValueError:
        return None


def _age(seconds: float) -> str:
    if seconds < 90:
        return f"{max(0, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    if seconds < 48 * 3600:
        return f"{round(seconds / 3600)} h"
    return f"{round(seconds / 86400)} days"
