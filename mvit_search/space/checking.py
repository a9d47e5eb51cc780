"""Every candidate that can be drawn can be built: checked once, when a space is loaded."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

from mvit_search.architecture import parse_config
from mvit_search.errors import InputError
from mvit_search.space.schema import SpaceSpec
from mvit_search.space.wiring import Node, Wiring

Values = dict[str, Any]
Evaluate = Callable[[Values], Values]

# A check takes some 15 us: loading stays under a second whatever the file says.
_MOST_CHECKS = 50_000
# The fields of a stage that `MobileViTStage` has rules between, the one to blame first. All others stand alone.
_RULES_BETWEEN = (("num_heads", "transformer_dim", "attention"), ("ffn_ratio", "transformer_dim"))

_SOUND_STAGES: dict[str, Values] = {
    "conv": {"kind": "conv", "out_channels": 16},
    "mobilevit": {"kind": "mobilevit", "out_channels": 16, "transformer_dim": 16, "num_heads": 1},
}


def check_buildable(spec: SpaceSpec, wiring: Wiring) -> None:
    """Put every value of every field, and every combination that a rule looks at, into a sound network.

    Raises:
        InputError: the rule that a value or a combination breaks; `field` is the path.
    """
    everything = itertools.chain(_alone(spec, wiring), _together(spec, wiring))
    for count, (path, change, stage) in enumerate(everything):
        if count == _MOST_CHECKS:
            rule = f"the space has more than {_MOST_CHECKS:,} values and combinations to check"
            raise InputError(path, None, rule, "use larger steps")
        _build(path, change, stage)
    _check_images(spec, wiring)


def _check_images(spec: SpaceSpec, wiring: Wiring) -> None:
    """No image is smaller than the total stride of a network that it can go with."""
    strides = [f"stages.{index}.stride" for index in range(len(spec.stages))]
    most = 2 * math.prod(max(map(_number, wiring[key].domain)) for key in strides)
    if min(map(_side, wiring["image_size"].domain)) >= most:
        return
    for size, *passed in _occurring(["image_size", *strides], wiring):
        if _side(size) < (total := 2 * math.prod(map(_number, passed))):
            rule = f"is below the total stride of a network in the space, {total} px"
            raise InputError("image_size", size, rule, "use larger images, or fewer stages of stride 2")


def _alone(spec: SpaceSpec, wiring: Wiring) -> Iterator[tuple[str, Values, str | None]]:
    """(path, change, kind of stage or None) for each value of each field that no rule ties to others."""
    together = {name for group in _RULES_BETWEEN for name in group}
    for key, node in wiring.items():
        stage, _, name = key.rpartition(".")
        if key in (spec.knobs or {}):
            continue
        kind = spec.stages[int(stage.partition(".")[2])].kind if stage else None
        if name not in together:
            yield from ((key, {name: value}, kind) for value in node.domain)


def _together(spec: SpaceSpec, wiring: Wiring) -> Iterator[tuple[str, Values, str | None]]:
    """The same for the groups of fields that a rule ties: each combination that can occur."""
    for index, stage in enumerate(spec.stages):
        if stage.kind != "mobilevit":
            continue
        for group in _RULES_BETWEEN:
            keys = [f"stages.{index}.{name}" for name in group]
            for values in _occurring(keys, wiring):
                yield keys[0], dict(zip(group, values, strict=True)), stage.kind


def _occurring(keys: list[str], wiring: Wiring) -> Iterator[tuple[Any, ...]]:
    """Distinct combinations of the values of `keys`."""
    nodes = [wiring[key] for key in wiring if key in _upstream(keys, wiring)]
    free = [node for node in nodes if node.source is None]
    if math.prod(len(node.values) for node in free) > _MOST_CHECKS:
        rule = f"depends on more than {_MOST_CHECKS:,} combinations of {', '.join(node.key for node in free)}"
        raise InputError(keys[0], None, rule, "use larger steps")
    seen: set[tuple[Any, ...]] = set()
    for combination in itertools.product(*(node.values for node in free)):
        flat = evaluated({node.key: value for node, value in zip(free, combination, strict=True)}, nodes)
        values = tuple(flat[key] for key in keys)
        if values not in seen:
            seen.add(values)
            yield values


def _upstream(keys: list[str], wiring: Wiring) -> set[str]:
    """`keys` and all that their values depend on."""
    found: set[str] = set()
    waiting = list(keys)
    while waiting:
        key = waiting.pop()
        if key not in found:
            found.add(key)
            waiting += wiring[key].looks_at
    return found


def evaluated(flat: Values, nodes: list[Node]) -> Values:
    """`flat`, which holds the value of everything free, filled in for all `nodes`, which come in order."""
    for node in nodes:
        if node.tests and not node.active(flat):
            flat[node.key] = node.otherwise
        elif node.source is not None:
            flat[node.key] = node.table[flat[node.source]]
    return flat


def _side(size: Any) -> float:
    """The shorter side of a resolution."""
    return min(size) if isinstance(size, tuple) else _number(size)


def _number(value: Any) -> float:
    assert isinstance(value, (int, float)), "fields have been looked at one by one"
    return value


def _build(path: str, change: Values, kind: str | None) -> None:
    top = {} if kind else change
    stage = {**_SOUND_STAGES[kind], **change} if kind else _SOUND_STAGES["conv"]
    if isinstance(size := top.get("image_size"), (int, float)):
        top = {"image_size": (size, size)}
    try:
        parse_config({**top, "stages": [stage]})
    except InputError as error:
        raise InputError(path, error.value, error.rule) from None
