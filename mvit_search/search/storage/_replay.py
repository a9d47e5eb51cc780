"""Reading an Optuna journal of one study, fast: what is the same text in ten thousand lines is read once."""

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import IntEnum
from pathlib import Path
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    IntDistribution,
    json_to_distribution,
)
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from pydantic_core import from_json

from mvit_search.search.storage._base import Attributes, Loaded

_STUDY = 0  # the id of a journal's first study, and of the only one here
_OPERATION = re.compile(rb'\{"op_code":(\d+),')
_ATTRIBUTE = re.compile(
    rb'\{"op_code":[23],"worker_id":"[^"\\]*","study_id":0,"(?:user|system)_attr":\{("(?:[^"\\]|\\.)*"):'
)
# Neither can stand within a JSON string, where the quotes would be escaped.
_FROM, _TO = b',"distributions":{', b'},"params":{'


class Operation(IntEnum):
    """What a line of a journal does; Optuna's numbers (`optuna.storages.journal._storage.JournalOperation`)."""

    CREATE_STUDY = 0
    DELETE_STUDY = 1
    SET_STUDY_USER_ATTR = 2
    SET_STUDY_SYSTEM_ATTR = 3
    CREATE_TRIAL = 4
    SET_TRIAL_PARAM = 5
    SET_TRIAL_STATE_VALUES = 6
    SET_TRIAL_INTERMEDIATE_VALUE = 7
    SET_TRIAL_USER_ATTR = 8
    SET_TRIAL_SYSTEM_ATTR = 9
    DISCARD_TRIALS = 10


class Unreadable(Exception):
    """The file is no journal of one study; the message says in a few words why."""


class Replay:
    """A study as its journal's lines so far make it."""

    def __init__(self, distributions: Mapping[str, BaseDistribution]) -> None:
        self.study_name: str | None = None
        self.directions: list[StudyDirection] = []
        self.trials: list[FrozenTrial] = []
        self._user_attrs: dict[str, str | bytes] = {}
        self._system_attrs: dict[str, str | bytes] = {}
        self._own = {(name, dist): dist for name, dist in distributions.items()}
        self._parsed: dict[tuple[str, str], BaseDistribution] = {}
        self._groups: dict[bytes, _Group] = {}

    def loaded(self) -> Loaded:
        return Loaded(Attributes(self._user_attrs), Attributes(self._system_attrs), self.trials)

    def apply(self, line: bytes) -> None:
        match = _OPERATION.match(line)
        code = int(match[1]) if match else from_json(line)["op_code"]
        if code == Operation.CREATE_TRIAL:
            self._create_trial(line)
        elif code == Operation.SET_TRIAL_STATE_VALUES:
            self._set_state(from_json(line))
        elif code == Operation.SET_STUDY_USER_ATTR:
            _note(self._user_attrs, line, "user_attr")
        elif code == Operation.SET_STUDY_SYSTEM_ATTR:
            _note(self._system_attrs, line, "system_attr")
        else:
            self._apply_rare(Operation(code), from_json(line))

    def _apply_rare(self, operation: Operation, fields: dict[str, Any]) -> None:
        if operation == Operation.CREATE_STUDY:
            self._create_study(fields)
        elif operation == Operation.DELETE_STUDY:
            raise Unreadable("a study was deleted from it")
        elif operation != Operation.DISCARD_TRIALS:  # which Optuna skips, too
            self._change_trial(operation, fields)

    def _create_study(self, fields: dict[str, Any]) -> None:
        if self.study_name is None:
            self.study_name = fields["study_name"]
            self.directions = [StudyDirection(each) for each in fields["directions"]]
        elif self.study_name != fields["study_name"]:
            raise Unreadable("there is more than one study in it")

    def _create_trial(self, line: bytes) -> None:
        start = line.find(_FROM)
        end = line.find(_TO, start) if start >= 0 else -1
        if end >= 0:
            group = self._group(line[start + len(_FROM) - 1 : end + 1])
            fields = from_json(line[:start] + line[end + 1 :], cache_strings="all")
        else:
            fields = from_json(line)
            group = _Group(
                {name: self._distribution(name, text) for name, text in fields.get("distributions", {}).items()}
            )
        if self.study_name is None or fields["study_id"] != _STUDY:
            return
        number = len(self.trials)
        trial = FrozenTrial(
            number=number, trial_id=number,
            state=TrialState(fields.get("state", TrialState.RUNNING)),
            value=fields.get("value"), values=fields.get("values"),
            datetime_start=_local(fields["datetime_start"]), datetime_complete=_local(fields.get("datetime_complete")),
            params=group.params(fields.get("params", {})), distributions=group.distributions,
            user_attrs=fields.get("user_attrs", {}), system_attrs=fields.get("system_attrs", {}),
            intermediate_values={int(step): value for step, value in fields.get("intermediate_values", {}).items()},
        )  # fmt: skip
        self.trials.append(trial)

    def _group(self, text: bytes) -> "_Group":
        group = self._groups.get(text)
        if group is None:
            texts = from_json(text)
            group = self._groups[text] = _Group({name: self._distribution(name, each) for name, each in texts.items()})
        return group

    def _distribution(self, name: str, text: str) -> BaseDistribution:
        known = self._parsed.get((name, text))
        if known is None:
            read = json_to_distribution(text)
            known = self._parsed[name, text] = self._own.get((name, read), read)
        return known

    def _set_state(self, fields: dict[str, Any]) -> None:
        trial = self._unfinished(fields)
        state = TrialState(fields["state"])
        if trial is None or state == trial.state == TrialState.RUNNING:
            return
        trial.state = state
        if state == TrialState.RUNNING:
            trial.datetime_start = _local(fields["datetime_start"])
        if state.is_finished():
            trial.datetime_complete = _local(fields["datetime_complete"])
        if fields["values"] is not None:
            trial.values = fields["values"]

    def _change_trial(self, operation: Operation, fields: dict[str, Any]) -> None:
        trial = self._unfinished(fields)
        if trial is None:
            return
        if operation == Operation.SET_TRIAL_PARAM:
            name = fields["param_name"]
            distribution = self._distribution(name, fields["distribution"])
            # A new dict: it may be shared with other trials.
            trial.distributions = {**trial.distributions, name: distribution}
            trial.params = {**trial.params, name: distribution.to_external_repr(fields["param_value_internal"])}
        elif operation == Operation.SET_TRIAL_INTERMEDIATE_VALUE:
            trial.intermediate_values[fields["step"]] = fields["intermediate_value"]
        elif operation == Operation.SET_TRIAL_USER_ATTR:
            trial.user_attrs.update(fields["user_attr"])
        elif operation == Operation.SET_TRIAL_SYSTEM_ATTR:
            trial.system_attrs.update(fields["system_attr"])

    def _unfinished(self, fields: dict[str, Any]) -> FrozenTrial | None:
        number: int = fields["trial_id"]
        if not 0 <= number < len(self.trials) or self.trials[number].state.is_finished():
            return None
        return self.trials[number]


