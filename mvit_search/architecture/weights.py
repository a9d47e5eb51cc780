"""State dicts converted both ways: the same weights under the names of CoreNet, timm and transformers.

No library holds a tensor in another shape than ours; transformers' MobileViT keeps query, key and value apart, which
are one matrix (`qkv`) everywhere else. Tensors keep their dtype and device.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from mvit_search.architecture.config import MobileViTConfig
from mvit_search.architecture.network import MobileViT
from mvit_search.architecture.weight_names import COUNTER, LAYOUTS, Layout, classifier_weight, layout_keys
from mvit_search.errors import InputError

_NAMES_SHOWN = 4


class Conversion(NamedTuple):
    """Converted weights; `filled` are keys of the target that the source left out: batch norms' counters, now 0."""

    state_dict: dict[str, Tensor]
    num_classes: int
    filled: tuple[str, ...]


class Guess(NamedTuple):
    """The layout whose keys fit best: `matched` of its `expected` keys are there."""

    layout: Layout
    matched: int
    expected: int


def convert(state_dict: Mapping[str, Tensor], config: MobileViTConfig, source: Layout, target: Layout) -> Conversion:
    """The weights of a network of that config, renamed from one layout to another.

    The number of classes is what the classifier's matrix says. A missing `num_batches_tracked` becomes 0: exported
    checkpoints often leave it out, and evaluation does not read it.

    Raises:
        UnknownNameError: a layout that is none of `LAYOUTS`.
        InputError: missing and surplus keys, a tensor of another shape than the config says, one that holds no
            floating-point numbers, or a network that a library has no names for.
    """
    old_keys, new_keys, our_keys = (layout_keys(config, layout) for layout in (source, target, "ours"))
    _check_keys(state_dict, {key for keys in old_keys for key in keys})
    num_classes = _num_classes(state_dict, classifier_weight(config, source))
    shapes = _shapes(config, num_classes)
    result: dict[str, Tensor] = {}
    filled: list[str] = []
    for old, new, (ours,) in zip(old_keys, new_keys, our_keys, strict=True):
        if old[0] not in state_dict:  # a counter: nothing else passes _check_keys
            filled += new
            result.update({key: torch.tensor(0) for key in new})
            continue
        for key in old:
            _check_tensor(key, state_dict[key], _split_shape(shapes[ours], len(old)))
        result.update(zip(new, _rearranged([state_dict[key].detach() for key in old], old[0], len(new)), strict=True))
    return Conversion(result, num_classes, tuple(filled))


def guess_layout(state_dict: Mapping[str, Tensor], config: MobileViTConfig) -> Guess:
    """The layout whose keys have most in common with those of the state dict.

    Raises:
        InputError: not half of any layout's keys are there.
    """
    best, best_share = Guess("ours", 0, 1), 0.0
    for layout in LAYOUTS:
        try:
            expected = {key for keys in layout_keys(config, layout) for key in keys if not key.endswith(COUNTER)}
        except InputError:  # the library has no names for this network, so these are not its weights
            continue
        matched = len(expected & state_dict.keys())
        share = matched / len(expected | {key for key in state_dict if not key.endswith(COUNTER)})
        if share > best_share:
            best, best_share = Guess(layout, matched, len(expected)), share
    if best_share < 0.5:
        rule = f"its keys are those of none of the known layouts ({', '.join(LAYOUTS)}) of this config"
        if best.matched:
            rule += f": {best.layout} comes nearest with {best.matched} of {best.expected} keys"
        raise InputError("state_dict", None, rule, "is it the network of this config?")
    return best


def from_corenet(state_dict: Mapping[str, Tensor], config: MobileViTConfig) -> dict[str, Tensor]:
    """A state dict of CoreNet's or ml-cvnets' MobileViT(v2) under the names of `MobileViT(config)`; see `convert`."""
    return convert(state_dict, config, "corenet", "ours").state_dict


def to_corenet(state_dict: Mapping[str, Tensor], config: MobileViTConfig) -> dict[str, Tensor]:
    """The state dict of `MobileViT(config)` under CoreNet's names, which an exported plugin has too; see `convert`."""
    return convert(state_dict, config, "ours", "corenet").state_dict


def from_timm(state_dict: Mapping[str, Tensor], config: MobileViTConfig) -> dict[str, Tensor]:
    """A state dict of a timm `ByobNet` with MobileViT(v2) blocks under our names; see `convert`."""
    return convert(state_dict, config, "timm", "ours").state_dict


