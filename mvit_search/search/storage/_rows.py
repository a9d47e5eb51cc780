"""The statements on Optuna's tables: a study's rows, a trial's rows, and all of them at once."""

import functools
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from mvit_search.search.storage import locks
from mvit_search.search.storage._base import Attributes, Loaded

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

_FINISHED = (TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED)
_AT_ONCE = 5000  # rows that a driver holds while they are read


class Tables(NamedTuple):
    """Optuna's tables (`optuna.storages._rdb.models`)."""

    studies: "Table"
    directions: "Table"
    study_user_attrs: "Table"
    study_system_attrs: "Table"
    trials: "Table"
    params: "Table"
    values: "Table"
    trial_user_attrs: "Table"
    trial_system_attrs: "Table"


class TrialRows(NamedTuple):
    """A trial as rows; those of the tables that refer to it without its id, which is yet to be given."""

    trial: dict[str, Any]
    params: list[dict[str, Any]]
    values: list[dict[str, Any]]
    user_attrs: list[dict[str, Any]]
    system_attrs: list[dict[str, Any]]


@functools.cache
def tables() -> Tables:
    from optuna.storages._rdb import models

    kinds = (
        models.StudyModel, models.StudyDirectionModel, models.StudyUserAttributeModel,
        models.StudySystemAttributeModel, models.TrialModel, models.TrialParamModel, models.TrialValueModel,
        models.TrialUserAttributeModel, models.TrialSystemAttributeModel,
    )  # fmt: skip
    return Tables(*(kind.__table__ for kind in kinds))


def find_study(connection: "Connection", name: str) -> tuple[int, list[StudyDirection]] | None:
    """Id and directions of the study."""
    import sqlalchemy as sa

    studies, directions = tables().studies, tables().directions
    study = connection.execute(sa.select(studies.c.study_id).where(studies.c.study_name == name)).scalar()
    if study is None:
        return None
    query = sa.select(directions.c.direction).where(directions.c.study_id == study).order_by(directions.c.objective)
    return study, list(connection.execute(query).scalars())


def begin_study(connection: "Connection", name: str, directions: Sequence[StudyDirection]) -> int:
    """Id of a new study."""
    made = connection.execute(tables().studies.insert().values(study_name=name)).inserted_primary_key
    assert made is not None
    rows = [{"study_id": made[0], "objective": index, "direction": each} for index, each in enumerate(directions)]
    connection.execute(tables().directions.insert(), rows)
    return int(made[0])


def lock_study(connection: "Connection", study: int) -> bool:
    """Keep other writers, Optuna's included, off the study's trials until the transaction ends; False if it is gone."""
    import sqlalchemy as sa

    studies = tables().studies
    query = sa.select(studies.c.study_id).where(studies.c.study_id == study).with_for_update()
    return connection.execute(query).scalar() is not None


def owner(connection: "Connection", study_name: str) -> locks.Owner | None:
    """Who signed the study last."""
    import sqlalchemy as sa

    studies, attributes = tables().studies, tables().study_user_attrs
    query = (
        sa.select(attributes.c.value_json)
        .join(studies, studies.c.study_id == attributes.c.study_id)
        .where(studies.c.study_name == study_name, attributes.c.key == locks.OWNER)
    )
    text = connection.execute(query).scalar()
    return None if text is None else locks.Owner.read(json.loads(text))


def set_attribute(connection: "Connection", table: "Table", study: int, name: str, text: str) -> None:
    """Set an attribute of a study to a JSON text."""
    where = (table.c.study_id == study, table.c.key == name)
    if not connection.execute(table.update().where(*where).values(value_json=text)).rowcount:
        connection.execute(table.insert().values(study_id=study, key=name, value_json=text))


def latest_number(connection: "Connection", study: int) -> int:
    """Number of the trial that was added last; -1 before the first."""
    import sqlalchemy as sa

    trials = tables().trials
    query = sa.select(trials.c.number).where(trials.c.study_id == study).order_by(trials.c.trial_id.desc()).limit(1)
    found = connection.execute(query).scalar()
    return -1 if found is None else int(found)


