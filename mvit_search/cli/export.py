"""`mvit-search export`: hand a network to the library it will be trained with."""

from pathlib import Path
from typing import Annotated

import typer

from mvit_search.cli.arguments import RESULTS_DIR, JsonOption, NumClassesOption, ReferenceArgument, ResultsDirOption
from mvit_search.cli.output import print_json, say


def export(
    reference: ReferenceArgument,
    to: Annotated[str, typer.Option("--to", help="Destination: corenet.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write to; made if missing.", metavar="DIR")],
    num_classes: NumClassesOption = 1000,
    results_dir: ResultsDirOption = RESULTS_DIR,
    json: JsonOption = False,
) -> None:
    """Write a candidate as a ready-to-train recipe."""
    from mvit_search.export import export as export_config
    from mvit_search.records import resolve

    found = resolve(reference, results_dir)
    result = export_config(found.config, found.name, to, out, num_classes=num_classes)
    document = {"reference": reference, "files": [str(path) for path in result.files], "checks": dict(result.checks)}
    if json:
        print_json(document)
        return
    for path in result.files:
        say(f"wrote {path}")
    say("checks: " + ", ".join(f"{name} {value}" for name, value in result.checks.items()))
