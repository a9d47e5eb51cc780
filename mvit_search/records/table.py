"""A table of trainings: one CSV row a candidate, seed, fidelity and epoch; read whole, appended a row at a time.

It is what `mvit-search proxy-check` and the tabular benchmark leave behind, and what `run --table` replays. A
candidate's config stands in its first row alone: it is far longer than the rest of a row.
"""

import csv
import io
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from mvit_search._files import write_atomically
from mvit_search.architecture import MobileViTConfig, parse_config
from mvit_search.architecture.config import validation_input_error
from mvit_search.errors import InputError

Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


@dataclass(frozen=True)
class TableRow:
    """What one training had reached after one of its epochs.

    Attributes:
        name: the preset's name; empty for any other candidate.
        digest: of `config`.
        recipe, data: digests of the recipe and of the images, as much of them as the writer keeps.
        fidelity: name of the schedule that the training belongs to; a table may hold several.
        epoch, epochs: this row's epoch, counted from 1, and the schedule's length. A failed training has the epoch it
            reached, 0 at the least.
        top1: on held-out images, 0..1; None if it failed.
        loss: mean cross-entropy on held-out images; None if it failed.
        image_steps: training images seen so far.
        cpu_seconds: seconds spent so far; whether of a processor or by the clock is the writer's to say.
        latency_ms: on the writer's target; None if it was not asked for.
        error: why it failed; empty where it did not.
        score: of a row without a training, whose fidelity is `zero-cost:NAME` and epoch 0; the higher, the better.
            None of every training.
    """

    name: str
    digest: Annotated[str, Field(min_length=1)]
    seed: Count
    recipe: str
    data: str
    fidelity: Annotated[str, Field(min_length=1)]
    epoch: Count
    epochs: Annotated[int, Field(ge=1)]
    top1: Share | None
    loss: Amount | None
    image_steps: Count
    cpu_seconds: Amount
    params: Count
    macs: Count
    latency_ms: Amount | None
    error: str
    config: MobileViTConfig
    score: Annotated[float, Field(allow_inf_nan=False)] | None = None


# The config last: a row that was cut is then known by its open quote.
COLUMNS = (*(field.name for field in fields(TableRow) if field.name != "config"), "config")
_MAY_BE_NONE = ("top1", "loss", "latency_ms", "score")
_MAY_LACK = ("score",)
"""Tables without zero-cost scores need no column for them."""
_ROW = TypeAdapter(TableRow)


def read_table(path: Path) -> tuple[TableRow, ...]:
    """Every row, in the file's order; columns may stand in any order, and unknown ones are left aside.

    Raises:
        InputError: a file that cannot be read, is empty, lacks a column, or has a row that is none, with its line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "it is no UTF-8 text"
        raise InputError("table", str(path), f"cannot be read ({reason})") from None
    rows = _parsed(text, str(path))
    if not rows:
        raise InputError("table", str(path), "holds no row", "was anything trained for it?")
    return tuple(rows)


def write_table(path: Path, rows: Iterable[TableRow]) -> None:
    """Write a whole table, atomically."""
    write_atomically(path, _csv(COLUMNS) + _lines(rows, set()))


def append_rows(path: Path, rows: Iterable[TableRow]) -> None:
    """Add rows at the end, on the disk when this returns; a new file gets its header first.

    Half a row that a kill left at the end is cut off: it was never acknowledged. One writer at a time.

    Raises:
        InputError: a file with other columns than these in this order.
    """
    if not path.exists() or not path.stat().st_size:
        write_table(path, rows)
        return
    known = _mend(path)
    with path.open("ab") as stream:
        stream.write(_lines(rows, known).encode())
        stream.flush()
        os.fsync(stream.fileno())


def _mend(path: Path) -> set[str]:
    """Check the header, and cut an unfinished last line off; the digests of the whole lines."""
    content = path.read_bytes()
    header = content.partition(b"\n")[0].decode("utf-8-sig", errors="replace").rstrip("\r")
    if header != ",".join(COLUMNS):
        raise InputError("table", str(path), "its columns are not those of a table of trainings", "name another file")
    whole = content.rfind(b"\n") + 1
    if whole != len(content):
        os.truncate(path, whole)
    rows = csv.DictReader(io.StringIO(content[:whole].decode("utf-8-sig"), newline=""))
    return {row["digest"] for row in rows if row["config"]}


def _parsed(text: str, source: str) -> list[TableRow]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[TableRow] = []
    known: dict[str, MobileViTConfig] = {}
    try:
        header = tuple(next(reader, ()))
        lacking = [name for name in COLUMNS if name not in (*header, *_MAY_LACK)]
        if lacking:
            raise InputError("table", source, f"has no column {', '.join(lacking)}", f"it needs {','.join(COLUMNS)}")
        for cells in reader:
            if cells:
                place = f"table {source}, line {reader.line_num}"
                if len(cells) != len(header):
                    raise InputError(place, None, f"has {len(cells)} cells for {len(header)} columns", "was it cut?")
                rows.append(_row(dict(zip(header, cells, strict=True)), place, known))
    except csv.Error as error:
        place = f"table {source}, line {reader.line_num}"
        raise InputError(place, None, f"is no CSV ({error})", "was it cut?") from None
    return rows


def _row(cells: dict[str, str], place: str, known: dict[str, MobileViTConfig]) -> TableRow:
    values: dict[str, Any] = {name: cells.get(name, "") for name in COLUMNS}
    values |= {name: None for name in _MAY_BE_NONE if not cells.get(name)}
    config = values["config"] = _config(cells["config"], values["digest"], place, known)
    try:
        row = _ROW.validate_python(values)
    except ValidationError as error:
        raise validation_input_error(error, place, list(COLUMNS)) from None
    if row.digest != config.digest():
        raise InputError(f"{place}: digest", row.digest, "is not the config's", f"that has {config.digest()}")
    if row.epoch > row.epochs:
        raise InputError(f"{place}: epoch", row.epoch, f"is above epochs ({row.epochs})")
    if (row.top1 is not None) + bool(row.error) + (row.score is not None) != 1:
        raise InputError(f"{place}: top1", row.top1, "a row has a top1, or a score or an error in its place")
    return row


def _config(text: str, digest: str, place: str, known: dict[str, MobileViTConfig]) -> MobileViTConfig:
    """The config of a cell; of an empty one, that of the first row with this digest."""
    if not text:
        if digest not in known:
            raise InputError(f"{place}: config", None, f"is empty, and no row above has one of digest {digest!r}")
        return known[digest]
    if known.get(digest) is None or known[digest].canonical_json() != text:
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{place}: config", None, f"is no JSON ({error})") from None
        known[digest] = parse_config(document, source=f"{place}: config")
    return known[digest]


def _lines(rows: Iterable[TableRow], known: set[str]) -> str:
    """Rows as text; the config only of a digest that is not `known` yet."""
    lines = []
    for row in rows:
        lines.append(_line(row, with_config=row.digest not in known))
        known.add(row.digest)
    return "".join(lines)


def _line(row: TableRow, *, with_config: bool) -> str:
    # One physical line a row, so that a torn one is known by its missing end and an error can name the line.
    values = (getattr(row, name) for name in COLUMNS[:-1])
    cells = ["" if value is None else " ".join(str(value).split()) for value in values]
    return _csv((*cells, row.config.canonical_json() if with_config else ""))


def _csv(cells: Iterable[str]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerow(cells)
    return stream.getvalue()
