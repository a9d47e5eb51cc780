"""A real PostgreSQL server for tests, from the system's packages; where there is none, they skip and say so."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import psycopg
import pytest

PASSWORD = "not:a/secret@all"
_QUOTED = "not%3Aa%2Fsecret%40all"


class Server:
    """A cluster in `folder`, reached at a port of loopback alone. It runs as another user where this one is root."""

    def __init__(self, binaries: Path, folder: Path, *, durable: bool) -> None:
        self._binaries, self._data, self._durable = binaries, folder / "data", durable
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()
        folder.mkdir()
        self._uid: int | None = None
        self._gid: int | None = None
        if os.getuid() == 0:
            user = _other_user()
            self._uid, self._gid = user.pw_uid, user.pw_gid
            os.chown(folder, self._uid, self._gid)
        self._run("initdb", "-D", str(self._data), "-U", "search", "-E", "UTF8", "--locale=C", "--no-sync", "-A",
                  "scram-sha-256", "--pwfile", str(self._password_file(folder)))  # fmt: skip

    def url(self, database: str = "postgres", *, port: int | None = None, password: str = _QUOTED) -> str:
        return f"postgresql+psycopg://search:{password}@127.0.0.1:{port or self.port}/{database}"

    def connect(self, database: str = "postgres") -> "psycopg.Connection":
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user="search", password=PASSWORD, dbname=database, autocommit=True,
            connect_timeout=5,
        )  # fmt: skip

    def new_schema(self) -> str:
        """The URL of a place without tables. A schema is made in no time, where a database is a copy of 7 MB."""
        name = f"s{time.monotonic_ns()}"
        with self.connect() as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        return f"{self.url()}?options=-csearch_path%3D{name}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = {
            "listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": "",
            "fsync": "on" if self._durable else "off", "shared_buffers": "16MB", "max_connections": 30,
        }  # fmt: skip
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        with (self._data.parent / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._binaries / "postgres"), "-D", str(self._data), *options], stdout=log, stderr=log,
                cwd="/", user=self._uid, group=self._gid,
            )  # fmt: skip
        for _ in range(200):
            try:
                self.connect().close()
                return
            except psycopg.OperationalError:
                if self._process.poll() is not None:
                    break
                time.sleep(0.05)
        raise RuntimeError((self._data.parent / "log").read_text())

    def stop(self, *, for_good: bool = False) -> None:
        """End all sessions; what was committed stays, unless it is for good."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT if for_good else signal.SIGINT)
            self._process.wait(timeout=30)
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop(for_good=True)

    def _password_file(self, folder: Path) -> Path:
        file = folder / "password"
        file.write_text(PASSWORD)
        return file

    def _run(self, binary: str, *arguments: str) -> None:
        subprocess.run(
            [str(self._binaries / binary), *arguments],
            check=True,
            capture_output=True,
            cwd="/",
            user=self._uid,
            group=self._gid,
        )


@contextmanager
def server(*, durable: bool = False) -> Iterator[Server]:
    """A running server. Skips the test where PostgreSQL is not installed.

    Args:
        durable: wait for the disk, which a test has no need of.
    """
    binaries = _binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    # Not in pytest's folder, which each session closes to all users but its own.
    with tempfile.TemporaryDirectory(prefix="mvit-search-postgres-") as folder:
        Path(folder).chmod(0o755)
        with Server(binaries, Path(folder) / "cluster", durable=durable) as running:
            yield running


def _binaries() -> Path | None:
    on_path = shutil.which("initdb")
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    found = installed[-1] if installed else Path(on_path) if on_path else None
    return found.resolve().parent if found else None


def _other_user() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    pytest.skip("PostgreSQL does not run as root, and there is no user to run it as")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
