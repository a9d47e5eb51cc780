"""`mvit-search run`: search, from a budget and a phone to a Pareto front."""

import signal
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from mvit_search.cli.arguments import RESULTS_DIR, JsonOption, ResultsDirOption
from mvit_search.cli.front import print_front
from mvit_search.cli.output import EXIT_INTERRUPTED, print_json, say
from mvit_search.cli.run_settings import given_settings, replayed_settings, resumed_settings, run_folder
from mvit_search.cli.run_words import begun, carry_on, closing, ended

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mvit_search.cli.watching import Watch
    from mvit_search.records import RunFolder
    from mvit_search.search import Brake

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
        int | None,
        typer.Option(
            "--final-seeds", "--seeds", min=1, max=100, help="Seeds per point of the final front (default: 3)."
        ),
    ] = None,
    finals: Annotated[
        int | None, typer.Option(min=0, help="Most points of the front to train so (default: all).", metavar="K")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**31, help="Seed of everything random (default: 0).")] = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            help="nsga2, assisted (finds most), nsga3, tpe, gp, random, grid; auto picks one; module:Class; "
            "hub:PACKAGE (default: nsga2)."
        ),
    ] = None,
    objective: Annotated[
        list[str] | None,
        typer.Option(
            help="What the front weighs; give it several times: top1, latency_ms, params, macs, weight_bytes, "
            "peak_activation_bytes (default: top1 and latency_ms)."
        ),
    ] = None,
    max_latency: Annotated[str | None, typer.Option(help="Slowest candidate, e.g. 5ms.", metavar="D")] = None,
    max_macs: Annotated[str | None, typer.Option(help="Most multiply-adds, e.g. 600M.", metavar="N")] = None,
    max_memory: Annotated[str | None, typer.Option(help="Most memory of activations, e.g. 4MiB.", metavar="B")] = None,
    max_weights: Annotated[str | None, typer.Option(help="Most memory of weights, e.g. 8MiB.", metavar="B")] = None,
    min_top1: Annotated[
        float | None, typer.Option(min=0, max=1, help="Least top-1 of a point of the front, e.g. 0.8.", metavar="F")
    ] = None,
    fidelity: Annotated[
        str | None,
        typer.Option(help="full: train each candidate to the end; halving: in rungs, the best go on (default: full)."),
    ] = None,
    eta: Annotated[int | None, typer.Option(min=2, help="Of so many at a rung one goes on (default: 3).")] = None,
    rungs: Annotated[
        str | None,
        typer.Option(
            help="Epochs of the rungs, with side and share of the images if you like: 1,3,9 or 1@16:0.5,3,9 "
            "(default: the recipe's epochs divided by eta).",
            metavar="E,E,...",
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Trainings at once (default: 1).")] = None,
    engine: Annotated[
        str | None, typer.Option(help="in-process, pool (the default with --workers above 1) or ray.")
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(help="Running Ray cluster, e.g. 10.0.0.1:6379; implies --engine ray.", metavar="HOST:PORT"),
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="Database of the study, e.g. postgresql://... (default: a file).", metavar="URL")
    ] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Take no trainings from earlier runs, and keep none for later ones.")
    ] = False,
    from_run: Annotated[
        str | None,
        typer.Option("--from", help="Begin with the records of a run of the same recipe and data.", metavar="RUN"),
    ] = None,
    configs_from: Annotated[
        str | None, typer.Option(help="Begin with the best candidates of a run, trained anew.", metavar="RUN")
    ] = None,
    replay: Annotated[
        str | None, typer.Option(help="Go through the events of a run again, in its order.", metavar="RUN")
    ] = None,
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
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the result.")] = False,
    json: JsonOption = False,
) -> None:
    """Search the space inside the budget and leave an accuracy-latency Pareto front in the results folder."""
    given = given_settings(
        budget=budget, target=target, space=space, data=data, images=images, data_fraction=data_fraction, proxy=proxy,
        recipe=recipe, prescreen=prescreen, table=table, epochs=epochs, proxy_size=proxy_size,
        trials=trials, time=time, final_seeds=final_seeds, seed=seed, sampler=sampler, num_classes=num_classes,
        device=device, threads=threads, allow_predicted=allow_predicted, stand_in=stand_in, patience=patience,
        objectives=tuple(objective) if objective else None, max_latency=max_latency, max_macs=max_macs,
        max_memory=max_memory, max_weights=max_weights, min_top1=min_top1, fidelity=fidelity, eta=eta, rungs=rungs,
        workers=workers, engine=engine, ray_address=ray_address, storage=storage, cache=False if no_cache else None,
        from_run=from_run, configs_from=configs_from, replay_run=replay, finals=finals,
    )  # fmt: skip
    if replay is not None:
        given = {**replayed_settings(replay, results_dir), **given}
    folder = run_folder(given, results_dir, name, resume)
    if resume:
        given = resumed_settings(folder, given)
    document = _search(folder, given, quiet=quiet)
    if json:
        print_json(document)
        return
    print_front(document)
    say(closing(document, folder.report_file, given))


def _search(folder: "RunFolder", given: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    from mvit_search.analysis import write_report
    from mvit_search.cli.watching import watching
    from mvit_search.errors import MvitSearchError
    from mvit_search.search import Brake, parse_settings, run_search

    settings = parse_settings(given)
    presses = _Presses(Brake())
    document: dict[str, Any] | None = None
    with watching(folder.path, begun(settings, carried_on=folder.exists()), quiet=quiet) as watch:
        try:
            with _stoppable(presses, watch):
                document = run_search(settings, folder, observer=watch, brake=presses.brake)
        except KeyboardInterrupt:
            watch.ended("ended by Ctrl-C")
        except MvitSearchError as error:
            watch.ended(f"failed: {error}")
            raise
        else:
            watch.ended(f"ended. {ended(document)}")
    if document is None:
        _leave(folder, at_once=presses.at_once)
    write_report(folder, folder.report_file)
    return document


def _leave(folder: "RunFolder", *, at_once: bool) -> NoReturn:
    """Write the report of what there is, unless that should not be waited for; say how to go on, and end."""
    from mvit_search.analysis import write_report

    words = "stopped before the run had begun; nothing was written"
    if folder.exists():
        words = f"stopped; nothing finished is lost. Carry on: {carry_on(folder)}"
    try:
        if (folder.path / "front.json").is_file() and not at_once:
            write_report(folder, folder.report_file)
    finally:
        with suppress(OSError):  # `2>&1 | tee` was stopped by the same Ctrl-C
            typer.echo(words, err=True)
    raise typer.Exit(EXIT_INTERRUPTED)


@dataclass
class _Presses:
    """What Ctrl-C has asked for."""

    brake: "Brake"
    count: int = 0
    at_once: bool = False


@contextmanager
def _stoppable(presses: _Presses, watch: "Watch") -> "Iterator[None]":
    """Ctrl-C once ends the run after the epochs that are under way; twice ends it now. Both lose nothing finished.

    While the run still loads, once is enough.
    """

    def interrupt(number: int, frame: object) -> None:
        presses.count += 1
        if presses.count == 1 and watch.searching:
            presses.brake.interrupt()
            watch.answer("stopping after the epochs that are under way; Ctrl-C again stops at once")
        elif not isinstance(sys.exception(), KeyboardInterrupt) or presses.count > 2:
            presses.at_once = True
            raise KeyboardInterrupt
        # Else its end is being written already, which takes a moment.

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
