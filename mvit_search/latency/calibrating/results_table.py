"""The table that measuring from a manifest writes and `calibrate` reads: one row a network, as CSV.

A row says how it was measured, word for word as the runtime's protocol does, and holds the whole config: a table is
enough to calibrate with. A network that could not be measured is a row with its error and no times. Rows are counted
as a spreadsheet counts them: the head is row 1.
"""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mvit_search._files import write_atomically
from mvit_search.architecture import MobileViTConfig, parse_config
from mvit_search.errors import ConflictError, InputError
from mvit_search.latency.runtime import Measurement, MeasuringProtocol

PERCENTILES = ("latency_ms", "p10_ms", "p90_ms", "low_ms", "high_ms")
_PROTOCOL = ("device", "system", "compute_units", "runtime", "precision", "io", "threads", "warmup", "rule")
COLUMNS = (
    "digest", "name", *PERCENTILES, "runs", "drift_percent", "settled", *_PROTOCOL, "protocol", "notes", "error",
    "num_classes", "layout", "identity", "config",
)  # fmt: skip
_NEEDED = (
    "digest",
    "latency_ms",
    "low_ms",
    "high_ms",
    *_PROTOCOL,
    "protocol",
    "error",
    "num_classes",
    "layout",
    "config",
)
_WRITTEN_BY = "write the table with `mvit-search measure --manifest`"
_MAX_CLASSES = 1_000_000
_NORMAL_95 = 1.96

Cells = Mapping[str, str]


@dataclass(frozen=True)
class Network:
    """What a row is of: `layout` is the Core ML layout that was converted, `paper` for runtimes without one."""

    name: str
    config: MobileViTConfig
    num_classes: int
    layout: str


@dataclass(frozen=True)
class Result:
    """A measured row: the median and its 95 % interval, milliseconds; `row` is its number in the table."""

    row: int
    network: Network
    latency_ms: float
    low_ms: float
    high_ms: float
    protocol: MeasuringProtocol

    @property
    def uncertainty(self) -> float:
        """Standard deviation of the median, as a natural log."""
        return math.log(self.high_ms / self.low_ms) / (2 * _NORMAL_95)


@dataclass(frozen=True)
class Results:
    """The measured rows of a table, all by one protocol, and how many networks failed."""

    rows: tuple[Result, ...]
    failures: int


def measured_cells(network: Network, measurement: Measurement, identity: str) -> dict[str, str]:
    """A row of a network that was measured."""
    protocol = measurement.protocol
    return {
        **_network_cells(network, identity),
        "latency_ms": f"{measurement.p50_ms:.6g}",
        "p10_ms": f"{measurement.p10_ms:.6g}",
        "p90_ms": f"{measurement.p90_ms:.6g}",
        "low_ms": f"{measurement.low_ms:.6g}",
        "high_ms": f"{measurement.high_ms:.6g}",
        "runs": str(measurement.runs),
        "drift_percent": f"{measurement.drift_percent:.2f}",
        "settled": "yes" if measurement.settled else "no",
        **{field: _text(getattr(protocol, field)) for field in _PROTOCOL},
        "protocol": protocol.digest,
        "notes": "; ".join(measurement.notes),
    }


def failed_cells(network: Network, error: str, identity: str) -> dict[str, str]:
    """A row of a network that could not be measured."""
    return {**_network_cells(network, identity), "error": " ".join(error.split())}


def write_table(rows: Iterable[Cells], path: Path) -> None:
    """Write the whole table atomically.

    Raises:
        InputError: `path` cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    try:
        write_atomically(path, text.getvalue())
    except OSError as error:
        raise InputError("--out", str(path), f"cannot be written ({error.strerror})") from None


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a table that `write_table` wrote, as text; none where there is no file.

    Raises:
        InputError: the file cannot be read.
        ConflictError: it is another table.
    """
    if not path.exists():
        return []
    columns, rows = _read(path)
    if tuple(columns) != COLUMNS:
        raise ConflictError("--out", str(path), "is another table than this command writes", "choose another file")
    return rows


def read_results(path: Path) -> Results:
    """The measured rows of a table.

    Raises:
        InputError: the file cannot be read, lacks columns or measured rows, mixes protocols, or a row has no time
            above zero or a config that is not its digest's; names the row.
    """
    columns, rows = _read(path)
    missing = [column for column in _NEEDED if column not in columns]
    if missing:
        raise InputError(path.name, None, f"lacks the columns {', '.join(missing)}", _WRITTEN_BY)
    found = [_result(cells, number, path) for number, cells in enumerate(rows, start=2) if not cells["error"]]
    if not found:
        raise InputError(path.name, None, "has no measured row", "measure networks first")
    _require_one_protocol(found, path)
    return Results(tuple(found), len(rows) - len(found))


