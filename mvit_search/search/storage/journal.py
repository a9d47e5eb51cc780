"""A study in an Optuna journal file, which Optuna itself and its dashboard can open.

Optuna writes a line, and waits for the disk, for each parameter it suggests, and reads each of them anew. Here a trial
is one line, several lines wait for the disk once, and of the parameters' distributions, two thirds of the file, each
different text is read once.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages.journal import JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from mvit_search.errors import ConflictError, InputError, WorkError
from mvit_search.search.storage import _replay
from mvit_search.search.storage._base import Loaded, check_directions
from mvit_search.search.storage._replay import Operation

_FIELD = "results folder"
_WORKER = "mvit-search"


class JournalBacking:
    """One study in a file that holds nothing else. The run's own lock must be held: `open` mends the file."""

    def __init__(self, path: Path, replay: _replay.Replay) -> None:
        self._path = path
        self._lock = JournalFileOpenLock(str(path))
        self._replay: _replay.Replay | None = replay
        self._trials = len(replay.trials)
        self._unfinished = {trial.number for trial in replay.trials if not trial.state.is_finished()}
        self._end = path.stat().st_size
        self._pending: list[str] | None = None
        self._texts: dict[int, tuple[BaseDistribution, str]] = {}

    @classmethod
    def open(
        cls, path: Path, study_name: str, directions: Sequence[StudyDirection],
        distributions: Mapping[str, BaseDistribution],
    ) -> "JournalBacking":  # fmt: skip
        """Open the study in `path`, or begin it.

        Raises:
            InputError: the file cannot be read or written, is no journal, or holds another study.
            ConflictError: it belongs to a run with other objectives.
        """
        try:
            _mend(path)
            replay = _replay.read(path, distributions)
            if replay.study_name is None:
                _begin(path, study_name, directions)
                replay = _replay.read(path, distributions)
            with path.open("ab"):
                pass
        except OSError as error:
            raise InputError(_FIELD, str(path), f"cannot be read and written ({error.strerror})") from None
        except _replay.Unreadable as error:
            rule = f"holds a study that cannot be read ({error})"
            raise InputError(_FIELD, str(path), rule, "give another --name, or restore the file") from None
        if replay.study_name != study_name:
            rule = f"holds the study {replay.study_name!r}, not one of mvit-search's runs"
            raise InputError(_FIELD, str(path), rule, "give another --name")
        check_directions(replay.directions, directions, _FIELD, str(path))
        return cls(path, replay)

    def load(self) -> Loaded:
        assert self._replay is not None, "load comes once"
        loaded, self._replay = self._replay.loaded(), None
        return loaded

    def create_trial(self, trial: FrozenTrial) -> None:
        if trial.number != self._trials:
            raise self._conflict(f"would get trial {self._trials} where {trial.number} was expected")
        with self.transaction():
            self._write(Operation.CREATE_TRIAL, **self._described(trial))
            self._trials += 1
            if not trial.state.is_finished():
                self._unfinished.add(trial.number)

    def finish_trial(self, number: int, state: TrialState, values: Sequence[float] | None) -> None:
        if number not in self._unfinished:
            raise self._conflict(f"has no unfinished trial {number}")
        with self.transaction():
            fields = {"trial_id": number, "state": int(state), "values": None if values is None else list(values)}
            self._write(Operation.SET_TRIAL_STATE_VALUES, **fields, datetime_complete=_utc(datetime.now()))
            self._unfinished.discard(number)

    def set_user_attrs(self, attributes: Mapping[str, Any]) -> None:
        with self.transaction():
            for key, value in attributes.items():
                self._write(Operation.SET_STUDY_USER_ATTR, study_id=0, user_attr={key: value})

    def set_system_attr(self, key: str, value: Any) -> None:
        with self.transaction():
            self._write(Operation.SET_STUDY_SYSTEM_ATTR, study_id=0, system_attr={key: value})

    @contextmanager
    def transaction(self) -> Iterator[None]:
        if self._pending is not None:
            yield
            return
        trials, unfinished = self._trials, set(self._unfinished)
        self._pending = []
        try:
            yield
            lines, self._pending = self._pending, None
            self._append(lines)
        except BaseException:
            self._trials, self._unfinished = trials, unfinished
            raise
        finally:
            self._pending = None

    def close(self) -> None:
        self._replay = None

    def _described(self, trial: FrozenTrial) -> dict[str, Any]:
        # In this order: the reader cuts out what stands between `distributions` and `params`.
        fields: dict[str, Any] = {
            "study_id": 0,
            "datetime_start": _utc(trial.datetime_start),
            "state": int(trial.state),
            "value": None,
            "values": trial.values,
        }
        if trial.datetime_complete is not None:
            fields["datetime_complete"] = _utc(trial.datetime_complete)
        fields["distributions"] = {name: self._text(dist) for name, dist in trial.distributions.items()}
        fields["params"] = {name: trial.distributions[name].to_internal_repr(v) for name, v in trial.params.items()}
        fields["user_attrs"] = trial.user_attrs
        fields["system_attrs"] = trial.system_attrs
        return fields

    def _text(self, distribution: BaseDistribution) -> str:
        known = self._texts.get(id(distribution))
        if known is None or known[0] is not distribution:
            known = self._texts[id(distribution)] = (distribution, distribution_to_json(distribution))
        return known[1]

    def _write(self, operation: Operation, **fields: Any) -> None:
        assert self._pending is not None
        line = {"op_code": int(operation), "worker_id": _WORKER, **fields}
        self._pending.append(json.dumps(line, separators=(",", ":")))

    def _append(self, lines: list[str]) -> None:
        if not lines:
            return
        content = ("\n".join(lines) + "\n").encode()
        try:
            self._lock.acquire()
            try:
                self._check_others()
                _append(self._path, content, self._end)
            finally:
                self._lock.release()
        except OSError as error:
            rule = f"{self._path}: cannot be written ({error.strerror}); all that was finished before is in it"
            raise WorkError(f"{rule}, and the same command carries on") from None
        self._end += len(content)

    def _check_others(self) -> None:
        """A dashboard may have added a note; a trial means a second run.

        Raises:
            ConflictError: somebody else added to the trials, or cut the file.
        """
        size = self._path.stat().st_size
        if size == self._end:
            return
        if size < self._end or _replay.touches_trials(self._path, self._end):
            raise self._conflict("was changed by another process")
        self._end = size

    def _conflict(self, rule: str) -> ConflictError:
        return ConflictError(
            _FIELD, str(self._path), f"its study {rule}", "only one run may write to it; look for another"
        )