def find_trial(connection: "Connection", study: int, number: int, started: datetime | None) -> int | None:
    """Id of the trial of that number, if it began at that moment."""
    import sqlalchemy as sa

    trials = tables().trials
    query = sa.select(trials.c.trial_id, trials.c.datetime_start)
    row = connection.execute(query.where(trials.c.study_id == study, trials.c.number == number)).first()
    if row is None or (row[1] is None) != (started is None):
        return None
    # MySQL keeps whole seconds.
    near = started is None or abs((row[1] - started).total_seconds()) <= 1
    return int(row[0]) if near else None


def state_of(connection: "Connection", trial_id: int) -> TrialState | None:
    import sqlalchemy as sa

    trials = tables().trials
    state: TrialState | None = connection.execute(
        sa.select(trials.c.state).where(trials.c.trial_id == trial_id)
    ).scalar()
    return state


def rows_of(trial: FrozenTrial, study: int) -> TrialRows:
    params = [
        {
            "param_name": name,
            "param_value": trial.distributions[name].to_internal_repr(value),
            "distribution_json": distribution_to_json(trial.distributions[name]),
        }
        for name, value in trial.params.items()
    ]
    fields = {
        "study_id": study, "number": trial.number, "state": trial.state,
        "datetime_start": _utc(trial.datetime_start), "datetime_complete": _utc(trial.datetime_complete),
    }  # fmt: skip
    return TrialRows(fields, params, _values(trial.values), _texts(trial.user_attrs), _texts(trial.system_attrs))


def insert_trial(connection: "Connection", content: TrialRows) -> int:
    """Add a trial; gives its id."""
    known = tables()
    made = connection.execute(known.trials.insert().values(content.trial)).inserted_primary_key
    assert made is not None
    parts: tuple[tuple[Table, list[dict[str, Any]]], ...] = (
        (known.params, content.params), (known.values, content.values),
        (known.trial_user_attrs, content.user_attrs), (known.trial_system_attrs, content.system_attrs),
    )  # fmt: skip
    for table, rows in parts:
        if rows:
            connection.execute(table.insert(), [{"trial_id": made[0], **row} for row in rows])
    return int(made[0])


def finish_trial(
    connection: "Connection", trial_id: int, state: TrialState, values: Sequence[float] | None, ended: datetime
) -> bool:
    """Give a trial its end; False if it has one."""
    trials = tables().trials
    change = trials.update().where(trials.c.trial_id == trial_id, trials.c.state.not_in(_FINISHED))
    if not connection.execute(change.values(state=state, datetime_complete=_utc(ended))).rowcount:
        return False
    rows = _values(values)
    if rows:
        connection.execute(tables().values.insert(), [{"trial_id": trial_id, **row} for row in rows])
    return True


def load(
    connection: "Connection", study: int, distributions: Mapping[str, BaseDistribution]
) -> tuple[Loaded, dict[int, int]]:
    """A study, and the ids of its trials by number."""
    import sqlalchemy as sa

    trials = tables().trials
    query = sa.select(
        trials.c.trial_id, trials.c.number, trials.c.state, trials.c.datetime_start, trials.c.datetime_complete
    )
    rows = connection.execute(query.where(trials.c.study_id == study).order_by(trials.c.number)).all()
    params = _load_params(connection, study, distributions)
    values = _load_values(connection, study)
    user_attrs = _load_trial_attrs(connection, tables().trial_user_attrs, study)
    system_attrs = _load_trial_attrs(connection, tables().trial_system_attrs, study)
    found = []
    for trial_id, number, state, started, ended in rows:
        of_trial, of_distributions = params.get(trial_id, ({}, {}))
        trial = FrozenTrial(
            number=number, trial_id=trial_id, state=state, value=None, values=values.get(trial_id),
            datetime_start=_local(started), datetime_complete=_local(ended),
            params=of_trial, distributions=of_distributions,
            user_attrs=user_attrs.get(trial_id, {}), system_attrs=system_attrs.get(trial_id, {}),
            intermediate_values={},
        )  # fmt: skip
        found.append(trial)
    own = _load_attributes(connection, tables().study_user_attrs, study)
    own.pop(locks.OWNER, None)
    system = _load_attributes(connection, tables().study_system_attrs, study)
    return Loaded(Attributes(own), Attributes(system), found), {row[1]: row[0] for row in rows}


