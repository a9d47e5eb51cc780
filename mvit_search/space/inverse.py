"""From the fields of a network back to the parameters that spell it."""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

from mvit_search.errors import InputError
from mvit_search.space.wiring import Node, Wiring

_MOST_COMBINATIONS = 10_000


class Inverse:
    """Spells networks of one space.

    Rounding can make several values of a knob give one network; then it is always the first of them that fits. A
    field that a knob alone decides leaves few values of the knob; where conditions look at knobs, what is left is
    tried in order.
    """

    def __init__(self, name: str, wiring: Wiring, knobs: tuple[str, ...]) -> None:
        self._name = name
        self._fields = [node for key, node in wiring.items() if key not in knobs]
        self._knobs = {key: wiring[key].values for key in knobs}
        self._masks = [
            (node, node.source, _masks(node, wiring[node.source]))
            for node in self._fields
            if node.source is not None and node.source in self._knobs and not node.tests
        ]
        looked_at = {key for node in self._fields for key, _ in node.tests}
        looked_at |= {node.source for node in self._fields if node.tests and node.source is not None}
        self._loose = [key for key in knobs if key in looked_at]
        if math.prod(len(self._knobs[key]) for key in self._loose) > _MOST_COMBINATIONS:
            rule = f"conditions look at knobs of more than {_MOST_COMBINATIONS:,} combinations"
            raise InputError(f"knobs.{self._loose[0]}", None, rule, "use larger steps")

    def params(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters with which all `fields` (flat name -> value, as the space spells values) come out.

        Raises:
            InputError: naming the first field that no parameters give.
        """
        problem: InputError | None = None
        for knobs in self._candidates(fields):
            try:
                return self._with({**fields, **knobs}, knobs)
            except InputError as error:
                problem = problem or error
        assert problem is not None
        raise problem

    def _candidates(self, flat: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Values of the knobs that agree with all fields that are tied without a condition."""
        left = {key: (1 << len(values)) - 1 for key, values in self._knobs.items()}
        for node, knob, masks in self._masks:
            left[knob] &= masks.get(flat[node.key], 0)
            if not left[knob]:
                both = f"; no one {knob} gives this and the fields before it"
                raise self._outside(node, flat, both if flat[node.key] in masks else "")
        first = {key: values[_lowest_bit(left[key])] for key, values in self._knobs.items()}
        if not self._loose:
            yield first
            return
        open_values = [[v for i, v in enumerate(self._knobs[key]) if left[key] >> i & 1] for key in self._loose]
        for chosen in itertools.product(*open_values):
            yield first | dict(zip(self._loose, chosen, strict=True))

    def _with(self, flat: Mapping[str, Any], knobs: Mapping[str, Any]) -> dict[str, Any]:
        params = {key: value for key, value in knobs.items() if len(self._knobs[key]) > 1}
        for node in self._fields:
            value = flat[node.key]
            if node.tests and not node.active(flat):
                if value != node.otherwise:
                    raise self._outside(node, flat)
                value = node.values[0]
            elif node.source is not None:
                if node.table[flat[node.source]] != value:
                    raise self._outside(node, flat, f" with {node.source} {flat[node.source]!r}")
                continue
            elif value not in node.values:
                raise self._outside(node, flat)
            if node.source is None and len(node.values) > 1:
                # The space's own spelling, so that 4 stays 4 where the config says 4.0.
                params[node.key] = node.values[node.values.index(value)]
        return params

    def _outside(self, node: Node, flat: Mapping[str, Any], where: str = "") -> InputError:
        return InputError(node.key, flat[node.key], f"space {self._name} has {list(node.domain)}{where}")


def _masks(node: Node, knob: Node) -> dict[Any, int]:
    """Value of the field -> which values of its knob give it, one bit each."""
    masks: dict[Any, int] = {}
    for index, value in enumerate(knob.values):
        own = node.table[value]
        masks[own] = masks.get(own, 0) | 1 << index
    return masks


def _lowest_bit(mask: int) -> int:
    return (mask & -mask).bit_length() - 1
