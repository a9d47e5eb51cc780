"""Arguments that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

ReferenceArgument = Annotated[
    str,
    typer.Argument(
        metavar="REF",
        help="Preset (mobilevit-s), config file (.yaml, .json), or RUN/NUMBER, RUN/best, RUN/knee, RUN/@5ms.",
    ),
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run's name, or the path of its folder.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else.")]
ResultsDirOption = Annotated[Path, typer.Option("--results-dir", help="Folder of the runs.", metavar="DIR")]
NumClassesOption = Annotated[
    int,
    typer.Option(
        "--num-classes", min=1, max=1_000_000, help="Classes of the costed network; 1000 as the papers count."
    ),
]

RESULTS_DIR = Path("results")
