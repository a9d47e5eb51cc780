"""`mvit-search proxy-check`: how well cheap proxies rank candidates, and which one is worth its cost."""

import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mvit_search.cli.arguments import RESULTS_DIR, JsonOption
from mvit_search.cli.output import print_json, print_table, say

if TYPE_CHECKING:
    from mvit_search.ranking.check import CheckSettings
    from mvit_search.ranking.runner import Progress
    from mvit_search.ranking.summary import Findings

_PAGE, _DOCUMENT = "proxy-check.html", "proxy-check.json"


def proxy_check(
    space: Annotated[
        str | None, typer.Option(help="Search space: a name or a .yaml file (default: mobilevit).")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Images to train on, as `run --data` takes them (default: digits).")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(metavar="N", help="Most parameters of a candidate (default: 6M; 1000 classes).")
    ] = None,
    smallest: Annotated[
        str | None, typer.Option(metavar="N", help="Fewest parameters of a drawn candidate (default: 500k).")
    ] = None,
    candidates: Annotated[
        int | None, typer.Option(min=1, help="Candidates, the presets inside the budget included (default: 24).")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of the long schedule (default: 8 times the recipe's).")
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=16, max=1024, help="Resolution of training (pixels) (default: the recipe's).")
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="Most training images, class-balanced (default: all).")
    ] = None,
    held_out: Annotated[
        int | None, typer.Option(min=1, help="Held-out images that every training is scored on (default: all).")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, max=100, help="Seeds of the long schedule (default: 3).")] = None,
    seeded: Annotated[
        int | None, typer.Option(min=0, help="Candidates that get more than one seed; 0: all (default: 8).")
    ] = None,
    zero_cost: Annotated[
        str | None,
        typer.Option("--zero-cost", metavar="NAMES", help="Zero-cost scores, by commas, or none (default: all)."),
    ] = None,
    target: Annotated[str | None, typer.Option(help="Device whose latency is a baseline (default: iphone12).")] = None,
    device: Annotated[str | None, typer.Option(help="Where to train: cpu, cuda, mps (default: cpu).")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of a training (default: 1).")] = None,
    time: Annotated[
        str | None, typer.Option(metavar="D", help="Stop after this long, e.g. 9m; the same command carries on.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Trainings at once (default: one a core).")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Folder of the table and the page (default: one in results, by the settings)."
        ),
    ] = None,
    analyse: Annotated[
        Path | None, typer.Option("--analyse", metavar="FILE.csv", help="Judge this table; train nothing.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(metavar="FIDELITY", help="What proxies are held to (default: the longest schedule).")
    ] = None,
    threshold: Annotated[
        float, typer.Option("--threshold", help="Tau that a recommended proxy's lower bound must be above.")
    ] = 0.5,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help=f"Where the page goes (default: {_PAGE} in DIR).")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Train candidates to a long schedule and at cheaper fidelities, and see which proxy ranks them as the long one.

    The same command again carries on. Kendall's tau and Spearman's rho are given with 95 % bootstrap intervals, beside
    the costs and beside what counting parameters and MACs would do.
    """
    from mvit_search.ranking.recommendation import require_threshold

    require_threshold(threshold)
    if html is not None:
        from mvit_search.analysis.profile_page import require_page_path

        require_page_path(html)
    given = {
        "space": space, "data": data, "budget": _count(budget, "--budget"), "smallest": _count(smallest, "--smallest"),
        "candidates": candidates, "epochs": epochs, "image_size": size, "images": images, "held_out": held_out,
        "seeds": seeds, "seeded": seeded, "target": target, "device": device, "threads": threads,
        "zero_cost": _scores(zero_cost),
    }  # fmt: skip
    given = {key: value for key, value in given.items() if value is not None}
    if analyse is not None:
        _refuse_training({**given, "time": time, "workers": workers, "out": out})
        found = _judged(analyse, threshold, reference)
        _show(found, {"table": str(analyse)}, html, json)
        return
    _check(given, out, _seconds(time), workers, threshold, reference, html, json)


def _check(
    given: dict[str, Any], out: Path | None, seconds: float | None, workers: int | None, threshold: float,
    reference: str | None, html: Path | None, json: bool,
) -> None:  # fmt: skip
    """Train on, then judge what there is."""
    from mvit_search._files import write_atomically
    from mvit_search.errors import InputError
    from mvit_search.ranking.check import CheckSettings, run_check

    settings = CheckSettings(**given)
    folder = out or RESULTS_DIR / _name(settings)
    if folder.exists() and not folder.is_dir():
        raise InputError("--out", str(folder), "is no folder", "name one")
    watch = _Watch()
    try:
        table = run_check(settings, folder, workers=workers, seconds=seconds, watch=watch)
    except OSError as error:
        raise InputError("--out", str(folder), f"cannot be written ({error.strerror or error})") from None
    except KeyboardInterrupt:
        typer.echo("stopped; nothing finished is lost. The same command carries on.", err=True)
        raise
    done, total = watch.done, watch.total
    facts: dict[str, Any] = {"complete": done >= total, "trainings": {"done": done, "total": total}}
    facts["table"] = str(table)
    try:
        found = _judged(table, threshold, reference)
    except InputError as error:
        if done >= total or isinstance(error, _asked_for()):
            raise
        _show_unfinished(facts, error, json)
        return
    document = _show(found, facts, html or folder / _PAGE, json)
    write_atomically(folder / _DOCUMENT, _text(document))


def _judged(table: Path, threshold: float, reference: str | None) -> "Findings":
    from mvit_search.ranking.summary import analyse
    from mvit_search.records.table import read_table

    return analyse(
        read_table(table), threshold=threshold, reference=reference, latency_source=_latency_source(table.parent)
    )


def _latency_source(folder: Path) -> str | None:
    """What the settings beside a table say of its latencies; None where there are none."""
    import json

    from mvit_search.analysis.front_document import display_target
    from mvit_search.errors import InputError
    from mvit_search.latency import PredictedTarget, load_target

    try:
        name = json.loads((folder / "check.json").read_text(encoding="utf-8"))["target"]
        predicted = isinstance(load_target(name), PredictedTarget)
    except (OSError, ValueError, KeyError, TypeError, InputError):
        return None
    return f"{'predicted for' if predicted else 'measured on'} {display_target(name)}"


def _show(found: "Findings", facts: dict[str, Any], html: Path | None, json: bool) -> dict[str, Any]:
    """Write the page and print; returns the document."""
    from mvit_search.ranking.summary import document

    shown = facts | document(found)
    if html is not None:
        from mvit_search.analysis.ranking_page import write_ranking_page

        write_ranking_page(found, html, f"Proxy check, {facts['table']}")
        shown["html"] = str(html)
    if json:
        print_json(shown)
        return shown
    from mvit_search.analysis.ranking_tables import PROXY_COLUMNS, noise_sentences, proxy_rows

    title = f"how well proxies rank: tau and rho against {found.measured.reference.fidelity}, 95 % intervals"
    print_table(title, PROXY_COLUMNS, proxy_rows(found), left=("proxy",))
    for sentence in noise_sentences(found):
        say(sentence)
    if not facts.get("complete", True):
        say(f"So far {_progress(facts)}; the same command carries on.")
    say("")
    for sentence in found.recommendation.sentences:
        say(sentence)
    say(f"Table: {facts['table']}" + (f"\nPage: {html}" if html is not None else ""))
    return shown


def _show_unfinished(facts: dict[str, Any], error: Exception, json: bool) -> None:
    """A chunk that ended before there was anything to judge is no failure."""
    if json:
        print_json({**facts, "recommendation": None, "reason": str(error)})
        return
    say(f"Nothing to judge yet ({error}): {_progress(facts)}. The same command carries on.")


def _progress(facts: dict[str, Any]) -> str:
    return f"{facts['trainings']['done']} of {facts['trainings']['total']} trainings and scores"


class _Watch:
    """A line on stderr for every row that was added."""

    def __init__(self) -> None:
        self.done = self.total = 0

    def __call__(self, progress: "Progress") -> None:
        self.done, self.total = progress.done, progress.total
        # A reader of stderr that has gone (`2>&1 | head`) is no reason to stop.
        with suppress(BrokenPipeError):
            print(_line(progress), file=sys.stderr, flush=True)


def _line(progress: "Progress") -> str:
    counted = f"{progress.done} of {progress.total}"
    row = progress.row
    if row is None:
        return counted
    who = f"{row.name or row.digest[:8]}, seed {row.seed}, {row.fidelity}"
    if row.error:
        return f"{counted}: {who}: {row.error}"
    if row.score is not None:
        return f"{counted}: {who}: {row.score:.4g}"
    return f"{counted}: {who}, epoch {row.epoch}: {100 * (row.top1 or 0):.1f} %, {row.cpu_seconds:.1f} CPU s"


def _refuse_training(given: dict[str, Any]) -> None:
    from mvit_search.errors import InputError

    options = {"image_size": "size", "held_out": "held-out", "zero_cost": "zero-cost"}
    for name, value in given.items():
        if value is not None:
            shown = value if isinstance(value, int | str) else str(value)
            rule = "is for a check that trains; --analyse only reads a table"
            raise InputError(f"--{options.get(name, name)}", shown, rule, "leave one of the two out")


def _name(settings: "CheckSettings") -> str:
    """One set of settings makes one name, so that the same command again carries on."""
    from mvit_search._quantities import format_count

    parts = ["proxy-check", format_count(settings.budget).replace(".00", "")]
    parts += [Path(settings.data).name or settings.data, Path(settings.space).name.removesuffix(".yaml")]
    return re.sub(r"[^A-Za-z0-9._-]+", "_", "-".join(parts))[:100]


def _asked_for() -> type[Exception]:
    from mvit_search.errors import UnknownNameError

    return UnknownNameError


def _scores(text: str | None) -> tuple[str, ...] | None:
    """Names of zero-cost scores; `none` is no score at all."""
    from mvit_search.errors import UnknownNameError
    from mvit_search.proxy.zero_cost import NAMES

    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(",")) if text.strip() != "none" else ()
    for name in names:
        if name not in NAMES:
            raise UnknownNameError("--zero-cost", name, NAMES)
    return names


def _count(text: str | None, field: str) -> int | None:
    from mvit_search._quantities import parse_count

    return None if text is None else parse_count(text, field)


def _seconds(text: str | None) -> float | None:
    from mvit_search._quantities import parse_seconds

    return None if text is None else parse_seconds(text, "--time")


def _text(document: dict[str, Any]) -> str:
    import json

    return json.dumps(document, indent=2, allow_nan=False) + "\n"
