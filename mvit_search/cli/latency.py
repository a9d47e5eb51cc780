"""`mvit-search latency`: how long a network takes on a device, and where the milliseconds go."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mvit_search.cli.arguments import (
    MAX_CLASSES,
    RESULTS_DIR,
    ImageSizeOption,
    JsonOption,
    ResultsDirOption,
    parse_image_size,
)  # fmt: skip
from mvit_search.cli.output import print_json, say

if TYPE_CHECKING:
    from mvit_search.analysis.latency_explanation import LatencyExplanation
    from mvit_search.analysis.latency_subject import Subject
    from mvit_search.latency import Latency, PredictedTarget, Target

_DEFAULT_TARGET = "iphone12"


def latency(
    reference: Annotated[
        str,
        typer.Argument(
            metavar="REF|MODEL",
            help="Preset (mobilevit-s), config file, RUN/NUMBER, RUN/best, ...; or a model's file of any family:"
            " .mlpackage (predicted, or measured on Apple devices), .onnx (measured here).",
        ),
    ],
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="Device to predict or measure for, address of a measurement server, or a target's .json file; may be"
            f" given several times (default: {_DEFAULT_TARGET})."
        ),
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Also show where the predicted time goes.")] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write that as a page with pictures.")
    ] = None,
    image_size: ImageSizeOption = None,
    num_classes: Annotated[
        int | None, typer.Option("--num-classes", min=1, max=MAX_CLASSES, help="Default: as in the papers (1000).")
    ] = None,
    results_dir: ResultsDirOption = RESULTS_DIR,
    json: JsonOption = False,
) -> None:
    """Predict or measure a network's latency: always with interval, source and protocol."""
    from mvit_search.analysis.latency_subject import subject_of
    from mvit_search.analysis.profile_page import require_page_path
    from mvit_search.latency import load_target

    if html:
        require_page_path(html)
    subject = subject_of(reference, results_dir, parse_image_size(image_size), num_classes)
    targets = [load_target(name) for name in dict.fromkeys(target or [_DEFAULT_TARGET])]
    option = "--explain" if explain else "--html"
    predicted = [_predicted(found, option) for found in targets] if explain or html else []
    explanations = [subject.explanation(found) for found in predicted]
    latencies = [row.latency for row in explanations] or [subject.latency(found) for found in targets]
    if html:
        from mvit_search.analysis.latency_page import write_latency_page

        write_latency_page(subject.words, explanations, subject.unknown_operators, html)
    shown = explanations if explain else []
    if json:
        print_json(_document(subject, latencies, shown))
        return
    _print(subject, latencies, shown)
    if html:
        say(f"wrote {html}")


def _predicted(target: "Target", option: str) -> "PredictedTarget":
    from mvit_search.errors import InputError
    from mvit_search.latency import PredictedTarget

    if isinstance(target, PredictedTarget):
        return target
    rule = f"explains predictions; {target.name} measures, and a measured latency is of the whole network"
    raise InputError(option, None, rule, f"choose a target that predicts, such as {_DEFAULT_TARGET}")


def _document(
    subject: "Subject", latencies: list["Latency"], explanations: list["LatencyExplanation"]
) -> dict[str, Any]:  # fmt: skip
    """The latency with the network's name; of several targets a list of them under `latencies`."""
    documents: list[dict[str, Any]] = [found._asdict() for found in latencies]
    for document, explanation in zip(documents, explanations, strict=False):
        document["explanation"] = explanation.document()
    network: dict[str, Any] = {"network": subject.name}
    if subject.unknown_operators:
        network["unknown_operators"] = subject.unknown_operators
    if len(documents) > 1:
        return {**network, "latencies": documents}
    return {**network, **documents[0]}


def _print(
    subject: "Subject", latencies: list["Latency"], explanations: list["LatencyExplanation"]
) -> None:  # fmt: skip
    from mvit_search.cli import latency_tables as tables

    tables.print_latencies(subject.words, latencies)
    tables.say_unknown(subject.unknown_operators)
    for explanation in explanations:
        tables.print_explanation(explanation)
