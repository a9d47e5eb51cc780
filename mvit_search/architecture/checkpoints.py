"""Checkpoint files: weights read out of safetensors and torch files of any origin, and written.

Nothing a file holds is run: torch files are read with `weights_only`, which refuses pickled code.
"""

import argparse
import io
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mvit_search._files import write_atomically
from mvit_search.errors import InputError

SAFETENSORS = (".safetensors",)
TORCH = (".pt", ".pth", ".bin", ".ckpt", ".tar")
"""Suffixes of what `torch.save` wrote: one's own, transformers', Lightning's, timm's."""

# Keys under which training programs put the weights beside optimiser and epoch, in the order they are looked for.
_WRAPPERS = ("model_state_dict", "state_dict", "model", "module", "network")
_EMA_WRAPPERS = ("ema_state_dict", "state_dict_ema", "model_ema", "ema_model", "ema")
# What wrapping modules put before every name: DistributedDataParallel, torch.compile, Lightning.
_PREFIXES = ("module.", "_orig_mod.", "model.", "network.", "net.")
_AVERAGED = "n_averaged"  # a counter that torch's AveragedModel keeps beside its module

# How files begin: a zip archive, which torch.save writes today; what it wrote before; any pickle since protocol 2.
_ZIP, _OLD_TORCH, _PICKLE = b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 ", b"\x80"
_REFUSED = re.compile(r"unsupported global:? (?:GLOBAL )?(\S+)", re.IGNORECASE)


class Checkpoint(NamedTuple):
    """The weights of a file. `unwrapped`: what was taken off to reach them; `left`: an average that stayed behind."""

    state_dict: dict[str, Tensor]
    unwrapped: tuple[str, ...]
    left: str | None


def require_known_suffix(field: str, path: Path) -> None:
    """Refuse a path whose suffix is neither safetensors' nor a torch file's.

    Raises:
        InputError: naming the suffixes that are known.
    """
    if path.suffix not in SAFETENSORS + TORCH:
        known = ", ".join(SAFETENSORS + TORCH)
        raise InputError(field, str(path), f"has the suffix of no checkpoint (known: {known})", "rename it")


def read_checkpoint(path: str | Path, *, ema: bool = False) -> Checkpoint:
    """Read a file by its suffix, and take the weights out of the usual wrappings.

    `ema` takes the exponential moving average that a training checkpoint keeps beside the weights.

    Raises:
        InputError: a suffix of neither kind, a file that cannot be read, pickled code, no state dict in it, something
            else than tensors among the weights, or no average where one was asked for.
    """
    path = Path(path)
    require_file(path)
    require_known_suffix("source", path)
    _require_content_of_suffix(path)
    content = _read_safetensors(path) if path.suffix in SAFETENSORS else _read_torch(path)
    return _unwrap(content, str(path), ema)


def write_checkpoint(path: str | Path, state_dict: Mapping[str, Tensor]) -> None:
    """Write weights as safetensors or as a torch file, by suffix; a reader sees the old file or the new one, whole.

    Raises:
        InputError: a suffix of neither kind, or a place that cannot be written.
    """
    path = Path(path)
    require_known_suffix("out", path)
    # safetensors takes no views into one memory; a clone of each is what a reader gets anyway.
    tensors = {key: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
               for key, tensor in state_dict.items()}  # fmt: skip
    try:
        write_atomically(path, _as_bytes(tensors, path.suffix))
    except OSError as error:
        rule = f"cannot be written ({error.strerror or error})"
        raise InputError("out", str(path), rule, "choose another place") from None


def require_file(path: Path) -> None:
    """Refuse what is no file, before anything else is asked of it.

    Raises:
        InputError: a folder, no file there, or a folder on the way that may not be entered.
    """
    try:
        if path.is_file():
            return
        rule = "is a folder" if path.is_dir() else "there is no such file"
    except OSError as error:
        rule = f"cannot be read ({error.strerror or error})"
    raise InputError("source", str(path), rule, "name the file with the weights")


