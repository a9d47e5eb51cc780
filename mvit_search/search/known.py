"""What any run on this machine trained: a file of evaluations, so that no run trains what another did.

`evaluations.sqlite` beside the cache of pictures (`data/cache.py` says where that is). SQLite in WAL mode: any number
of processes read and write at once, and one that is killed leaves the file whole. It only saves time: whatever is
wrong with it switches it off for this run with one notice, and is no error of the run. A damaged file is moved aside.
"""

import hashlib
import json
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple, Self, TypeVar

from mvit_search.architecture import MobileViTConfig
from mvit_search.data.cache import default_cache
from mvit_search.proxy import Recipe
from mvit_search.search.ladder import Ladder
from mvit_search.search.task import Evaluation, Task

if sys.platform != "win32":  # where `default_cache` gives no folder
    import fcntl

FILE = "evaluations.sqlite"
MOST_ROWS = 200_000
"""The oldest beyond these are dropped; some 40 MB."""

_FORMAT = 1
_WAIT_S = 10.0
_CREATE = """
CREATE TABLE IF NOT EXISTS evaluations (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    top1 REAL NOT NULL,
    seconds REAL NOT NULL,
    image_steps INTEGER NOT NULL,
    largest_batch INTEGER,
    trained_at REAL NOT NULL
)"""
_GET = "SELECT top1, seconds, image_steps, largest_batch FROM evaluations WHERE key = ?"
_PUT = """
INSERT INTO evaluations (key, top1, seconds, image_steps, largest_batch, trained_at)
VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING"""
_DROP = "DELETE FROM evaluations WHERE number <= (SELECT max(number) FROM evaluations) - ?"

Notice = Callable[[str], None]
T = TypeVar("T")


