"""Measuring what a manifest lists, file by file, into a table that is whole after each."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from mvit_search.errors import ConflictError, InputError, MvitSearchError
from mvit_search.latency.calibrating.manifest import Manifest, PlannedFile, checked_artifact, network_of
from mvit_search.latency.calibrating.results_table import Cells, failed_cells, measured_cells, read_table, write_table
from mvit_search.latency.runtime import LocalRuntime


class Outcome(NamedTuple):
    """What became of one file: `cells` is its row; `known` if an earlier run measured it."""

    file: PlannedFile
    cells: Cells
    known: bool

    @property
    def error(self) -> str:
        """Why it could not be measured; empty if it was."""
        return self.cells.get("error", "")


def measure_manifest(
    manifest: Manifest, folder: Path, runtime: LocalRuntime, table: Path, told: Callable[[Outcome], None]
) -> list[Outcome]:
    """Measure every file of a plan in `folder` that `table` does not hold yet, and write the table after each.

    Whatever was measured stays; what failed in an earlier run is tried again. `told` hears of every file.

    Raises:
        InputError: the runtime cannot run such files or has no device, a file is not the plan's, or the table
            cannot be written.
        ConflictError: the table was measured by another protocol.
    """
    _require_runnable(manifest, runtime)
    rows = read_table(table)
    artifacts = {file.file: checked_artifact(file, folder) for file in manifest.files}
    runtime.require_device()
    identity = runtime.identity
    _require_same(rows, identity, table)
    outcomes = []
    for file in manifest.files:
        own = [cells for cells in rows if _is_of(cells, file, manifest)]
        done = [cells for cells in own if not cells["error"]]
        if done:
            outcome = Outcome(file, done[-1], known=True)
        else:
            outcome = Outcome(file, _measured(file, artifacts[file.file], manifest, runtime, identity), known=False)
            rows = [*(cells for cells in rows if cells not in own), dict(outcome.cells)]
            write_table(rows, table)
        outcomes.append(outcome)
        told(outcome)
    return outcomes


def _measured(
    file: PlannedFile, path: Path, manifest: Manifest, runtime: LocalRuntime, identity: str
) -> Cells:  # fmt: skip
    network = network_of(file, manifest)
    try:
        return measured_cells(network, runtime.measure(path), identity)
    except MvitSearchError as error:
        return failed_cells(network, str(error), identity)


def _is_of(cells: Cells, file: PlannedFile, manifest: Manifest) -> bool:
    network = (file.digest, str(file.num_classes), manifest.wanted.layout)
    return (cells["digest"], cells["num_classes"], cells["layout"]) == network


def _require_runnable(manifest: Manifest, runtime: LocalRuntime) -> None:
    for file in manifest.files:
        if file.suffix != runtime.suffix:
            rule = f"runs {runtime.suffix} files, and the plan holds {file.file}"
            raise InputError("--runtime", runtime.name, rule, f"plan with --runtime {runtime.name}")


def _require_same(rows: list[dict[str, str]], identity: str, table: Path) -> None:
    """A table is of one runtime, device and settings: what has another identity must not be mixed in."""
    for cells in rows:
        if cells["identity"] != identity:
            rule = f"holds rows that were measured otherwise ({cells['identity']}, and this is {identity})"
            raise ConflictError("--out", str(table), rule, "choose another file")
