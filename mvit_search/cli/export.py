"""`mvit-search export`: hand a network to the library that it will be trained with, or run by."""

from pathlib import Path
from typing import Annotated

import typer

from mvit_search.cli.arguments import RESULTS_DIR, JsonOption, NumClassesOption, ReferenceArgument, ResultsDirOption
from mvit_search.cli.output import print_json, say


def export(
    reference: ReferenceArgument,
    to: Annotated[str, typer.Option("--to", help="Destination: corenet, coreml.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write to; made if missing.", metavar="DIR")],
    num_classes: NumClassesOption = 1000,
    layout: Annotated[
        str | None, typer.Option("--layout", help="coreml: paper (default), or ane, rewritten for the Neural Engine.")
    ] = None,
    deployment_target: Annotated[
        str | None, typer.Option("--deployment-target", help="coreml: oldest system, iOS15 (default) to iOS18.")
    ] = None,
    input_kind: Annotated[
        str | None, typer.Option("--input", help="coreml: array from 0 to 1 (default), or image, an RGB picture.")
    ] = None,
    results_dir: ResultsDirOption = RESULTS_DIR,
    json: JsonOption = False,
) -> None:
    """Write a candidate as a recipe ready to train (corenet) or as a program to run (coreml)."""
    from mvit_search.export import ExportOptions
    from mvit_search.export import export as export_config
    from mvit_search.records import resolve

    found = resolve(reference, results_dir)
    options = ExportOptions(layout, deployment_target, input_kind)
    result = export_config(found.config, found.name, to, out, num_classes=num_classes, options=options)
    document = {"reference": reference, "files": [str(path) for path in result.files], "checks": dict(result.checks)}
    if json:
        print_json(document)
        return
    for path in result.files:
        say(f"wrote {path}")
    say("checks: " + ", ".join(f"{name} {value}" for name, value in result.checks.items()))
