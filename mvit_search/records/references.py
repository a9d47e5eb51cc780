"""References to a candidate, the same everywhere: preset, config file, `RUN/NUMBER|best|knee|@5ms`."""

from pathlib import Path
from typing import NamedTuple

from mvit_search.architecture import PRESETS, MobileViTConfig, parse_config, preset
from mvit_search.errors import InputError, UnknownNameError
from mvit_search.records.record import Record
from mvit_search.records.run_folder import RunFolder
from mvit_search.space import read_document

_SUFFIXES = (".yaml", ".yml", ".json")


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
    if path.suffix.lower() in _SUFFIXES:
        return Reference(path.stem, _read_config(path))
    if _is_file(path):
        raise InputError("config", reference, "must end in .yaml, .yml or .json", "rename the file")
    run, slash, selector = reference.rpartition("/")
    if not slash:
        if _is_file(results_dir / reference / "run.json"):
            raise InputError("reference", reference, "is a run", f"say which candidate: {reference}/best")
        raise UnknownNameError("preset", reference, PRESETS)
    folder = find_run(run, results_dir)
    record = folder.select(selector)
    return Reference(f"{folder.name}/{record.number}", record.config, record)


def find_run(reference: str, results_dir: Path) -> RunFolder:
    """The run of that name under `results_dir`, or at that path."""
    for path in (results_dir / reference, Path(reference)):
        if _is_file(path / "run.json"):
            return RunFolder(path)
    raise UnknownNameError("run", reference, run_names(results_dir))


def run_names(results_dir: Path) -> tuple[str, ...]:
    """Runs under `results_dir`, by name."""
    return tuple(sorted(path.parent.name for path in results_dir.glob("*/run.json")))


def _is_file(path: Path) -> bool:
    """Whether there is such a file; a folder on the way that may not be entered is no answer."""
    try:
        return path.is_file()
    except OSError as error:
        raise InputError("reference", str(path), f"cannot be read ({error.strerror})") from None


def _read_config(path: Path) -> MobileViTConfig:
    document = read_document(path, "config")
    try:
        return parse_config(document.data, source="config")
    except InputError as error:
        field = error.field.removeprefix("config").removeprefix(": ")
        raise document.located(error, "config", field) from None
