"""`mvit-search run`: search, from a budget and a phone to a Pareto front."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mvit_search.cli.arguments import RESULTS_DIR, JsonOption, ResultsDirOption
from mvit_search.cli.front import print_front
from mvit_search.cli.output import print_json, say

Budget = Annotated[str | None, typer.Option("--budget", help="Most parameters, e.g. 6M (1000 classes).", metavar="N")]


def run(
    budget: Budget = None,
    target: Annotated[str | None, typer.Option(help="Device: iphone12 (predicted), cpu (measured here).")] = None,
    space: Annotated[
        str | None, typer.Option(help="Search space: a name or a .yaml file.  [default: mobilevit]")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="digits (built in), or an image folder: train/ and val|test/, or class folders.  [default: digits]"
        ),
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="Most training images, class-balanced.  [default: all]")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of proxy training.  [default: the recipe's]")
    ] = None,
    proxy_size: Annotated[
        int | None,
        typer.Option(min=16, max=1024, help="Resolution of proxy training (pixels).  [default: the recipe's]"),
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Candidates to train.  [default: 24]")] = None,
    time: Annotated[
        str | None,
        typer.Option(help="Time limit, e.g. 30m; a third is kept for the finals.  [default: 5m]", metavar="D"),
    ] = None,
    final_seeds: Annotated[
        int | None, typer.Option(min=1, help="Seeds per point of the final front.  [default: 3]")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of everything random.  [default: 0]")] = None,
    sampler: Annotated[str | None, typer.Option(help="nsga2, tpe or random.  [default: nsga2]")] = None,
    num_classes: Annotated[
        int | None, typer.Option(min=1, help="Classes of the costed network.  [default: 1000, as the papers count]")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Where to train: cpu, cuda, mps.  [default: cpu]")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of a training.  [default: torch's]")] = None,
    results_dir: ResultsDirOption = RESULTS_DIR,
    name: Annotated[str | None, typer.Option(help="Name of the run.  [default: made from the settings]")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Carry on a run; its settings need not be repeated.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Search the space inside the budget and leave an accuracy-latency Pareto front in the results folder."""
    from mvit_search.records import RunFolder

    given = _given(
        budget=budget, target=target, space=space, data=data, images=images, epochs=epochs, proxy_size=proxy_size,
        trials=trials, time=time, final_seeds=final_seeds, seed=seed, sampler=sampler, num_classes=num_classes,
        device=device, threads=threads,
    )  # fmt: skip
    folder = RunFolder(results_dir / (name or _name(given)))
    document = _search(folder, given, results_dir, resume)
    if json:
        print_json(document)
        return
    print_front(document)
    say(_closing(document, folder.report_file))


def _given(*, budget: str | None, time: str | None, **others: Any) -> dict[str, Any]:
    """The settings that the user gave, parsed."""
    from mvit_search._quantities import parse_count, parse_seconds

    given = {key: value for key, value in others.items() if value is not None}
    if budget is not None:
        given["budget"] = parse_count(budget, "--budget")
    if time is not None:
        given["time_s"] = parse_seconds(time, "--time")
    return given


def _search(folder: Any, given: dict[str, Any], results_dir: Path, resume: bool) -> dict[str, Any]:
    from mvit_search.analysis import write_report
    from mvit_search.cli.watching import watching
    from mvit_search.errors import InputError, UnknownNameError
    from mvit_search.records import run_names
    from mvit_search.search import RunSettings, run_search

    if resume and not folder.exists():
        raise UnknownNameError("run", folder.name, run_names(results_dir))
    if resume:
        given = {**folder.read_run()["settings"], **given}
    for required, example in (("budget", "--budget 6M"), ("target", "--target iphone12")):
        if required not in given:
            raise InputError(f"--{required}", None, "is required", f"for example {example}")
    try:
        with watching() as observer:
            document = run_search(RunSettings(**given), folder, observer=observer)
    except KeyboardInterrupt:
        if (folder.path / "front.json").is_file():
            write_report(folder, folder.report_file)
        typer.echo(f"stopped; nothing finished is lost. Carry on: {_resume_command(folder)}", err=True)
        raise
    write_report(folder, folder.report_file)
    return document


def _name(given: dict[str, Any]) -> str:
    """One name for one set of settings, so that the same command again carries on."""
    from mvit_search._quantities import format_count

    budget = format_count(given["budget"]).replace(".00", "") if "budget" in given else "run"
    data = (
        Path(given.get("data", "digits")).resolve().name
        if "/" in given.get("data", "")
        else given.get("data", "digits")
    )
    parts = [Path(given.get("space", "mobilevit")).stem, budget, given.get("target", "iphone12"), data]
    return "-".join([*parts, f"seed{given.get('seed', 0)}"])


def _resume_command(folder: Any) -> str:
    return f"mvit-search run --resume --results-dir {folder.path.parent} --name {folder.name}"


def _closing(document: dict[str, Any], report: Path) -> str:
    ended = {"trials": "all candidates trained", "time": "time limit reached", "space exhausted": "nothing new left"}
    counts = f"{document['trained']} trained, {document['failed']} failed"
    return (
        f"{ended[document['ended_by']]}: {counts}, {document['rejected']} over budget, {document['duplicates']} repeated.\n"
        f"Report: {report}\nExport a point: mvit-search export {document['run']}/best --to corenet --out DIR"
    )
