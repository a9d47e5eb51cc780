"""`mvit-search profile`: what a candidate costs, and where."""

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
    from mvit_search.analysis.profile_facts import NetworkProfile


def profile(
    references: Annotated[
        list[str],
        typer.Argument(
            metavar="REF",
            help="Preset (mobilevit-s), config file (.yaml, .json), or RUN/NUMBER, RUN/best, RUN/knee, RUN/@5ms. "
            "Several are put side by side.",
        ),
    ],
    target: Annotated[str, typer.Option(help="Device to predict or measure the latency for.")] = "iphone12",
    image_size: ImageSizeOption = None,
    task: Annotated[
        str, typer.Option(metavar="TASK", help="classification, or a head on it: detection, segmentation.")
    ] = "classification",
    output_stride: Annotated[
        int | None, typer.Option("--output-stride", metavar="8|16|32", help="Dilate instead of passing this stride.")
    ] = None,
    num_classes: Annotated[
        int | None,
        typer.Option("--num-classes", min=1, max=MAX_CLASSES, help="Default: as in the papers (1000, 81 or 21)."),
    ] = None,
    layers: Annotated[bool, typer.Option("--layers", help="Also print one row a block, with its shares.")] = False,
    ops: Annotated[bool, typer.Option("--ops", help="Also print one row an operator.")] = False,
    compare: Annotated[bool, typer.Option("--compare", help="Put several REF side by side.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Build it and cross-check with torch and fvcore.")] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page with a picture of the architecture.")
    ] = None,
    results_dir: ResultsDirOption = RESULTS_DIR,
    json: JsonOption = False,
) -> None:
    """Show parameters, MACs, memory and latency of a network, or of several side by side."""
    from mvit_search.analysis.profile_facts import network_profile
    from mvit_search.analysis.profile_page import require_page_path, write_profile_page
    from mvit_search.architecture.tasks import task_named
    from mvit_search.latency import load_target
    from mvit_search.records import resolve

    _require_consistent(references, compare=compare, ops=ops)
    if html:
        require_page_path(html)
    device, settings = load_target(target), task_named(task)
    size = parse_image_size(image_size)
    found = [resolve(reference, results_dir) for reference in references]
    if size is None and task != "classification":
        size = (settings.image_size, settings.image_size)
    networks = [(row.name, row.config.with_image_size(*size) if size else row.config) for row in found]
    profiles = [
        network_profile(name, config, device, task=task, num_classes=num_classes, output_stride=output_stride)
        for name, config in networks
    ]
    checks = [_verification(profile) for profile in profiles] if verify else []
    if html:
        write_profile_page(profiles, html)
    if json:
        print_json(_document(profiles, checks, with_ops=ops))
    else:
        _print(profiles, checks, layers=layers, ops=ops)
        if html:
            say(f"wrote {html}")
    _complain_of_differences(profiles, checks)


def _require_consistent(references: list[str], *, compare: bool, ops: bool) -> None:
    from mvit_search.errors import InputError

    if compare and len(references) < 2:
        raise InputError("--compare", None, "needs at least two references", "write profile REF --compare REF")
    if ops and len(references) > 1:
        raise InputError("--ops", None, "lists the operators of one network", "give one reference")


def _verification(profile: "NetworkProfile") -> dict[str, Any]:
    from mvit_search.profile.verify import verify, verify_task

    if profile.task == "classification":
        result = verify(profile.config, profile.num_classes, output_stride=profile.output_stride)
    else:
        result = verify_task(profile.config, profile.task, profile.num_classes)
    return {**result._asdict(), "ok": result.ok}


def _document(
    profiles: list["NetworkProfile"], checks: list[dict[str, Any]], *, with_ops: bool
) -> dict[str, Any]:  # fmt: skip
    """The first network's document; of others, each its own and its ratios to the first under `compare`."""
    from mvit_search.analysis.profile_comparison import ratios_to_first
    from mvit_search.analysis.profile_published import published_facts

    documents = []
    for index, profile in enumerate(profiles):
        document = profile.document(with_ops=with_ops)
        document["published"] = [fact.document() for fact in published_facts(profile)]
        if checks:
            document["verification"] = checks[index]
        documents.append(document)
    first, *others = documents
    if others:
        first["compare"] = [
            {**document, "ratio_to_first": ratios_to_first(profile, profiles[0])}
            for document, profile in zip(others, profiles[1:], strict=True)
        ]
    return first


def _print(
    profiles: list["NetworkProfile"], checks: list[dict[str, Any]], *, layers: bool, ops: bool
) -> None:  # fmt: skip
    from mvit_search.cli import profile_tables as tables

    if len(profiles) == 1:
        tables.print_network(profiles[0], checks[0] if checks else None)
    else:
        tables.print_comparison(profiles, checks)
    for profile in profiles:
        if layers:
            tables.print_layers(profile)
        if ops:
            tables.print_ops(profile)


def _complain_of_differences(profiles: list["NetworkProfile"], checks: list[dict[str, Any]]) -> None:
    from mvit_search.errors import WorkError

    wrong = [profile.name for profile, check in zip(profiles, checks, strict=False) if not check["ok"]]
    if wrong:
        names = ", ".join(wrong)
        raise WorkError(f"the op table of {names} differs from the built network; please report this config")