class KeyMaker(NamedTuple):
    """Keys of a run's tasks: equal where everything that decides an evaluation is.

    Attributes:
        data_digest: of the images at the full fidelity. Those of other rungs follow from them and the ladder.
        relative_size: see `LadderTrainer`.
        device: its kind counts, not its number.
    """

    recipe: Recipe
    ladder: Ladder
    data_digest: str
    relative_size: Callable[[MobileViTConfig], float]
    device: str = "cpu"
    threads: int = 1

    def key_of(self, task: Task) -> str:
        """64 hexadecimal digits."""
        facts = [
            _FORMAT, task.config.digest(), self.relative_size(task.config), self.recipe.digest(), self.data_digest,
            self.ladder.key(task.rung), task.seed, self.device.partition(":")[0], self.threads, version("torch"),
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


class KnownEvaluations:
    """The file; or, where it cannot be used, nothing: it then knows nothing and keeps nothing."""

    def __init__(self, path: Path | None, notice: Notice, most_rows: int = MOST_ROWS) -> None:
        """`path` None is off from the start, without a notice."""
        self._path, self._notice, self._most_rows = path, notice, most_rows
        self._base: sqlite3.Connection | None = None

    @classmethod
    def open(cls, notice: Notice, environment: Mapping[str, str] = os.environ) -> Self:
        """The file in the cache's folder, made where there is none; off where the cache is.

        Raises:
            InputError: as `default_cache` does.
        """
        cache = default_cache(environment)
        known = cls(None if cache is None else cache.folder.parent / FILE, notice)
        known.get("")  # what is wrong with it is told now
        return known

    def get(self, key: str) -> Evaluation | None:
        """What an earlier run found, as `remembered`; None where it is not known."""
        row = self._guarded(lambda base: base.execute(_GET, (key,)).fetchone())
        return None if row is None else _evaluation(row)

    def put(self, key: str, evaluation: Evaluation) -> None:
        """Keep a success of this run; anything else is passed over."""
        if evaluation.value is None or evaluation.remembered or evaluation.stopped:
            return
        row = (
            key, evaluation.value, evaluation.seconds, evaluation.image_steps, evaluation.largest_batch, time.time()
        )  # fmt: skip
        self._guarded(lambda base: self._write(base, row))

    def close(self) -> None:
        """Safe to call twice; afterwards it is off."""
        self._path = None
        self._hang_up()

    def _write(self, base: sqlite3.Connection, row: tuple[object, ...]) -> None:
        with base:  # one transaction
            base.execute(_PUT, row)
            base.execute(_DROP, (self._most_rows,))

    def _guarded(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """What `work` gives; None once the file cannot be used. A damaged file is moved aside, and begun anew."""
        if self._path is None:
            return None
        for mended in (False, True):
            try:
                self._base = self._base or _patiently_connected(self._path)
                return work(self._base)
            except (sqlite3.Error, OSError) as error:
                self._hang_up()
                if mended or not _says_damaged(error) or not self._moved_aside(self._path):
                    self._off(error)
                    return None
        return None

    def _off(self, error: Exception) -> None:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        self._notice(f"evaluations of other runs are neither used nor kept ({self._path}: {reason})")
        self._path = None

    def _moved_aside(self, path: Path) -> bool:
        """Make place for a new file, unless somebody else did; whether there is place, or a sound file."""
        aside = path.with_name(f"{path.name}.damaged")
        try:
            with path.with_name(f"{path.name}.lock").open("ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if _sound(path):
                    return True
                # The log first: a new file must not meet the log of the old.
                for ending in ("-wal", "-shm"):
                    path.with_name(path.name + ending).unlink(missing_ok=True)
                path.replace(aside)
        except OSError:
            return False
        self._notice(f"the file of earlier evaluations was damaged, and is begun anew; the old one is {aside}")
        return True

    def _hang_up(self) -> None:
        if self._base is not None:
            with suppress(sqlite3.Error):
                self._base.close()
            self._base = None


def _patiently_connected(path: Path) -> sqlite3.Connection:
    """As `_connected`; SQLite does not wait by itself for one who makes, or as the last one closes, the file."""
    end = time.monotonic() + _WAIT_S
    while True:
        try:
            return _connected(path)
        except sqlite3.OperationalError as error:
            if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
        time.sleep(0.01)


def _connected(path: Path) -> sqlite3.Connection:
    """Raises sqlite3.Error, or OSError, where the file is not there and cannot be made, or is none of ours."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    base = sqlite3.connect(path, timeout=_WAIT_S, check_same_thread=False)
    try:
        base.execute("PRAGMA journal_mode = WAL")
        base.execute("PRAGMA synchronous = NORMAL")  # a power cut may lose the last rows, never the file
        (found,) = base.execute("PRAGMA user_version").fetchone()
        if found not in (0, _FORMAT):
            raise sqlite3.NotSupportedError(f"is of format {found}, not {_FORMAT}: another version wrote it")
        if found == 0:
            with base:
                base.execute(_CREATE)
                base.execute(f"PRAGMA user_version = {_FORMAT}")
        base.execute(_GET, ("",)).fetchone()
    except BaseException:
        base.close()
        raise
    return base


def _says_damaged(error: Exception) -> bool:
    """Whether the file is no database, torn inside, or holds other tables than ours."""
    return _code(error) in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR)


def _code(error: Exception) -> int | None:
    """SQLite's primary result code; None for an error that is not SQLite's."""
    code = vars(error).get("sqlite_errorcode")
    return code & 0xFF if isinstance(code, int) else None


def _sound(path: Path) -> bool:
    try:
        with closing(_connected(path)) as base:
            return bool(base.execute("PRAGMA quick_check(1)").fetchone() == ("ok",))
    except sqlite3.Error as error:
        return not _says_damaged(error)


def _evaluation(row: tuple[object, ...]) -> Evaluation | None:
    """A row as an evaluation; None where its values cannot be one."""
    top1, seconds, image_steps, largest_batch = row
    if not isinstance(top1, float) or not 0 <= top1 <= 1 or not isinstance(seconds, float) or not seconds >= 0:
        return None
    if not isinstance(image_steps, int) or image_steps < 0 or not isinstance(largest_batch, int | None):
        return None
    return Evaluation(top1, seconds, largest_batch=largest_batch, image_steps=image_steps, remembered=True)