def _load_params(
    connection: "Connection", study: int, own: Mapping[str, BaseDistribution]
) -> dict[int, tuple[dict[str, Any], dict[str, BaseDistribution]]]:
    """By trial its parameters and their distributions; equal sets of distributions are one dict."""
    import sqlalchemy as sa

    table, trials = tables().params, tables().trials
    of_study = sa.and_(trials.c.trial_id == table.c.trial_id, trials.c.study_id == study)
    # Nearly always each parameter has one distribution: then its text need not be fetched with each value.
    kinds: dict[str, dict[str, BaseDistribution]] = {}
    query = sa.select(table.c.param_name, table.c.distribution_json).join(trials, of_study).distinct()
    for name, text in connection.execute(query):
        read = json_to_distribution(text)
        kinds.setdefault(name, {})[text] = own[name] if own.get(name) == read else read
    several = any(len(each) > 1 for each in kinds.values())
    columns = [table.c.trial_id, table.c.param_name, table.c.param_value]
    fetched = sa.select(*columns, *([table.c.distribution_json] if several else [])).join(trials, of_study)
    only = {name: next(iter(each.values())) for name, each in kinds.items()}
    order = {name: index for index, name in enumerate(itertools.chain(own, sorted(only)))}
    raw: dict[int, dict[str, tuple[Any, BaseDistribution]]] = {}
    for trial_id, name, value, *text in _each(connection, fetched.order_by(table.c.trial_id)):
        distribution = kinds[name][text[0]] if text else only[name]
        raw.setdefault(trial_id, {})[name] = (value, distribution)
    return _shared(raw, order)


def _shared(
    raw: dict[int, dict[str, tuple[Any, BaseDistribution]]], order: Mapping[str, int]
) -> dict[int, tuple[dict[str, Any], dict[str, BaseDistribution]]]:
    groups: dict[tuple[tuple[str, int], ...], dict[str, BaseDistribution]] = {}
    params = {}
    for trial_id, found in raw.items():
        names = sorted(found, key=order.__getitem__)
        group = groups.setdefault(
            tuple((name, id(found[name][1])) for name in names), {name: found[name][1] for name in names}
        )
        params[trial_id] = ({name: group[name].to_external_repr(found[name][0]) for name in names}, group)
    return params


def _load_values(connection: "Connection", study: int) -> dict[int, list[float]]:
    import sqlalchemy as sa
    from optuna.storages._rdb.models import TrialValueModel

    table, trials = tables().values, tables().trials
    query = sa.select(table.c.trial_id, table.c.value, table.c.value_type).join(
        trials, sa.and_(trials.c.trial_id == table.c.trial_id, trials.c.study_id == study)
    )
    values: dict[int, list[float]] = {}
    for trial_id, value, kind in _each(connection, query.order_by(table.c.trial_id, table.c.objective)):
        values.setdefault(trial_id, []).append(TrialValueModel.stored_repr_to_value(value, kind))
    return values


def _load_trial_attrs(connection: "Connection", table: "Table", study: int) -> dict[int, dict[str, Any]]:
    import sqlalchemy as sa

    trials = tables().trials
    query = sa.select(table.c.trial_id, table.c.key, table.c.value_json).join(
        trials, sa.and_(trials.c.trial_id == table.c.trial_id, trials.c.study_id == study)
    )
    attributes: dict[int, dict[str, Any]] = {}
    for trial_id, key, text in _each(connection, query):
        attributes.setdefault(trial_id, {})[key] = json.loads(text)
    return attributes


def _load_attributes(connection: "Connection", table: "Table", study: int) -> dict[str, str | bytes]:
    import sqlalchemy as sa

    query = sa.select(table.c.key, table.c.value_json).where(table.c.study_id == study)
    query = query.order_by(*table.primary_key.columns)
    return dict(map(tuple, _each(connection, query)))


def _each(connection: "Connection", query: Any) -> Iterable[Any]:
    return connection.execute(query.execution_options(yield_per=_AT_ONCE))


def _values(values: Sequence[float] | None) -> list[dict[str, Any]]:
    from optuna.storages._rdb.models import TrialValueModel

    rows = []
    for objective, value in enumerate(values or ()):
        stored, kind = TrialValueModel.value_to_stored_repr(value)
        rows.append({"objective": objective, "value": stored, "value_type": kind})
    return rows


def _texts(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value_json": json.dumps(value)} for key, value in attributes.items()]


def _utc(when: datetime | None) -> datetime | None:
    return None if when is None else when.astimezone(UTC).replace(tzinfo=None)


def _local(when: datetime | None) -> datetime | None:
    # The tables hold UTC, Optuna's trials local time, both without a zone.
    return None if when is None else when.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)