def _require_content_of_suffix(path: Path) -> None:
    """Refuse a file of one kind under a suffix of the other; what is of neither kind is for its reader to refuse."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_OLD_TORCH))
        size = path.stat().st_size
    except OSError as error:
        rule = f"cannot be read ({error.strerror or error})"
        raise InputError("source", str(path), rule, "name the file with the weights") from None
    if path.suffix in SAFETENSORS and start.startswith((_ZIP, _OLD_TORCH)):
        raise InputError("source", str(path), "is a torch file", f"rename it to {TORCH[0]}")
    # A safetensors file begins with the length of its JSON header, 8 bytes.
    if path.suffix in TORCH and start[8:9] == b"{" and int.from_bytes(start[:8], "little") < size:
        raise InputError("source", str(path), "is a safetensors file", f"rename it to {SAFETENSORS[0]}")


def _as_bytes(tensors: dict[str, Tensor], suffix: str) -> bytes:
    if suffix in SAFETENSORS:
        from safetensors.torch import save

        return bytes(save(tensors, metadata={"format": "pt"}))  # transformers refuses files that do not say so
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    return buffer.getvalue()


def _read_safetensors(path: Path) -> object:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError("source", str(path), f"is no whole safetensors file ({error})", "fetch it again") from None


def _read_torch(path: Path) -> object:
    try:
        # timm's training checkpoints keep their command line, an argparse.Namespace, beside the weights.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # what matters of it is in the error
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise InputError("source", str(path), *_complaint(str(error), path)) from None


def _complaint(message: str, path: Path) -> tuple[str, str]:
    """Rule and advice; torch explains at length how to switch the safety off, and of that one name is of use."""
    if more := _more_than_tensors(message, path):
        advice = "save the state dict alone, or as safetensors"
        return f"holds more than tensors ({more}) and is not read, for safety (weights_only)", advice
    first = message.split("\n")[0].split(". ")[0]
    why = f" ({first})" if " " in first else ""  # some damage is told by a bare number
    return f"is no whole torch file of tensors{why}", "fetch it again, or save a state dict"


def _more_than_tensors(message: str, path: Path) -> str | None:
    """What torch refused to load, if it refused a whole file rather than met a damaged one."""
    if refused := _REFUSED.search(message):
        return refused[1].rstrip(".,")
    if "TorchScript" in message:
        return "a TorchScript program"
    with path.open("rb") as file:
        start = file.read(len(_OLD_TORCH))
    is_pickle = start.startswith(_PICKLE) and not start.startswith(_OLD_TORCH)
    return "a pickle that torch.save did not write" if is_pickle else None


def _unwrap(content: object, source: str, ema: bool) -> Checkpoint:
    unwrapped: list[str] = []
    left = None
    wanted, others = (_EMA_WRAPPERS, _WRAPPERS) if ema else (_WRAPPERS, _EMA_WRAPPERS)
    while isinstance(content, Mapping):
        inner = next((key for key in wanted if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        left = left or next((key for key in others if isinstance(content.get(key), Mapping)), None)
        unwrapped.append(inner)
        content = content[inner]
        wanted = _WRAPPERS  # an average may be wrapped once more, by its own module
    if ema and not unwrapped:
        raise InputError("source", source, "holds no average of the weights", "leave --ema out")
    state_dict = _tensors(content, source)
    while prefix := _common_prefix(state_dict):
        if _AVERAGED in state_dict:
            unwrapped.append(_AVERAGED)
        state_dict = {key.removeprefix(prefix): value for key, value in state_dict.items() if key != _AVERAGED}
        unwrapped.append(prefix)
    return Checkpoint(state_dict, tuple(unwrapped), None if ema else left)


def _tensors(content: object, source: str) -> dict[str, Tensor]:
    if not isinstance(content, Mapping) or not content:
        kind = "nothing" if isinstance(content, Mapping) else type(content).__name__
        raise InputError("source", source, f"holds {kind}, where a state dict is expected", "save a state dict")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            rule = f"holds {type(value).__name__} under {key!r}, where weights are expected"
            raise InputError("source", source, rule, "save the state dict alone")
    return dict(content)


def _common_prefix(state_dict: Mapping[str, Any]) -> str | None:
    keys = [key for key in state_dict if key != _AVERAGED]
    return next((prefix for prefix in _PREFIXES if keys and all(key.startswith(prefix) for key in keys)), None)
