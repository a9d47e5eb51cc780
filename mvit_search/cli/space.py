"""`mvit-search space`: the search spaces that ship, or one of your own."""

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mvit_search.cli.arguments import JsonOption
from mvit_search.cli.output import print_json, print_table, say

if TYPE_CHECKING:
    from mvit_search.space import SearchSpace

app = typer.Typer(no_args_is_help=True, help="List, show and check search spaces.")

SpaceArgument = Annotated[str, typer.Argument(metavar="SPACE", help="A space's name, or a .yaml file.")]


@app.command("list")
def list_spaces(json: JsonOption = False) -> None:
    """List the spaces that ship."""
    from mvit_search.space import load_space, space_names

    documents = [_document(load_space(name)) for name in space_names()]
    if json:
        print_json(documents)
        return
    rows = [
        (d["name"], f"{d['candidates']:.3g}", str(len(d["dimensions"])), f"{d['smallest_params']:,}", d["description"])
        for d in documents
    ]
    print_table(
        "search spaces", ("name", "candidates", "dimensions", "fewest params", "what"), rows, left=("name", "what")
    )


@app.command("show")
def show(space: SpaceArgument, json: JsonOption = False) -> None:
    """Show the dimensions of a space, and whether the presets lie inside it."""
    from mvit_search.space import load_space

    document = _document(load_space(space))
    if json:
        print_json(document)
        return
    rows = [(name, _values(values), str(len(values))) for name, values in document["dimensions"].items()]
    print_table(f"space {document['name']}", ("dimension", "values", "count"), rows, left=("dimension", "values"))
    smallest = f"{document['smallest_params']:,} parameters (1000 classes)"
    say(f"{document['candidates']:.3g} candidates; the smallest has {smallest}.")
    say(f"Presets inside: {', '.join(document['presets']) or 'none'}. Digest {document['digest'][:12]}.")


@app.command("check")
def check(space: SpaceArgument, json: JsonOption = False) -> None:
    """Check a space file: exit code 0 if every candidate in it can be built."""
    from mvit_search.space import load_space

    document = _document(load_space(space))
    if json:
        print_json(document)
    else:
        say(f"{space}: fine, {document['candidates']:.3g} candidates")


def _document(space: "SearchSpace") -> dict[str, Any]:
    from mvit_search.architecture import PRESETS
    from mvit_search.profile.cost import params_of

    return {
        "name": space.name,
        "description": space.spec.description,
        "digest": space.digest(),
        "image_size": list(space.spec.image_size),
        "candidates": space.size(),
        "smallest_params": params_of(space.smallest()),
        "presets": [name for name, config in PRESETS.items() if config in space],
        "dimensions": {name: list(values) for name, values in space.dimensions.items()},
    }


def _values(values: list[Any]) -> str:
    """`16, 24, 32` or, for a long even ladder, `48 to 240 by 8`."""
    numbers = all(isinstance(value, int) for value in values)
    steps = {after - before for before, after in pairwise(values)} if numbers else set()
    if len(values) > 5 and len(steps) == 1:
        return f"{values[0]} to {values[-1]} by {steps.pop()}"
    return ", ".join(str(value) for value in values)
