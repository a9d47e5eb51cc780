"""`mvit-search space`: the search spaces that ship, or one of your own."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mvit_search.cli.arguments import JsonOption, NumClassesOption
from mvit_search.cli.output import print_json, print_table, say

if TYPE_CHECKING:
    from mvit_search.analysis.space_survey import Drawn, Survey
    from mvit_search.space import SearchSpace

app = typer.Typer(no_args_is_help=True, help="List, show, sample and check search spaces.")

SpaceArgument = Annotated[str, typer.Argument(metavar="SPACE", help="A space's name, or a .yaml or .json file.")]
BudgetOption = Annotated[str | None, typer.Option("--budget", metavar="N", help="Most parameters: 6M or 2500000.")]
TargetOption = Annotated[str, typer.Option("--target", help="Device to predict the latency for.")]
_SAMPLES = 400
SamplesOption = Annotated[
    int, typer.Option("--samples", min=20, max=100_000, help="Draws that spread and share are estimated from.")
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, max=2**31, help="Seed of the draws.")]


@app.command("list")
def list_spaces(json: JsonOption = False) -> None:
    """List the spaces that ship."""
    from mvit_search.space import load_space, space_names

    documents = [_document(load_space(name)) for name in space_names()]
    if json:
        print_json(documents)
        return
    rows = [
        (d["name"], _size(d["candidates"]), str(len(d["dimensions"])), f"{d['smallest_params']:,}", d["description"])
        for d in documents
    ]
    print_table(
        "search spaces", ("name", "candidates", "dimensions", "fewest params", "what"), rows, left=("name", "what")
    )


@app.command("show")
def show(
    space: SpaceArgument,
    budget: BudgetOption = None,
    samples: SamplesOption = _SAMPLES,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write the distributions as a self-contained page.")
    ] = None,
    target: TargetOption = "iphone12",
    seed: SeedOption = 0,
    num_classes: NumClassesOption = 1000,
    json: JsonOption = False,
) -> None:
    """Show the dimensions of a space, the presets inside it, and what its candidates cost."""
    from mvit_search.space import load_space

    if html is not None:
        from mvit_search.analysis.profile_page import require_page_path

        require_page_path(html)
    limit = _budget(budget)
    loaded = load_space(space)
    found = _survey(loaded, target, samples, seed, num_classes)
    document = _document(loaded) | {"survey": _survey_document(found, limit)}
    if html is not None:
        from mvit_search.analysis.space_page import write_space_page

        document["html"] = str(write_space_page(found, html, limit))
    if json:
        print_json(document)
        return
    from mvit_search.analysis.space_page import values_text

    rows = [(name, values_text(values), str(len(values))) for name, values in document["dimensions"].items()]
    print_table(f"space {document['name']}", ("dimension", "values", "count"), rows, left=("dimension", "values"))
    smallest = f"{document['smallest_params']:,} parameters (1000 classes)"
    say(f"{_size(document['candidates'])} candidates; the smallest has {smallest}.")
    say(f"Presets inside: {', '.join(document['presets']) or 'none'}. Digest {document['digest'][:12]}.\n")
    _print_survey(found, limit)
    if html is not None:
        say(f"Page: {html}")


@app.command("sample")
def sample(
    space: SpaceArgument,
    count: Annotated[int, typer.Option("-n", "--count", min=1, max=10_000, help="Candidates to draw.")] = 10,
    budget: BudgetOption = None,
    seed: SeedOption = 0,
    target: TargetOption = "iphone12",
    # No Path: that would take an empty name for the folder it runs in.
    out: Annotated[
        str | None, typer.Option("--out", metavar="DIR", help="Write each candidate there, as a file for `profile`.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files of earlier draws in DIR.")] = False,
    num_classes: NumClassesOption = 1000,
    json: JsonOption = False,
) -> None:
    """Draw different candidates: uniformly, or spread evenly over a budget."""
    from mvit_search.analysis.space_survey import sample
    from mvit_search.errors import InputError
    from mvit_search.latency import load_target
    from mvit_search.space import load_space

    if out is not None and not out.strip():
        raise InputError("--out", out, "is no folder", "name one")
    limit = _budget(budget)
    loaded, device = load_space(space), load_target(target)
    drawn = sample(loaded, device, count, seed, limit, num_classes)
    files = [None] * len(drawn) if out is None else _write(drawn, loaded.name, Path(out), force)
    if json:
        print_json([_drawn_document(one, loaded, file) for one, file in zip(drawn, files, strict=True)])
        return
    _print_sample(drawn, loaded.name)
    if len(drawn) < count:
        say(_end_of_sample(loaded, len(drawn), limit))
    if out is not None:
        say(f"Files: {out}; try mvit-search profile {files[0]}")


@app.command("check")
def check(
    space: SpaceArgument,
    budget: BudgetOption = None,
    samples: Annotated[
        int | None,
        typer.Option(
            "--samples", min=20, max=100_000, help="Draws for the share inside --budget.", show_default=str(_SAMPLES)
        ),
    ] = None,
    target: TargetOption = "iphone12",
    seed: SeedOption = 0,
    num_classes: NumClassesOption = 1000,
    json: JsonOption = False,
) -> None:
    """Check a space file: exit code 0 if every candidate in it can be built, and one is inside the budget."""
    from mvit_search.errors import InputError
    from mvit_search.space import load_space

    if samples is not None and budget is None:
        raise InputError("--samples", samples, "are drawn only for the share inside a budget", "add --budget 6M")
    limit = _budget(budget)
    loaded = load_space(space)
    document = _document(loaded)
    if limit is not None:
        _require_reachable(loaded, limit, num_classes)
        found = _survey(loaded, target, samples or _SAMPLES, seed, num_classes)
        document["survey"] = _survey_document(found, limit)
    if json:
        print_json(document)
        return
    say(f"{space}: fine, {_size(document['candidates'])} candidates")
    if limit is not None:
        _print_survey(found, limit)


@app.command("schema")
def schema() -> None:
    """Print the JSON Schema of space files, for editors."""
    from mvit_search.space.json_schema import space_schema

    print_json(space_schema())


def _budget(text: str | None) -> int | None:
    from mvit_search._quantities import parse_count

    return None if text is None else parse_count(text, "--budget")


def _require_reachable(space: "SearchSpace", budget: int, num_classes: int) -> None:
    from mvit_search.search.limits import Limits

    Limits(budget, num_classes).check_reachable(space)


def _survey(space: "SearchSpace", target: str, samples: int, seed: int, num_classes: int) -> "Survey":
    from mvit_search.analysis.space_survey import survey
    from mvit_search.latency import load_target

    return survey(space, load_target(target), samples, seed, num_classes)


def _document(space: "SearchSpace") -> dict[str, Any]:
    from mvit_search.analysis.space_survey import presets_inside
    from mvit_search.profile.cost import params_of

    return {
        "name": space.name,
        "description": space.spec.description,
        "digest": space.digest(),
        "image_size": list(space.image_size_max),
        "image_sizes": [list(size) for size in space.image_sizes],
        "candidates": space.size(),
        "smallest_params": params_of(space.smallest()),
        "presets": list(presets_inside(space)),
        "dimensions": {name: list(values) for name, values in space.dimensions.items()},
    }


def _survey_document(found: "Survey", budget: int | None) -> dict[str, Any]:
    document: dict[str, Any] = {"draws": len(found.draws), "num_classes": found.num_classes}
    for name in ("params", "macs", "latency_ms"):
        document[name] = found.spread(name)._asdict()
    document["latency_target"] = found.target.name
    document["latency_sources"] = list(found.sources)
    if budget is not None:
        share = found.share_inside(budget)
        document["inside_budget"] = {"budget": budget, "share": share.share, **share._asdict()}
    return document


def _drawn_document(drawn: "Drawn", space: "SearchSpace", file: Path | None) -> dict[str, Any]:
    return {
        "digest": drawn.config.digest(),
        "params": drawn.params,
        "macs": drawn.macs,
        "latency": drawn.latency._asdict(),
        "file": None if file is None else str(file),
        "assignment": space.taking_part(drawn.assignment),
        "config": drawn.config.model_dump(mode="json"),
    }


def _print_survey(found: "Survey", budget: int | None) -> None:
    from mvit_search._quantities import format_count
    from mvit_search.analysis.space_page import share_text

    rows = []
    for name, label in (("params", "parameters"), ("macs", "MACs"), ("latency_ms", "latency (ms, predicted)")):
        spread = found.spread(name)
        rows.append((label, *(f"{n:.2f}" if name == "latency_ms" else format_count(n) for n in spread)))
    title = f"cost of {len(found.draws):,} uniform draws"
    print_table(title, ("", "least", "median", "most"), rows, left=("",))
    if budget is not None:
        share = found.share_inside(budget)
        say(
            f"Inside {format_count(budget)} parameters: {share_text(share)} of the draws"
            f" ({share.inside:,} of {share.draws:,}; 95 % interval)."
        )
    say(f"Latency is {found.source_text}.")


def _end_of_sample(space: "SearchSpace", found: int, budget: int | None) -> str:
    """Why a sample is shorter than it was asked to be."""
    from mvit_search.analysis.space_survey import ATTEMPTS, is_listed

    if is_listed(space):
        return f"The space holds no more than these {found:,}{' inside the budget' if budget is not None else ''}."
    return f"No further distinct candidate in {ATTEMPTS} draws; that does not mean that there is none."


def _print_sample(drawn: "list[Drawn]", name: str) -> None:
    from mvit_search._quantities import format_count
    from mvit_search.analysis.stages import stage_summary

    rows = [
        (str(number), f"{one.params:,}", format_count(one.macs), f"{one.latency.ms:.2f}",
         "x".join(map(str, one.config.image_size)), stage_summary(one.config))
        for number, one in enumerate(drawn)
    ]  # fmt: skip
    columns = ("#", "params", "MACs", "ms (predicted)", "image", "stages")
    print_table(f"draws of {name}", columns, rows, left=("stages",))
    for source in dict.fromkeys(one.latency.source for one in drawn):
        say(f"Latency is {source}.")


def _write(drawn: "list[Drawn]", name: str, folder: Path, force: bool) -> list[Path | None]:
    """One file a candidate; nothing is written where one of them exists, unless `force`."""
    import json

    from mvit_search._files import write_atomically
    from mvit_search.errors import ConflictError, InputError

    digits = len(str(len(drawn) - 1))
    files = [folder / f"{name}-{number:0{digits}}.json" for number in range(len(drawn))]
    try:
        if not force and (taken := next((path for path in files if path.exists()), None)):
            raise ConflictError("--out", str(taken), "exists", "choose another folder, or add --force")
        folder.mkdir(parents=True, exist_ok=True)
        for path, one in zip(files, drawn, strict=True):
            write_atomically(path, json.dumps(one.config.model_dump(mode="json"), indent=2) + "\n")
    except OSError as error:
        raise InputError("--out", str(folder), f"cannot be written ({error.strerror})") from None
    return list(files)


def _size(number: int) -> str:
    from mvit_search.analysis.space_page import size_text

    return size_text(number)