class _Group:
    """Parameters that come together, and how each is read from Optuna's numbers for it."""

    def __init__(self, distributions: dict[str, BaseDistribution]) -> None:
        self.distributions = distributions
        self._readers = {name: _reader(distribution) for name, distribution in distributions.items()}

    def params(self, internal: Mapping[str, Any]) -> dict[str, Any]:
        readers = self._readers
        return {name: readers[name](value) for name, value in internal.items()}


def read(path: Path, distributions: Mapping[str, BaseDistribution]) -> Replay:
    """The study in the file; without a name where the file is not there or empty.

    Args:
        distributions: the run's own, which stand in for equal ones of the file.

    Raises:
        Unreadable: no journal, or more than one study in it.
        OSError: the file cannot be read.
    """
    replay = Replay(distributions)
    if not path.exists():
        return replay
    lines = 0
    with path.open("rb") as file:
        try:
            for line in file:
                lines += 1
                replay.apply(line)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise Unreadable(f"line {lines} is damaged or none of Optuna's: {type(error).__name__}") from None
    return replay


def touches_trials(path: Path, start: int) -> bool:
    """Whether a line from byte `start` on adds or changes a trial's parameters, state or values."""
    harmless = {Operation.SET_STUDY_USER_ATTR, Operation.SET_STUDY_SYSTEM_ATTR, Operation.SET_TRIAL_USER_ATTR,
                Operation.SET_TRIAL_SYSTEM_ATTR}  # fmt: skip
    with path.open("rb") as file:
        file.seek(start)
        for line in file:
            match = _OPERATION.match(line)
            if match is None or int(match[1]) not in harmless or not line.endswith(b"\n"):
                return True
    return False


def _note(attributes: dict[str, str | bytes], line: bytes, field: str) -> None:
    """Keep an attribute's value as text where the line is as Optuna and we write it."""
    match = _ATTRIBUTE.match(line)
    if match is None or not line.endswith(b"}}\n"):
        fields = from_json(line)
        if fields["study_id"] == _STUDY:
            for name, value in fields[field].items():
                attributes[name] = json.dumps(value)
        return
    attributes[from_json(match[1], cache_strings="none")] = line[match.end() : -3]


def _reader(distribution: BaseDistribution) -> Callable[[Any], Any]:
    if isinstance(distribution, CategoricalDistribution):
        choices = distribution.choices
        return lambda index: choices[int(index)]
    return int if isinstance(distribution, IntDistribution) else float


def _local(text: str | None) -> datetime | None:
    # Optuna's trials carry local time without a zone.
    return None if text is None else datetime.fromisoformat(text).astimezone().replace(tzinfo=None)