def to_timm(state_dict: Mapping[str, Tensor], config: MobileViTConfig) -> dict[str, Tensor]:
    """The state dict of `MobileViT(config)` under the names of a timm `ByobNet`; see `convert`."""
    return convert(state_dict, config, "ours", "timm").state_dict


def from_transformers(state_dict: Mapping[str, Tensor], config: MobileViTConfig) -> dict[str, Tensor]:
    """A state dict of transformers' `MobileViT(V2)ForImageClassification` under our names; see `convert`."""
    return convert(state_dict, config, "transformers", "ours").state_dict


def to_transformers(state_dict: Mapping[str, Tensor], config: MobileViTConfig) -> dict[str, Tensor]:
    """The state dict of `MobileViT(config)` under the names of `MobileViT(V2)ForImageClassification`; see `convert`."""
    return convert(state_dict, config, "ours", "transformers").state_dict


def same_tensors(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether both hold the same keys, dtypes, shapes and bits (so a NaN equals itself)."""
    return one.keys() == other.keys() and all(_same(tensor, other[key]) for key, tensor in one.items())


def _same(one: Tensor, other: Tensor) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    first, second = (tensor.detach().reshape(-1).contiguous().view(torch.uint8) for tensor in (one, other))
    return torch.equal(first, second)


def _check_keys(state_dict: Mapping[str, Tensor], expected: set[str]) -> None:
    missing = sorted(key for key in expected - state_dict.keys() if not key.endswith(COUNTER))
    surplus = sorted(state_dict.keys() - expected)
    if not missing and not surplus:
        return
    problems = [f"lacks {_shown(missing)}"] if missing else []
    problems += [f"has the unknown {_shown(surplus)}"] if surplus else []
    raise InputError("state_dict", None, " and ".join(problems), "is it the network of this config?")


def _shown(keys: list[str]) -> str:
    more = f" and {len(keys) - _NAMES_SHOWN} more" if len(keys) > _NAMES_SHOWN else ""
    return ", ".join(keys[:_NAMES_SHOWN]) + more


def _num_classes(state_dict: Mapping[str, Tensor], key: str) -> int:
    shape = tuple(state_dict[key].shape)
    if len(shape) != 2 or not shape[0]:
        raise InputError("state_dict", key, f"has the shape {shape}, which is not (classes, channels)")
    return shape[0]


def _check_tensor(key: str, tensor: Tensor, expected: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != expected:
        rule = f"has the shape {tuple(tensor.shape)}, where the config says {expected}"
        raise InputError("state_dict", key, rule, "is it the network of this config?")
    if tensor.layout != torch.strided or tensor.is_meta:
        raise InputError("state_dict", key, "is not a plain tensor with numbers", "save it dense")
    if not tensor.is_floating_point() and not key.endswith(COUNTER):
        raise InputError("state_dict", key, f"holds {tensor.dtype} and not floating-point numbers", "save it so")


def _split_shape(shape: tuple[int, ...], pieces: int) -> tuple[int, ...]:
    """(3d, d) -> (d, d) for query, key and value apart."""
    return (shape[0] // pieces, *shape[1:]) if pieces > 1 else shape


def _rearranged(tensors: list[Tensor], key: str, pieces: int) -> list[Tensor]:
    """As many tensors as the target has names; copies of the parts, so that none is a view of another."""
    if len(tensors) == pieces:
        return tensors
    if len(tensors) == 1:
        return [part.clone() for part in tensors[0].chunk(pieces)]  # (3d, d) -> (d, d) three times
    dtypes = {tensor.dtype for tensor in tensors}
    if len(dtypes) > 1:
        rule = f"and the tensors it is joined with hold {' and '.join(sorted(map(str, dtypes)))}"
        raise InputError("state_dict", key, rule, "save them with one dtype")
    return [torch.cat(tensors)]  # (d, d) three times -> (3d, d)


@lru_cache(maxsize=16)
def _shapes(config: MobileViTConfig, num_classes: int) -> dict[str, tuple[int, ...]]:
    """Key -> shape of `MobileViT(config, num_classes)`, which takes no memory and no random numbers to know."""
    with torch.device("meta"):
        return {key: tuple(value.shape) for key, value in MobileViT(config, num_classes).state_dict().items()}
