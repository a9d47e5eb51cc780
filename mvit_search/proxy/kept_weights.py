"""Weights that one training leaves and the next begins with, in a safetensors file."""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from mvit_search._files import write_atomically
from mvit_search.architecture import MobileViTConfig
from mvit_search.errors import InputError

_FORMAT = 1
_HEADER = "mvit-search weights"


class KeptWeights(NamedTuple):
    """A network's state, batch-norm statistics included, and what it took.

    Attributes:
        digest: sha256 over names, types, shapes and values.
        image_steps: training images that the training which left it saw, an image counted each time.
        seconds: of that training and its scoring, by the clock. Of both, nothing of trainings before it.
    """

    digest: str
    tensors: dict[str, Tensor]
    image_steps: int
    seconds: float


def write_weights(
    path: Path, tensors: dict[str, Tensor], config: MobileViTConfig, num_classes: int, *, image_steps: int,
    seconds: float,
) -> None:  # fmt: skip
    """Write the state of a network of that config, atomically. Raises OSError where it cannot."""
    plain = {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}
    header = {
        "format": _FORMAT, "config": config.digest(), "classes": num_classes, "digest": _digest(plain),
        "image_steps": image_steps, "seconds": seconds,
    }  # fmt: skip
    write_atomically(path, save(plain, {_HEADER: json.dumps(header)}))


def read_weights(path: Path, config: MobileViTConfig, num_classes: int) -> KeptWeights:
    """Read what `write_weights` wrote for the same config and class count.

    Raises:
        InputError: `checkpoint` is not there, damaged (one flipped bit is enough), or of another network.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[_HEADER])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        known = header["format"], header["config"], header["classes"]
        kept = KeptWeights(header["digest"], tensors, int(header["image_steps"]), float(header["seconds"]))
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        rule = f"cannot be read as weights to begin with ({' '.join(str(error).split())})"
        raise InputError("checkpoint", str(path), rule, "train from scratch") from None
    if known != (_FORMAT, config.digest(), num_classes):
        raise InputError("checkpoint", str(path), "holds the weights of another network", "train from scratch")
    if _digest(tensors) != kept.digest:
        raise InputError("checkpoint", str(path), "is damaged: its weights are not those written", "train from scratch")
    return kept


@torch.no_grad()
def put_into(network: nn.Module, kept: KeptWeights) -> None:
    """Give the network these weights and statistics, in the layout and on the device that it has.

    Raises:
        InputError: `checkpoint` does not fit: they were written by another version of the network.
    """
    own = network.state_dict()
    wrong = sorted(own.keys() ^ kept.tensors.keys())
    wrong = wrong or [name for name, tensor in own.items() if not _alike(tensor, kept.tensors[name])]
    if wrong:
        raise InputError("checkpoint", None, f"does not fit this network: {wrong[0]}", "train from scratch")
    for name, tensor in own.items():
        tensor.copy_(kept.tensors[name])


def _alike(ours: Tensor, theirs: Tensor) -> bool:
    return ours.shape == theirs.shape and ours.dtype == theirs.dtype


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
