"""`mvit-search weights`: a checkpoint file under another library's names."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mvit_search.cli.arguments import RESULTS_DIR, JsonOption, ResultsDirOption
from mvit_search.cli.output import print_json, say
from mvit_search.errors import ConflictError, InputError, WorkError

if TYPE_CHECKING:
    from torch import Tensor

    from mvit_search.architecture import MobileViTConfig
    from mvit_search.architecture.checkpoints import Checkpoint
    from mvit_search.architecture.weight_names import Layout
    from mvit_search.architecture.weights import Conversion

app = typer.Typer(no_args_is_help=True, help="Convert weights between this project, CoreNet, timm and transformers.")

_KNOWN = "ours, corenet (ml-cvnets has the same names), timm, transformers"


@app.callback()
def options() -> None:
    """Convert weights between this project, CoreNet, timm and transformers."""


@app.command("convert")
def convert(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A .safetensors or torch file (.pt, .pth, ...).")],
    reference: Annotated[
        str, typer.Option("--config", "-c", metavar="REF", help="The network: preset, config file or RUN/NUMBER.")
    ],
    from_layout: Annotated[str, typer.Option("--from", help=f"Its names: auto (told by the keys), {_KNOWN}.")] = "auto",
    to_layout: Annotated[str, typer.Option("--to", help=f"Names to give: {_KNOWN}.")] = "ours",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="Written as its suffix says; else SOURCE's name with .TO.safetensors."
        ),
    ] = None,
    ema: Annotated[bool, typer.Option("--ema", help="Take the average that a training checkpoint keeps.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
    results_dir: ResultsDirOption = RESULTS_DIR,
    json: JsonOption = False,
) -> None:
    """Rename a checkpoint's weights from one library's names to another's."""
    from mvit_search.architecture.checkpoints import (
        read_checkpoint,
        require_file,
        require_known_suffix,
        write_checkpoint,
    )  # fmt: skip
    from mvit_search.architecture.weights import convert as convert_weights
    from mvit_search.records import resolve

    found = resolve(reference, results_dir)
    target = _layout(to_layout)
    require_file(source)
    path = out or _default_path(source, target)
    require_known_suffix("out", path)
    _check_free(path, force)
    checkpoint = read_checkpoint(source, ema=ema)
    with _named(source):
        layout, told_by = _source_layout(from_layout, checkpoint.state_dict, found.config)
        conversion = convert_weights(checkpoint.state_dict, found.config, layout, target)
    checks = _verify(checkpoint.state_dict, conversion, found.config, layout, target)
    write_checkpoint(path, conversion.state_dict)

    document = {
        "source": str(source), "config": found.name, "digest": found.config.digest(),
        "from": layout, "from_told_by": told_by, "to": target,
        **_facts(checkpoint, conversion), "checks": checks, "file": str(path),
    }  # fmt: skip
    if json:
        print_json(document)
    else:
        _describe(document)


@contextmanager
def _named(source: Path) -> Iterator[None]:
    """Errors in a state dict name the file that it came from."""
    try:
        yield
    except InputError as error:
        if error.field != "state_dict":
            raise
        rule = error.rule if error.value is None else f"{error.value} {error.rule}"
        raise InputError("source", str(source), rule, error.advice) from None


def _layout(name: str) -> "Layout":
    from mvit_search.architecture.weight_names import LAYOUTS
    from mvit_search.errors import UnknownNameError

    if name not in LAYOUTS:
        raise UnknownNameError("layout", name, LAYOUTS)
    return name


def _source_layout(name: str, state_dict: "dict[str, Tensor]", config: "MobileViTConfig") -> "tuple[Layout, str]":
    """The layout, and how it is known."""
    from mvit_search.architecture.weights import guess_layout

    if name != "auto":
        return _layout(name), "--from"
    guess = guess_layout(state_dict, config)
    return guess.layout, f"{guess.matched} of {guess.expected} keys"


def _default_path(source: Path, target: str) -> Path:
    """`timm.pth.tar` -> `timm.ours.safetensors`, beside it."""
    from mvit_search.architecture.checkpoints import SAFETENSORS, TORCH

    stem = Path(source.name)
    while stem.suffix in SAFETENSORS + TORCH:
        stem = stem.with_suffix("")
    return source.parent / f"{stem.name}.{target}.safetensors"


def _check_free(path: Path, force: bool) -> None:
    try:
        taken = path.exists()
    except OSError as error:  # a folder on the way that may not be entered
        rule = f"cannot be written ({error.strerror or error})"
        raise InputError("out", str(path), rule, "choose another place") from None
    if taken and not force:
        raise ConflictError("out", str(path), "exists", "choose another name, or add --force")


def _facts(checkpoint: "Checkpoint", conversion: "Conversion") -> dict[str, Any]:
    from mvit_search.architecture.weight_names import COUNTER

    state = conversion.state_dict
    statistics = ("running_mean", "running_var", COUNTER)
    return {
        "unwrapped": list(checkpoint.unwrapped),
        "average_left": checkpoint.left,
        "tensors_read": len(checkpoint.state_dict),
        "tensors": len(state),
        "params": sum(tensor.numel() for key, tensor in state.items() if not key.endswith(statistics)),
        "num_classes": conversion.num_classes,
        "dtypes": sorted(
            {str(t.dtype).removeprefix("torch.") for key, t in state.items() if not key.endswith(COUNTER)}
        ),
        "filled": list(conversion.filled),
        "not_finite": sorted(key for key, tensor in state.items() if not tensor.double().isfinite().all()),
    }


def _verify(
    state_dict: "dict[str, Tensor]", conversion: "Conversion", config: "MobileViTConfig",
    source: "Layout", target: "Layout",
) -> dict[str, bool]:  # fmt: skip
    """Load the weights strictly into the network, and convert them back.

    Raises:
        WorkError: they do not load, or come back changed.
    """
    from mvit_search.architecture.network import MobileViT
    from mvit_search.architecture.weights import convert as convert_weights
    from mvit_search.architecture.weights import same_tensors

    ours = convert_weights(conversion.state_dict, config, target, "ours").state_dict
    network = MobileViT(config, conversion.num_classes)
    try:
        network.load_state_dict(ours, strict=True)
    except RuntimeError as error:
        raise WorkError(f"the converted weights do not load into the network: {error}") from None
    back = convert_weights(conversion.state_dict, config, target, source).state_dict
    if not same_tensors(state_dict, {key: value for key, value in back.items() if key in state_dict}):
        raise WorkError("the converted weights differ from the source once converted back")
    return {"loads_strictly": True, "round_trip": True}


def _describe(document: dict[str, Any]) -> None:
    unwrapped = f", unwrapped from {', '.join(document['unwrapped'])}" if document["unwrapped"] else ""
    say(f"read       {document['source']}: {document['tensors_read']} tensors{unwrapped}")
    if left := document["average_left"]:
        say(f"           an average of the weights under {left} is left behind: --ema takes it")
    say(f"from       {document['from']} (told by {document['from_told_by']})")
    say(
        f"to         {document['to']}: {document['tensors']} tensors, {document['params']:,} parameters, "
        f"{document['num_classes']} classes, {', '.join(document['dtypes'])}"
    )
    if document["filled"]:
        say(f"filled in  {len(document['filled'])} num_batches_tracked that the source left out, with 0")
    say(f"verified   loads strictly into {document['config']}; converted back, every tensor is the source's")
    if bad := document["not_finite"]:
        say(f"warning    {len(bad)} of {document['tensors']} tensors hold NaN or infinite values")
    say(f"wrote      {document['file']}")