def _network_cells(network: Network, identity: str) -> dict[str, str]:
    config = json.dumps(network.config.model_dump(mode="json"), separators=(",", ":"))
    return {
        "digest": network.config.digest(), "name": network.name, "num_classes": str(network.num_classes),
        "layout": network.layout, "identity": identity, "config": config,
    }  # fmt: skip


def _text(value: str | int | None) -> str:
    return "" if value is None else str(value)


def _read(path: Path) -> tuple[Sequence[str], list[dict[str, str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:  # -sig: spreadsheets put a mark at the start
            reader = csv.DictReader(stream, restkey="", restval="", strict=True)
            rows = list(reader)
    except OSError as error:
        raise InputError(str(path), None, f"cannot be read ({error.strerror})", _WRITTEN_BY) from None
    except (csv.Error, UnicodeError) as error:
        raise InputError(path.name, None, f"is no CSV in UTF-8 ({error})", _WRITTEN_BY) from None
    for number, cells in enumerate(rows, start=2):
        if "" in cells:
            raise InputError(f"{path.name} row {number}", None, "has more cells than the head", _WRITTEN_BY)
    return reader.fieldnames or (), rows


def _result(cells: Cells, number: int, path: Path) -> Result:
    where = f"{path.name} row {number}"
    network = _network(cells, where)
    if network.config.digest() != cells["digest"]:
        rule = f"is not the digest of the row's config, which is {network.config.digest()[:12]}..."
        raise InputError(f"{where}: digest", cells["digest"], rule, _WRITTEN_BY)
    protocol = _protocol(cells, where)
    if protocol.digest != cells["protocol"]:
        rule = f"is not the digest of the row's device, system, runtime and so on, which is {protocol.digest}"
        raise InputError(f"{where}: protocol", cells["protocol"], rule, _WRITTEN_BY)
    middle, low, high = (_milliseconds(cells, column, where) for column in ("latency_ms", "low_ms", "high_ms"))
    if not low <= middle <= high:
        rule = f"must lie between low_ms ({low:g}) and high_ms ({high:g})"
        raise InputError(f"{where}: latency_ms", middle, rule, "measure it anew, or delete the row")
    return Result(number, network, middle, low, high, protocol)


def _network(cells: Cells, where: str) -> Network:
    try:
        document = json.loads(cells["config"])
    except ValueError as error:
        raise InputError(f"{where}: config", None, f"is no JSON ({error})", _WRITTEN_BY) from None
    config = parse_config(document, source=f"{where}: config")
    classes = _whole(cells, "num_classes", where, least=1)
    if classes > _MAX_CLASSES:
        raise InputError(f"{where}: num_classes", classes, f"must be at most {_MAX_CLASSES:,}")
    return Network(cells.get("name") or cells["digest"][:10], config, classes, cells["layout"])


def _milliseconds(cells: Cells, column: str, where: str) -> float:
    try:
        value = float(cells[column])
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        rule = "must be a time above zero, in milliseconds"
        raise InputError(f"{where}: {column}", cells[column], rule, "measure it anew, or delete the row")
    return value


def _protocol(cells: Cells, where: str) -> MeasuringProtocol:
    for column in ("device", "system", "compute_units", "runtime"):
        if not cells[column]:
            raise InputError(f"{where}: {column}", None, "is empty", _WRITTEN_BY)
    return MeasuringProtocol(
        runtime=cells["runtime"],
        device=cells["device"],
        system=cells["system"],
        compute_units=cells["compute_units"],
        precision=cells["precision"],
        io=cells["io"],
        threads=_whole(cells, "threads", where, least=1) if cells["threads"] else None,
        warmup=_whole(cells, "warmup", where, least=0),
        rule=cells["rule"],
    )


def _whole(cells: Cells, column: str, where: str, *, least: int) -> int:
    text = cells[column]
    if not (text.isascii() and text.isdigit()) or int(text[:9]) < least:
        raise InputError(f"{where}: {column}", text, f"must be a whole number of at least {least}", _WRITTEN_BY)
    return int(text[:9])


def _require_one_protocol(rows: Sequence[Result], path: Path) -> None:
    first = rows[0]
    for row in rows:
        if (row.protocol, row.network.layout) != (first.protocol, first.network.layout):
            rule = f"was measured otherwise than row {first.row} (protocol {first.protocol.digest})"
            advice = "one table holds one device, system, runtime and layout: split it"
            raise InputError(f"{path.name} row {row.row}: protocol", row.protocol.digest, rule, advice)
