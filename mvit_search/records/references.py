"""References to a candidate, the same everywhere: preset, config file, `RUN/NUMBER|best|knee|@5ms`."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from mvit_search.architecture import PRESETS, MobileViTConfig, parse_config, preset
from mvit_search.errors import InputError, UnknownNameError
from mvit_search.records.record import Record
from mvit_search.records.run_folder import RunFolder
from mvit_search.space import Document, read_document, read_yaml


class Reference(NamedTuple):
    """A resolved reference; `record` is set where it points into a run."""

    name: str
    config: MobileViTConfig
    record: Record | None = None


def resolve(reference: str, results_dir: Path) -> Reference:
    """Find what `reference` means.

    Raises:
        UnknownNameError: an unknown preset, run or selector, with the nearest name.
        InputError: a file that cannot be read or is no config.
    """
    if reference in PRESETS:
        return Reference(reference, preset(reference))
    path = Path(reference)
    if path.suffix in (".yaml", ".yml", ".json"):
        return Reference(path.stem, _read_config(path))
    run, slash, selector = reference.rpartition("/")
    if not slash:
        if (results_dir / reference / "run.json").is_file():
            raise InputError("reference", reference, "is a run", f"say which candidate: {reference}/best")
        raise UnknownNameError("preset", reference, PRESETS)
    folder = find_run(run, results_dir)
    record = folder.select(selector)
    return Reference(f"{folder.name}/{record.number}", record.config, record)


def find_run(reference: str, results_dir: Path) -> RunFolder:
    """The run of that name under `results_dir`, or at that path."""
    for path in (results_dir / reference, Path(reference)):
        if (path / "run.json").is_file():
            return RunFolder(path)
    raise UnknownNameError("run", reference, run_names(results_dir))


def run_names(results_dir: Path) -> tuple[str, ...]:
    """Runs under `results_dir`, by name."""
    return tuple(sorted(path.parent.name for path in results_dir.glob("*/run.json")))


def _read_config(path: Path) -> MobileViTConfig:
    data = read_yaml(path, "config") if path.suffix != ".json" else _read_json(path)
    try:
        return parse_config(data, source="config")
    except InputError as error:
        field = error.field.removeprefix("config").removeprefix(": ")
        raise _with_lines(path).located(error, "config", field) from None


def _with_lines(path: Path) -> Document:
    """The file once more, now read for its lines: JSON is YAML too, but for a few files, which then have none."""
    try:
        return read_document(path, "config")
    except InputError:
        return Document(path.name, None, None)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError("config", str(path), "there is no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError("config", str(path), f"is not valid JSON ({error})") from None
