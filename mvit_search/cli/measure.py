"""`mvit-search measure`: choose networks and write them; measure what was written, on the device's machine."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mvit_search.cli.arguments import JsonOption
from mvit_search.cli.output import print_json, print_table, say

if TYPE_CHECKING:
    from mvit_search.analysis.measuring_plan import Choice
    from mvit_search.latency.calibrating.manifest import Manifest
    from mvit_search.latency.calibrating.measuring import Outcome

_SPACE, _TARGET, _RUNTIME, _LAYOUT, _CLASSES = "mobilevit", "iphone12", "iphone", "paper", 1000
_RESULTS = "results.csv"


def measure(
    plan: Annotated[
        int | None, typer.Option("--plan", metavar="N", min=1, max=500, help="Choose N networks and write them.")
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option("--manifest", metavar="FILE", help="Measure what this manifest of a plan lists.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="PATH", help="Folder of the plan, or table of results (.csv)."),
    ] = None,
    runtime: Annotated[
        str | None,
        typer.Option("--runtime", help="What runs them: iphone (default), mac, mac:ane, cpu-onnx, cpu-torch."),
    ] = None,
    space: Annotated[
        str | None, typer.Option("--space", help="Plan: where candidates come from.", show_default=_SPACE)
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", help="Plan: predicted target to improve.", show_default=_TARGET)
    ] = None,
    budget: Annotated[
        str | None, typer.Option("--budget", metavar="PARAMS", help="Plan: at most so many parameters, like 6M.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Plan: of the draws from the space.", show_default="0")
    ] = None,
    layout: Annotated[
        str | None, typer.Option("--layout", help="Plan: Core ML layout, paper or ane.", show_default=_LAYOUT)
    ] = None,
    num_classes: Annotated[
        int | None,
        typer.Option("--num-classes", min=1, max=1_000_000, help="Plan: classes.", show_default=str(_CLASSES)),
    ] = None,
    json: JsonOption = False,
) -> None:  # fmt: skip
    """Choose informative networks and write them (--plan), or measure those of a plan (--manifest)."""
    from mvit_search.errors import InputError

    if (plan is None) == (manifest is None):
        rule = "exactly one of them says what to do"
        raise InputError(
            "--plan, --manifest", None, rule, "write --plan 20 --out DIR, then --manifest DIR/manifest.json"
        )
    if manifest is not None:
        of_plans = {
            "--space": space, "--target": target, "--budget": budget, "--seed": seed, "--layout": layout,
            "--num-classes": num_classes,
        }  # fmt: skip
        _refuse(of_plans)
        _measure(manifest, out, runtime, json=json)
        return
    if out is None:
        raise InputError("--out", None, "is missing", "name the folder that the plan is written to")
    _write_plan(
        plan or 0, out, runtime or _RUNTIME, space or _SPACE, target or _TARGET, budget, seed or 0, layout or _LAYOUT,
        num_classes or _CLASSES, json=json,
    )  # fmt: skip


def _write_plan(
    count: int, folder: Path, runtime_name: str, space_name: str, target: str, budget: str | None, seed: int,
    layout: str, num_classes: int, *, json: bool,
) -> None:  # fmt: skip
    from mvit_search._quantities import parse_count
    from mvit_search.analysis.measuring_plan import choose
    from mvit_search.latency import load_target
    from mvit_search.latency.calibrating.manifest import require_new, runtime_for, write_plan
    from mvit_search.space import load_space

    limit = None if budget is None else parse_count(budget, "--budget")
    runtime = runtime_for(runtime_name, layout)
    require_new(folder)
    space, predictor = load_space(space_name), load_target(target)
    choice = choose(space, predictor, count, budget=limit, seed=seed, num_classes=num_classes)
    manifest = write_plan(
        choice.planned, runtime, folder, num_classes=num_classes, layout=layout, target=predictor.calibration,
        space=space.name, seed=seed, told=lambda path: None if json else say(f"wrote {path}"),
    )  # fmt: skip
    _print_plan(choice, manifest, folder, count, json=json)


def _measure(path: Path, out: Path | None, runtime_name: str | None, *, json: bool) -> None:
    from mvit_search.errors import InputError, WorkError
    from mvit_search.latency.calibrating.manifest import MANIFEST_NAME, read_manifest, runtime_for
    from mvit_search.latency.calibrating.measuring import measure_manifest

    path = path / MANIFEST_NAME if path.is_dir() else path
    table = out or path.parent / _RESULTS
    if not table.parent.is_dir():
        raise InputError("--out", str(table), "lies in a folder that is not there", "make the folder first")
    manifest = read_manifest(path)
    runtime = runtime_for(runtime_name or manifest.wanted.runtime, manifest.wanted.layout)
    outcomes = measure_manifest(manifest, path.parent, runtime, table, _ignore if json else _say_outcome)
    failed = [outcome for outcome in outcomes if outcome.error]
    if json:
        print_json({"table": str(table), "rows": [dict(outcome.cells) for outcome in outcomes]})
    else:
        failures = f"; {len(failed)} failed, and are tried again by the same command" if failed else ""
        say(f"wrote {table}: {len(outcomes) - len(failed)} of {len(outcomes)} networks measured{failures}")
    if len(failed) == len(outcomes):
        raise WorkError(f"none of the {len(failed)} networks could be measured; the first: {failed[0].error}")


def _print_plan(choice: "Choice", manifest: "Manifest", folder: Path, asked: int, *, json: bool) -> None:
    design = choice.design
    if json:
        print_json({
            "manifest": str(folder / "manifest.json"),
            "pool": choice.pool,
            "log_det": design.log_det,
            "error_before_percent": design.error_before_percent,
            "error_after_percent": design.error_after_percent,
            "files": [file.model_dump(mode="json") for file in manifest.files],
        })  # fmt: skip
        return
    rows = [(file.file, f"{file.predicted_ms:.2f}") for file in manifest.files]
    columns = ("file, the most informative first", "predicted ms")
    print_table(f"Plan for {manifest.target}", columns, rows, left=columns[:1])
    say(
        f"{len(rows)} of {choice.pool:,} candidates. By the priors alone the least certain of their predictions is off "
        f"by {design.error_before_percent:.0f} % (one standard deviation), and by {design.error_after_percent:.1f} % "
        "once these are measured."
    )
    if len(rows) < asked:
        say(f"There are no more: {asked} were asked for.")
    say(f"Next, on the machine with the device: mvit-search measure --manifest {folder / 'manifest.json'}")


def _say_outcome(outcome: "Outcome") -> None:
    name, cells = outcome.file.file, outcome.cells
    if outcome.error:
        say(f"{name}: failed: {outcome.error}")
        return
    known = " (measured before)" if outcome.known else ""
    notes = f"; {cells['notes']}" if cells["notes"] else ""
    interval = f"[{float(cells['low_ms']):.3g}, {float(cells['high_ms']):.3g}]"
    said = f"median {float(cells['latency_ms']):.3g} ms {interval}, {cells['runs']} runs"
    say(f"{name}: {said}, predicted {outcome.file.predicted_ms:.3g} ms{known}{notes}")


def _ignore(outcome: "Outcome") -> None:
    """With --json nothing but the document is printed."""


def _refuse(of_plans: Mapping[str, object]) -> None:
    from mvit_search.errors import InputError

    for option, value in of_plans.items():
        if value is not None:
            raise InputError(option, value, "is of a plan, and --manifest has one already", "leave it out")
