"""`mvit-search run`: search, from a budget and a phone to a Pareto front."""

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mvit_search.cli.arguments import RESULTS_DIR, JsonOption, ResultsDirOption
from mvit_search.cli.front import print_front
from mvit_search.cli.output import print_json, say

if TYPE_CHECKING:
    from mvit_search.records import RunFolder

Budget = Annotated[str | None, typer.Option("--budget", help="Most parameters, e.g. 6M (1000 classes).", metavar="N")]


def run(
    budget: Budget = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="Device: iphone12 (predicted); cpu-torch, cpu-onnx, mac, iphone (measured here or on the cable); "
            "http://... (a measurement server)."
        ),
    ] = None,
    space: Annotated[
        str | None, typer.Option(help="Search space: a name or a .yaml file (default: mobilevit).")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="digits or shapes (built in); an image folder: train/ and val|test/, or class folders; an archive of "
            "one (tar, zip); a .npz file; cifar:, datasets:, webdataset: and a path (default: digits)."
        ),
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="Most training images, class-balanced (default: 5000; all of digits).")
    ] = None,
    data_fraction: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of the training images, class-balanced (1: all).", metavar="F"),
    ] = None,
    proxy: Annotated[
        str | None,
        typer.Option(
            help="What ranks candidates: training; zero-cost:NAME, a score without training (docs/zero-cost.md) "
            "(default: training)."
        ),
    ] = None,
    prescreen: Annotated[
        str | None,
        typer.Option(help="Train the best of K proposals by a zero-cost score, e.g. synflow:8.", metavar="NAME:K"),
    ] = None,
    table: Annotated[
        str | None,
        typer.Option(help="Replay trainings recorded in a table instead of training.", metavar="FILE[#FIDELITY]"),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="YAML file of a training recipe (default: the data's own).", metavar="FILE")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of proxy training (default: the recipe's).")] = None,
    proxy_size: Annotated[
        int | None,
        typer.Option(min=16, max=1024, help="Resolution of proxy training (pixels) (default: the recipe's)."),
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Candidates to train (default: 24).")] = None,
    time: Annotated[
        str | None,
        typer.Option(help="Time limit, e.g. 30m; a third is kept for the finals (default: 330s).", metavar="D"),
    ] = None,
    final_seeds: Annotated[
        int | None, typer.Option(min=1, max=100, help="Seeds per point of the final front (default: 3).")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**31, help="Seed of everything random (default: 0).")] = None,
    sampler: Annotated[str | None, typer.Option(help="nsga2, tpe or random (default: nsga2).")] = None,
    num_classes: Annotated[
        int | None, typer.Option(min=1, help="Classes of the costed network (default: 1000, as the papers count).")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Where to train: cpu, cuda, mps (default: cpu).")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of a training (default: 1).")] = None,
    allow_predicted: Annotated[
        bool, typer.Option("--allow-predicted", help="Predict while the measurement server does not answer.")
    ] = False,
    stand_in: Annotated[
        str | None,
        typer.Option(help="What predicts then; implies --allow-predicted (default: iphone12).", metavar="TARGET"),
    ] = None,
    patience: Annotated[
        str | None, typer.Option(help="How long to wait for the server before that (default: 5m).", metavar="D")
    ] = None,
    results_dir: ResultsDirOption = RESULTS_DIR,
    name: Annotated[str | None, typer.Option(help="Name of the run (default: made from the settings).")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Carry on a run; its settings need not be repeated.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Search the space inside the budget and leave an accuracy-latency Pareto front in the results folder."""
    given = _given(
        budget=budget, target=target, space=space, data=data, images=images, data_fraction=data_fraction, proxy=proxy,
        recipe=recipe, prescreen=prescreen, table=table, epochs=epochs, proxy_size=proxy_size,
        trials=trials, time=time, final_seeds=final_seeds, seed=seed, sampler=sampler, num_classes=num_classes,
        device=device, threads=threads, allow_predicted=allow_predicted, stand_in=stand_in, patience=patience,
    )  # fmt: skip
    folder = _folder(given, results_dir, name, resume)
    if resume:
        given = {**_settings(folder), **given}
    document = _search(folder, given)
    if json:
        print_json(document)
        return
    print_front(document)
    say(_closing(document, folder.report_file))


def _given(
    *, budget: str | None, time: str | None, patience: str | None, allow_predicted: bool, table: str | None,
    **others: Any,
) -> dict[str, Any]:  # fmt: skip
    """The settings that the user gave, parsed."""
    from mvit_search._quantities import parse_count, parse_seconds
    from mvit_search.errors import InputError

    given = {key: value for key, value in others.items() if value is not None}
    if table is not None:
        if "proxy" in given:
            raise InputError("--table", table, "is a proxy of its own", "leave --proxy out")
        given["proxy"] = f"table:{table}"
    if budget is not None:
        given["budget"] = parse_count(budget, "--budget")
    if time is not None:
        given["time_s"] = parse_seconds(time, "--time")
    if patience is not None:
        given["patience_s"] = parse_seconds(patience, "--patience")
    if allow_predicted:
        from mvit_search.search.settings import DEFAULT_STAND_IN

        given.setdefault("stand_in", DEFAULT_STAND_IN)
    return given


def _folder(given: dict[str, Any], results_dir: Path, name: str | None, resume: bool) -> "RunFolder":
    """The run's folder; one set of settings makes one name, so that the same command again carries on."""
    from mvit_search._quantities import format_count
    from mvit_search.errors import InputError, UnknownNameError
    from mvit_search.records import RunFolder, run_names

    if not (name and resume):
        for required, example in (("budget", "--budget 6M"), ("target", "--target iphone12")):
            if required not in given:
                raise InputError(f"--{required}", None, "is required", f"for example {example}")
    if name is None:
        # A server's address without `http://`: `2M-192.168.1.20_8765`.
        parts = [format_count(given["budget"]).replace(".00", ""), given["target"].rpartition("://")[2].rstrip("/")]
        words = ("space", "data", "proxy", "prescreen", "sampler")
        parts += [Path(given[key]).name.removesuffix(".yaml") for key in words if key in given]
        parts += [f"seed{given['seed']}"] if "seed" in given else []
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", "-".join(parts))[:100]
    elif not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise InputError("--name", name, "must be letters, digits, '.', '_' and '-' alone, at most 100")
    folder = RunFolder(results_dir / name)
    if resume and not folder.exists():
        raise UnknownNameError("run", name, run_names(results_dir))
    return folder


def _settings(folder: "RunFolder") -> dict[str, Any]:
    """What the run was begun with."""
    from mvit_search.errors import InputError

    settings = folder.read_run().get("settings")
    if not isinstance(settings, dict):
        raise InputError("run", str(folder.run_file), "holds no settings", "give them again, without --resume")
    return settings


def _search(folder: "RunFolder", given: dict[str, Any]) -> dict[str, Any]:
    from mvit_search.analysis import write_report
    from mvit_search.cli.watching import watching
    from mvit_search.search import parse_settings, run_search

    try:
        with watching() as observer:
            document = run_search(parse_settings(given), folder, observer=observer)
    except KeyboardInterrupt:
        if (folder.path / "front.json").is_file():
            write_report(folder, folder.report_file)
        words = ("mvit-search", "run", "--resume", "--results-dir", str(folder.path.parent), "--name", folder.name)
        command = shlex.join(words)
        typer.echo(f"stopped; nothing finished is lost. Carry on: {command}", err=True)
        raise
    write_report(folder, folder.report_file)
    return document


def _closing(document: dict[str, Any], report: Path) -> str:
    """How the run ended, and what to do with it."""
    done = "scored" if document["proxy"].startswith("zero-cost:") else "trained"
    replayed = document["proxy"].startswith("table:")
    said = "replayed" if replayed else done
    ended = {
        "trials": f"All candidates {said}",
        "time": "Time limit reached (carry on with --resume and a longer --time)",
        "space exhausted": "Nothing new left in the space" + (", as far as the table goes" if replayed else ""),
        "target unavailable": "Time limit reached while the measurement server did not answer (carry on with --resume)",
    }
    counts = f"{document.get(done, 0)} {said}, {document['failed']} failed, {document['rejected']} over budget"
    if document.get("prescreened"):
        counts += f", {document['prescreened']} prescreened away"
    reference = shlex.quote(document["directory"] + "/best")
    return (
        f"{ended[document['ended_by']]}: {counts}, {document['duplicates']} repeated.\n"
        f"Report: {report}\nExport a point: mvit-search export {reference} --to corenet --out DIR"
    )
