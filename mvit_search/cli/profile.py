"""`mvit-search profile`: what a candidate costs, and where."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mvit_search.cli.arguments import RESULTS_DIR, JsonOption, NumClassesOption, ReferenceArgument, ResultsDirOption
from mvit_search.cli.output import print_json, print_table, say

if TYPE_CHECKING:
    from mvit_search.architecture import MobileViTConfig


def profile(
    reference: ReferenceArgument,
    target: Annotated[str, typer.Option(help="Device to predict or measure the latency for.")] = "iphone12",
    image_size: Annotated[
        int | None, typer.Option("--image-size", min=16, max=8192, help="Cost it at this resolution (pixels).")
    ] = None,
    layers: Annotated[bool, typer.Option("--layers", help="Also print one row a block.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Build it and cross-check with torch and fvcore.")] = False,
    num_classes: NumClassesOption = 1000,
    results_dir: ResultsDirOption = RESULTS_DIR,
    json: JsonOption = False,
) -> None:
    """Show parameters, MACs, memory and latency of a network."""
    from mvit_search.errors import WorkError
    from mvit_search.latency import load_target
    from mvit_search.records import resolve

    device = load_target(target)
    found = resolve(reference, results_dir)
    config = found.config.with_image_size(image_size) if image_size else found.config
    document = _document(found.name, config, num_classes)
    document["latency"] = device.latency(config, num_classes)._asdict()
    if verify:
        document["verification"] = _verification(config, num_classes)
    if json:
        print_json(document)
    else:
        _print(document, layers)
    if verify and not document["verification"]["ok"]:
        raise WorkError(f"the op table of {found.name} differs from the built network; please report this config")


def _document(name: str, config: "MobileViTConfig", num_classes: int) -> dict[str, Any]:
    from mvit_search.architecture import operators
    from mvit_search.profile import cost, layer_rows

    ops = operators(config, num_classes)
    costs = cost(config, num_classes)
    return {
        "name": name,
        "digest": config.digest(),
        "num_classes": num_classes,
        "params": costs.params,
        "macs": costs.macs,
        "weight_bytes": costs.weight_bytes,
        "peak_activation_bytes": costs.peak_activation_bytes,
        "memory_by_stride_kib": {str(stride): kib for stride, kib in costs.memory_by_stride_kib.items()},
        "layers": [row._asdict() for row in layer_rows(ops)],
        "config": config.model_dump(mode="json"),
    }


def _verification(config: "MobileViTConfig", num_classes: int) -> dict[str, Any]:
    from mvit_search.profile.verify import verify

    result = verify(config, num_classes)
    return {**result._asdict(), "ok": result.ok}


def _print(document: dict[str, Any], layers: bool) -> None:
    from mvit_search._quantities import format_bytes, format_count

    height, width = document["config"]["image_size"]
    latency = document["latency"]
    by_stride = ", ".join(f"{kib:.4g} at {stride}" for stride, kib in document["memory_by_stride_kib"].items())
    rows = [
        ("parameters", f"{document['params']:,}", f"{document['num_classes']} classes"),
        (
            "MACs",
            format_count(document["macs"]),
            f"convolutions and matrix products, {height}x{width} px; papers say FLOPs",
        ),
        ("weights", format_bytes(document["weight_bytes"]), "fp16, batch norm folded"),
        ("peak activations", format_bytes(document["peak_activation_bytes"]), "fp16, batch 1, liveness scan"),
        ("block outputs (KiB)", "", f"{by_stride} (output stride; fp16)"),
        (
            "latency",
            f"{latency['ms']:.2f} ms",
            f"[{latency['low_ms']:.2f}, {latency['high_ms']:.2f}] {latency['source']}",
        ),
    ]
    if check := document.get("verification"):
        verdict = "equal" if check["ok"] else "DIFFERENT"
        rows.append(
            ("cross-check", verdict, f"module {check['params_module']:,} params, fvcore {check['macs_fvcore']:,} MACs")
        )
    print_table(document["name"], ("", "value", "how"), rows, left=("", "how"))
    if layers:
        blocks = [
            (row["name"], "x".join(map(str, row["shape"])), str(row["stride"]), str(row["operators"]),
             f"{row['params']:,}", format_count(row["macs"]), format_bytes(row["moved_bytes"]))
            for row in document["layers"]
        ]  # fmt: skip
        print_table(
            "blocks",
            ("block", "output", "stride", "operators", "params", "MACs", "moved (fp16)"),
            blocks,
            left=("block",),
        )
        say("Outputs are channels x height x width; inside a transformer pixels of a patch x patches x channels.")
