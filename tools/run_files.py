"""What a run's folder holds, read without the code under test: from the files alone."""

import csv
import io
import json
import sqlite3
import struct
import warnings
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

Valuation = tuple[str, int, int]
"""Digest, seed, rung."""


def records(run: Path) -> list[dict[str, Any]]:
    """Every candidate's record in the study, by number."""
    found = {key: value for key, value in _attributes(run) if key.startswith("candidate:")}
    return sorted(found.values(), key=lambda record: int(record["number"]))


def _attributes(run: Path) -> Iterator[tuple[str, Any]]:
    """The study's, from whole lines of the journal, or from `study.db` beside the run; of several the last holds."""
    for line in lines(run / "study.journal"):
        yield from json.loads(line).get("user_attr", {}).items()
    database = run.parent / "study.db"
    if database.exists():
        with closing(sqlite3.connect(database)) as connection, suppress(sqlite3.OperationalError):  # no table yet
            for key, value in connection.execute("SELECT key, value_json FROM study_user_attributes"):
                yield key, json.loads(value)


def trials(run: Path) -> list[tuple[int, str, list[float] | None]]:
    """(number, state, values) of every trial, as Optuna itself reads the study."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    if (run / "study.journal").exists():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            storage: Any = JournalStorage(JournalFileBackend(str(run / "study.journal")))
    else:
        storage = f"sqlite:///{run.parent / 'study.db'}"
    (summary,) = optuna.get_all_study_summaries(storage)
    study = optuna.load_study(study_name=summary.study_name, storage=storage)
    found = study.get_trials(deepcopy=False)
    return [
        (trial.number, trial.state.name, trial.values if trial.state.name == "COMPLETE" else None) for trial in found
    ]


def finished(run: Path) -> dict[Valuation, Any]:
    """Every valuation in the study, with its value."""
    return {
        (record["digest"], valued["seed"], valued["rung"]): valued["value"]
        for record in records(run)
        for valued in record["evaluations"]
    }


def lines(path: Path) -> list[bytes]:
    """Its whole lines; none where there is no file."""
    if not path.exists():
        return []
    content = path.read_bytes()
    return content[: content.rfind(b"\n") + 1].splitlines()


def trained(trace: Path, begin: int = 0) -> list[tuple[str, str, int]]:
    """(begin or end, digest, seed) of each training from the `begin`-th line on."""
    found = map(json.loads, lines(trace)[begin:])
    return [(line["kind"], line["digest"], line["seed"]) for line in found]


def damaged(run: Path, *, at_rest: bool) -> list[str]:
    """What in a run's folder is no whole file of its kind. `at_rest`: it ended by itself, so nothing is left over."""
    found = []
    for path in sorted(run.rglob("*")) if run.exists() else []:
        if not path.is_file():
            continue
        temporary = path.name.startswith(".") and path.name != ".lock"
        if temporary and at_rest:
            found.append(f"{path.name}: left over")
        if not temporary and (words := _damage(path, at_rest)):
            found.append(f"{path.relative_to(run)}: {words}")
    return found


def _damage(path: Path, at_rest: bool) -> str | None:
    content = path.read_bytes()
    try:
        if path.suffix == ".json":
            json.loads(content)
        elif path.suffix == ".csv":
            rows = list(csv.reader(io.StringIO(content.decode())))
            if not rows or {len(row) for row in rows} != {len(rows[0])}:
                return "rows of several lengths"
        elif path.suffix in (".journal", ".jsonl"):
            for line in lines(path):
                json.loads(line)
            if at_rest and not content.endswith(b"\n"):
                return "half a line"
        elif path.suffix == ".html" and not content.rstrip().endswith(b"</html>"):
            return "no end"
        elif path.suffix == ".safetensors":
            size = struct.unpack("<Q", content[:8])[0]
            ends = [
                part["data_offsets"][1] for name, part in json.loads(content[8 : 8 + size]).items() if name[0] != "_"
            ]
            if len(content) != 8 + size + max(ends):
                return "cut"
    except (ValueError, struct.error, UnicodeDecodeError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def outcome(run: Path) -> dict[str, Any]:
    """What a run came to, but for what the clock says: front, every record and every trial, in order."""
    front = json.loads((run / "front.json").read_text())["front"]
    return {
        "front": [_timeless(point) for point in front],
        "records": [_timeless(record) for record in records(run)],
        "trials": trials(run),
    }


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(part) for key, part in value.items() if key not in ("train_seconds", "seconds")}
    return [_timeless(part) for part in value] if isinstance(value, list) else value