def _begin(path: Path, study_name: str, directions: Sequence[StudyDirection]) -> None:
    fields = {"study_name": study_name, "directions": [int(direction) for direction in directions]}
    line = {"op_code": int(Operation.CREATE_STUDY), "worker_id": _WORKER, **fields}
    _append(path, json.dumps(line, separators=(",", ":")).encode() + b"\n", 0)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _append(path: Path, content: bytes, end: int) -> None:
    """Write `content` at `end`, the end of the file, and wait for the disk; where that fails leave nothing of it."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(file, rest) :]
            os.fsync(file)
        except BaseException:
            os.ftruncate(file, end)
            raise
    finally:
        os.close(file)


def _mend(path: Path) -> None:
    """Undo what a kill can leave behind: a held journal lock, and half a line at the end.

    Safe because the run's own lock is held: nobody else writes. Half a line was never acknowledged; left in place, the
    next append would make it a corrupt line in the middle.
    """
    Path(f"{path}.lock").unlink(missing_ok=True)
    if not path.exists():
        return
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        end, tail = size, b""
        while end and b"\n" not in tail:
            end = max(0, end - (1 << 16))
            file.seek(end)
            tail = file.read(1 << 16)
        whole = end + tail.rfind(b"\n") + 1
        if whole != size:
            file.truncate(whole)
            os.fsync(file.fileno())


def _utc(when: datetime | None) -> str | None:
    return None if when is None else when.astimezone(UTC).isoformat(timespec="microseconds")
