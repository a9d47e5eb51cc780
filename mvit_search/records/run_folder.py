"""A run's folder: what it holds, and reading and writing it.

`run.json` says what the run is, `front.json`/`front.csv` the Pareto set, `candidates.csv` every finished
candidate. All are derived from the Optuna storage and written whole and atomically, so a reader never
sees half a file.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mvit_search._files import write_atomically
from mvit_search._quantities import parse_milliseconds
from mvit_search.errors import InputError, UnknownNameError
from mvit_search.records.objectives import DEFAULT_OBJECTIVES, check_objectives
from mvit_search.records.pareto import best, best_within, knee, pareto_front
from mvit_search.records.record import Record

_COLUMNS = (
    "ref", "name", "trial", "origin", "outcome", "params", "macs", "weight_bytes", "peak_activation_bytes",
    "latency_ms", "latency_low_ms", "latency_high_ms", "latency_source", "latency_target", "latency_protocol",
    "top1", "top1_std", "top1_by_seed", "train_seconds", "largest_batch", "error", "failure", "within",
    "evaluations", "digest", "config",
)  # fmt: skip
_NEWER_COLUMNS = ("largest_batch", "failure", "within", "evaluations")
"""Runs recorded before these were known lack them."""
_SCORE_COLUMNS = ("score", "score_std", "score_by_seed")
"""Only in the files of a run that scored its candidates and trained none."""
_JSON_COLUMNS = ("top1_by_seed", "within", "evaluations", "config")


class RunFolder:
    """Reads and writes `results/<run>/`; `name` is what references start with."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.resolve().name

    @property
    def run_file(self) -> Path:
        return self.path / "run.json"

    @property
    def report_file(self) -> Path:
        return self.path / "report.html"

    @property
    def study_file(self) -> Path:
        return self.path / "study.journal"

    def exists(self) -> bool:
        return self.run_file.is_file()

    def read_run(self) -> dict[str, Any]:
        """`run.json`. Raises InputError where there is none, or none that can be read."""
        return self._read_json("run.json")

    def read_front(self) -> dict[str, Any]:
        """`front.json`: the document that `run --json` and `front --json` print."""
        return self._read_json("front.json")

    def write_run(self, document: dict[str, Any]) -> None:
        write_atomically(self.run_file, json.dumps(document, indent=2) + "\n")

    def write_results(
        self, document: dict[str, Any], records: Sequence[Record], front: Sequence[Record] | None = None
    ) -> None:
        """Write front and candidates; the front last, as the file that readers poll.

        `front` are the front's members where they are at hand; else they are looked up by the document's objectives.
        """
        members = pareto_front(records, _objectives(document)) if front is None else front
        write_atomically(self.path / "candidates.csv", self._csv(records))
        write_atomically(self.path / "front.csv", self._csv(members))
        write_atomically(self.path / "front.json", json.dumps(document, indent=2) + "\n")

    def records(self) -> tuple[Record, ...]:
        """Every finished candidate, from `candidates.csv`."""
        path = self.path / "candidates.csv"
        try:
            with path.open(encoding="utf-8", newline="") as stream:
                reader = csv.DictReader(stream)
                _check_columns(reader.fieldnames or ())
                return tuple(_record(row) for row in reader)
        except FileNotFoundError:
            raise InputError("run", self.name, "has no finished candidate yet") from None
        except (OSError, ValueError, TypeError, csv.Error) as error:
            # TypeError: a row that was cut short has None in its last columns.
            raise InputError(
                "run", str(path), f"cannot be read ({type(error).__name__})", "was it edited or cut?"
            ) from None

    def objectives(self) -> tuple[str, ...]:
        """What the run optimised, from `front.json`; of a run that wrote none, the value and the latency."""
        if not (self.path / "front.json").is_file():
            return DEFAULT_OBJECTIVES
        return _objectives(self.read_front())

    def select(self, selector: str) -> Record:
        """`12`, `best`, `knee` or `@5ms` -> the record it means; the latter three by the run's objectives."""
        records = self.records()
        if selector.isascii() and selector.isdecimal():
            for record in records:
                if record.number == int(selector):
                    return record
            raise InputError("candidate", f"{self.name}/{selector}", f"the run has the numbers 0 to {len(records) - 1}")
        objectives = self.objectives()
        front = pareto_front(records, objectives)
        if not front:
            raise InputError("candidate", f"{self.name}/{selector}", "the run has no trained candidate yet")
        if selector == "best":
            return best(front)
        if selector == "knee":
            return knee(front, objectives)
        if selector.startswith("@"):
            # By latency, whether or not that was an objective.
            front = pareto_front(records)
            limit = parse_milliseconds(selector[1:], "candidate")
            found = best_within(front, limit)
            if found is None:
                raise InputError(
                    "candidate",
                    f"{self.name}/{selector}",
                    f"the fastest on the front takes {front[0].latency_ms:.2f} ms ({_how(front[0])})",
                )
            return found
        raise UnknownNameError("candidate", selector, ("best", "knee", "@5ms", "a number"))

    def _csv(self, records: Iterable[Record]) -> str:
        chosen = list(records)
        scored = any(record.score_by_seed for record in chosen)
        stream = io.StringIO()
        columns = (*_COLUMNS, *_SCORE_COLUMNS) if scored else _COLUMNS
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        for record in chosen:
            row = record.row(self.name)
            if "score_by_seed" in row:
                row["score_by_seed"] = json.dumps(row["score_by_seed"], separators=(",", ":"))
            latency = record.latency
            row |= {"latency_target": latency.target, "latency_protocol": latency.protocol} if latency else {}
            row |= {key: json.dumps(row[key], separators=(",", ":")) for key in _JSON_COLUMNS}
            writer.writerow(row)
        return stream.getvalue()

    def _read_json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            document = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
        except FileNotFoundError:
            raise InputError("run", self.name, f"has no {name}", "is it the folder of a run?") from None
        except (OSError, ValueError, RecursionError) as error:
            raise InputError("run", str(path), f"cannot be read ({error})") from None
        if not isinstance(document, dict):
            raise InputError("run", str(path), "must hold a JSON object")
        return document


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")


