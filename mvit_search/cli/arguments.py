"""Arguments that several commands share."""

import re
from pathlib import Path
from typing import Annotated

import typer

MAX_CLASSES = 1_000_000

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
ImageSizeOption = Annotated[
    str | None, typer.Option("--image-size", metavar="N|HxW", help="Cost it at this resolution (pixels).")
]
NumClassesOption = Annotated[
    int,
    typer.Option(
        "--num-classes", min=1, max=MAX_CLASSES, help="Classes of the costed network; 1000 as the papers count."
    ),
]

RESULTS_DIR = Path("results")
_PIXELS = re.compile(r"(\d{1,6})(?:[xX×](\d{1,6}))?")
_SMALLEST, _LARGEST = 16, 8192


def parse_image_size(text: str | None) -> tuple[int, int] | None:
    """`224` -> (224, 224); `256x192` -> (256, 192), height first.

    Raises:
        InputError: it is no size of 16 to 8192 pixels.
    """
    from mvit_search.errors import InputError

    if text is None:
        return None
    match = _PIXELS.fullmatch(text.strip())
    height, width = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not _SMALLEST <= min(height, width) <= max(height, width) <= _LARGEST:
        rule = f"must be {_SMALLEST} to {_LARGEST} pixels"
        raise InputError("--image-size", text, rule, "write 224, or height x width like 256x192")
    return height, width
