"""A study in any database that Optuna can use, in Optuna's own tables, with a transaction a trial.

Optuna's storage makes a transaction, and several queries, for each parameter of a trial; a handful of statements do
the same here. All of them go over one connection, the one that holds the study's lock: a run that lost its lock with
its connection cannot write before it has taken it anew.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from mvit_search.errors import ConflictError, WorkError
from mvit_search.search.storage import _rows, locks
from mvit_search.search.storage._base import Loaded, check_directions
from mvit_search.search.storage._database import FIELD, Database

if TYPE_CHECKING:
    from sqlalchemy import Connection

PATIENCE_S = 60.0
"""How long a database that went away is waited for."""

_Write = Callable[["Connection"], None]


class RdbBacking:
    """One study of a database that may hold more. Open it with `open`."""

    def __init__(
        self, database: Database, study_name: str, distributions: Mapping[str, BaseDistribution], patience_s: float
    ) -> None:
        self._database = database
        self._study_name = study_name
        self._distributions = distributions
        self._patience_s = patience_s
        self._engine = database.engine()
        self._connection: Connection | None = None
        self._file_lock: locks.FileLock | None = None
        self._me = locks.Owner.me()
        self._study = -1
        self._ids: dict[int, int] = {}
        self._pending: list[_Write] | None = None
        self._again = False
        self._written = datetime.now()

    @classmethod
    def open(
        cls, url: str, study_name: str, directions: Sequence[StudyDirection],
        distributions: Mapping[str, BaseDistribution], patience_s: float = PATIENCE_S,
    ) -> Self:  # fmt: skip
        """Hold and open the study in the database, or begin it.

        Args:
            patience_s: how long a database that goes away later is waited for.

        Raises:
            InputError: no such database, or one that cannot be read and written.
            ConflictError: another live process has the study, or it belongs to a run with other objectives.
        """
        database = Database(url)
        database.prepare()
        backing = cls(database, study_name, distributions, patience_s)
        try:
            with database.explained():
                backing._hold()
                backing._find(directions)
        except BaseException:
            backing.close()
            raise
        return backing

    def load(self) -> Loaded:
        with self._database.explained(), self._connected().begin():
            loaded, self._ids = _rows.load(self._connected(), self._study, self._distributions)
        return loaded

    def create_trial(self, trial: FrozenTrial) -> None:
        content = _rows.rows_of(trial, self._study)

        def write(connection: "Connection") -> None:
            if self._is_next(connection, trial.number, content.trial["datetime_start"]):
                self._ids[trial.number] = _rows.insert_trial(connection, content)

        self._write(write)

    def finish_trial(self, number: int, state: TrialState, values: Sequence[float] | None) -> None:
        ended = datetime.now()

        def write(connection: "Connection") -> None:
            trial_id = self._ids.get(number)
            if trial_id is not None and _rows.finish_trial(connection, trial_id, state, values, ended):
                return
            if not (self._again and trial_id is not None and _rows.state_of(connection, trial_id) == state):
                raise self._conflict(f"has no unfinished trial {number}")

        self._write(write)

    def set_user_attrs(self, attributes: Mapping[str, Any]) -> None:
        texts = {name: json.dumps(value) for name, value in attributes.items()}

        def write(connection: "Connection") -> None:
            for name, text in texts.items():
                _rows.set_attribute(connection, _rows.tables().study_user_attrs, self._study, name, text)

        self._write(write)

    def set_system_attr(self, key: str, value: Any) -> None:
        text = json.dumps(value)
        self._write(lambda connection: _rows.set_attribute(
            connection, _rows.tables().study_system_attrs, self._study, key, text
        ))  # fmt: skip

    @contextmanager
    def transaction(self) -> Iterator[None]:
        if self._pending is not None:
            yield
            return
        self._pending = []
        try:
            yield
            writes = self._pending
        finally:
            self._pending = None
        self._run(writes)

    def close(self) -> None:
        self._drop()
        self._engine.dispose()
        if self._file_lock is not None:
            self._file_lock.close()

    def _hold(self) -> None:
        """Take the study's lock."""
        try:
            if self._database.is_sqlite and self._file_lock is None:
                self._file_lock = locks.FileLock(locks.sqlite_lock_file(self._database.file, self._study_name))
            self._connection = self._engine.connect()
            if not locks.take_study(self._connection, self._study_name):
                with self._connection.begin():
                    owner = _rows.owner(self._connection, self._study_name)
                self._drop()
                raise locks.Held(owner)
        except locks.Held as held:
            if self._again and held.owner == self._me:
                raise  # our own last connection, of which the server does not know yet that it is gone
            advice = "wait for it, or give another --name"
            raise ConflictError(FIELD, self._database.shown, f"the study {self._study_name!r} {held}", advice) from None

    def _find(self, directions: Sequence[StudyDirection]) -> None:
        """Find or begin the study, and sign it."""
        connection = self._connected()
        with connection.begin():
            found = _rows.find_study(connection, self._study_name)
            if found is None:
                self._study = _rows.begin_study(connection, self._study_name, directions)
            else:
                self._study, theirs = found
                check_directions(theirs, directions, FIELD, self._database.shown)
            text = json.dumps(self._me._asdict())
            _rows.set_attribute(connection, _rows.tables().study_user_attrs, self._study, locks.OWNER, text)

    def _connected(self) -> "Connection":
        if self._connection is None:
            self._hold()
            assert self._connection is not None
            with self._connection.begin():
                owner = _rows.owner(self._connection, self._study_name)
            if owner != self._me:
                raise self._conflict("was taken over by another run while the database was away")
        return self._connection

    def _is_next(self, connection: "Connection", number: int, started: datetime | None) -> bool:
        """Whether a trial of that number is to be added; False if that was done by a commit of unknown outcome.

        Raises:
            ConflictError: somebody else adds trials.
        """
        if not _rows.lock_study(connection, self._study):
            raise self._conflict("was deleted by another process")
        if self._again:
            there = _rows.find_trial(connection, self._study, number, started)
            if there is not None:
                self._ids[number] = there
                return False
        latest = _rows.latest_number(connection, self._study)
        if latest != number - 1:
            raise self._conflict(
                f"was changed by another process: it has {latest + 1} trials where this run left {number}"
            )
        return True

    def _write(self, write: _Write) -> None:
        if self._pending is not None:
            self._pending.append(write)
        else:
            self._run([write])

    def _run(self, writes: list[_Write]) -> None:
        """Make the writes one transaction, again and again while the database is away, for as long as is patient."""
        from sqlalchemy.exc import SQLAlchemyError

        if not writes:
            return
        deadline, pause_s = time.monotonic() + self._patience_s, 0.1
        self._again = False
        while True:
            try:
                connection = self._connected()
                with connection.begin():
                    for write in writes:
                        write(connection)
            except (SQLAlchemyError, locks.Held) as error:
                may_return = self._may_return(error)
                if may_return:
                    self._drop()
                if not may_return or time.monotonic() + pause_s > deadline:
                    raise self._gave_up(error) from None
            else:
                self._written = datetime.now()
                return
            self._again = True
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 5.0)

    def _may_return(self, error: Exception) -> bool:
        from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

        if self._database.is_sqlite:
            return False  # it has waited for other writers by itself
        lost = isinstance(error, DBAPIError) and error.connection_invalidated
        return lost or isinstance(error, OperationalError | InterfaceError | locks.Held)

    def _gave_up(self, error: Exception) -> WorkError:
        reason = self._database.reason(error)
        return WorkError(
            f"{FIELD} {self._database.shown}: the database does not take what is written ({reason}); all that was "
            f"finished until {self._written:%H:%M:%S} is in it, and the same command carries on from there"
        )

    def _drop(self) -> None:
        if self._connection is not None:
            # Closed, not handed back to the pool, which would keep the lock; where the server is gone, that fails.
            with contextlib.suppress(Exception):
                self._connection.invalidate()
            with contextlib.suppress(Exception):
                self._connection.close()
            self._connection = None

    def _conflict(self, rule: str) -> ConflictError:
        what = f"the study {self._study_name!r} {rule}"
        return ConflictError(FIELD, self._database.shown, what, "only one run may write to it; look for another")