def _objectives(document: Mapping[str, Any]) -> tuple[str, ...]:
    """Of a front document, `DEFAULT_OBJECTIVES` where it does not say: all that older runs had."""
    keys = document.get("objectives", DEFAULT_OBJECTIVES)
    if not isinstance(keys, (list, tuple)) or not all(isinstance(key, str) for key in keys):
        raise InputError("front.json: objectives", str(keys), "must be a list of names", "was it edited?")
    return check_objectives(tuple(keys))


def _check_columns(names: Sequence[str]) -> None:
    """Raises ValueError unless these are the columns of a candidates.csv, of today's or of an older one."""
    lacking = {*_COLUMNS} - {*_NEWER_COLUMNS, *names}
    unknown = {*names} - {*_COLUMNS, *_SCORE_COLUMNS}
    if lacking or unknown or len(names) != len({*names}):
        raise ValueError("its columns are not those of a candidates.csv")


def _how(record: Record) -> str:
    return record.latency.how if record.latency else "unknown"


def _record(row: dict[str, str]) -> Record:
    latency = {name: row[f"latency_{name}"] for name in ("ms", "low_ms", "high_ms", "source", "target", "protocol")}
    return Record.model_validate({
        "number": int(row["ref"].rpartition("/")[2]),
        "name": row["name"] or None,
        "trial": int(row["trial"]) if row["trial"] else None,
        "latency": latency if row["latency_ms"] else None,
        "error": row["error"] or None,
        "failure": row.get("failure") or None,
        "within": json.loads(row.get("within", "true")),
        "evaluations": json.loads(row.get("evaluations", "[]")),
        "largest_batch": int(row["largest_batch"]) if row.get("largest_batch") else None,
        **{key: row[key] for key in ("origin", "outcome", "digest")},
        **{key: int(row[key]) for key in ("params", "macs", "weight_bytes", "peak_activation_bytes")},
        "train_seconds": float(row["train_seconds"]),
        "score_by_seed": json.loads(row.get("score_by_seed") or "{}"),
        **{key: json.loads(row[key]) for key in ("top1_by_seed", "config")},
    })  # fmt: skip
