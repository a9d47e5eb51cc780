"""`mvit-search calibrate`: refit a predicted target with own measurements."""

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mvit_search.cli.arguments import JsonOption
from mvit_search.cli.output import print_json, print_table, say

if TYPE_CHECKING:
    from mvit_search.latency.calibrating.recalibration import Recalibration
    from mvit_search.latency.target_file import TargetFile


def calibrate(
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="Predicted target: iphone12, or the path of its .json file.")
    ],
    results: Annotated[
        Path, typer.Argument(metavar="RESULTS.csv", help="Table that `measure --manifest` wrote.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE.json", help="File to write; default: NAME-vVERSION.json here."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Make another target of that name, for another device.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Also write a page with the plot.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    json: JsonOption = False,
) -> None:  # fmt: skip
    """Refit a predicted target with measured networks, show its error before and after, and write a new version."""
    from mvit_search._files import write_atomically
    from mvit_search.analysis.calibration_facts import document
    from mvit_search.analysis.calibration_page import write_calibration_page
    from mvit_search.analysis.profile_page import require_page_path
    from mvit_search.errors import InputError
    from mvit_search.latency.calibrating.recalibration import recalibrate, require_new_name
    from mvit_search.latency.calibrating.results_table import read_results
    from mvit_search.latency.target_file import text_of

    if html:
        require_page_path(html)
    if name is not None:
        require_new_name(name)
    file = _target_file(target)
    found_rows = read_results(results)
    found = recalibrate(file, found_rows, date=date.today().isoformat(), name=name)
    path = out or Path(f"{found.after.name}-v{found.after.version}.json")
    _require_place(path, found.after.name, force=force)
    try:
        write_atomically(path, text_of(found.after))
    except OSError as error:
        raise InputError("--out", str(path), f"cannot be written ({error.strerror})") from None
    if html:
        write_calibration_page(found, html)
    if json:
        print_json({**document(found), "file": str(path), "failed_rows": found_rows.failures})
        return
    _print(found, found_rows.failures)
    say(f"wrote {path}: use it as --target {path}")
    if html:
        say(f"wrote {html}")


def _target_file(target: str) -> "TargetFile":
    from mvit_search.errors import InputError
    from mvit_search.latency import PredictedTarget, load_target, runtime_names

    loaded = None if target in runtime_names() or "://" in target else load_target(target)
    if not isinstance(loaded, PredictedTarget):
        rule = "measures, so there is nothing to calibrate"
        raise InputError("TARGET", target, rule, "name a predicted target, such as iphone12")
    return loaded.file


def _require_place(path: Path, name: str, *, force: bool) -> None:
    """Refuse a file that is there, or whose name a target of that name cannot have."""
    from mvit_search.errors import ConflictError, InputError

    if path.suffix != ".json" or not (path.stem == name or path.stem.startswith(f"{name}-")):
        raise InputError("--out", str(path), f"must be named {name}.json, or {name}-SOMETHING.json")
    if path.exists() and not force:
        raise ConflictError("--out", str(path), "is there already", "choose another file, or add --force")


def _print(found: "Recalibration", failures: int) -> None:
    from mvit_search.analysis.calibration_facts import (
        ERROR_COLUMNS,
        ROW_COLUMNS,
        comparison_rows,
        error_rows,
        sentences,
    )

    title = f"{found.before.calibration} -> {found.after.name} v{found.after.version}"
    print_table("Own rows", ROW_COLUMNS, comparison_rows(found), left=ROW_COLUMNS[:1])
    print_table(title, ERROR_COLUMNS, error_rows(found), left=(ERROR_COLUMNS[0], ERROR_COLUMNS[-1]))
    for sentence in sentences(found):
        say(sentence)
    if failures:
        say(f"{failures} rows of networks that could not be measured were left out.")
