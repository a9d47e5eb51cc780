"""What conditions make of a space: how many candidates it has, and where its smallest one can be.

A free dimension that conditions look at (through ties or not) falls into branches: groups of its values with
which every condition comes out the same. Counting and minimising then go over branches instead of values.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

from mvit_search.errors import InputError
from mvit_search.space.checking import evaluated
from mvit_search.space.wiring import Node, Wiring

_MOST_BRANCHES = 1024
# Fields that parameters rise with; the others cost none.
_COSTLY = frozenset(
    {
        "stem_channels", "head_expansion", "out_channels", "num_blocks", "expand_ratio", "transformer_dim",
        "num_layers", "ffn_ratio", "conv_kernel_size", "fusion", "attention",
    }
)  # fmt: skip


class Branches:
    """The branches of a space.

    Attributes:
        groups: key of each free dimension -> its groups of values, each lightest first; mostly there is one.
    """

    def __init__(self, wiring: Wiring, knobs: tuple[str, ...]) -> None:
        self._nodes = list(wiring.values())
        self._wiring = wiring
        self._knobs = knobs
        self._free = {node.key: node for node in self._nodes if node.source is None}
        ordered = {key: _lightest_first(key, node.values, key in knobs) for key, node in self._free.items()}
        self._lightest = {key: values[0] for key, values in ordered.items()}
        self.groups = _groups(wiring, ordered)
        self._splitting = {key for key, groups in self.groups.items() if len(groups) > 1}
        self._components = self._connected()
        for component in self._components:
            if math.prod(len(self.groups[key]) for key in component) > _MOST_BRANCHES:
                rule = f"conditions, or tables that rise and fall, make more than {_MOST_BRANCHES:,} branches with this"
                raise InputError(component[0], None, rule, "let fewer values decide")

    def count(self) -> int:
        """Number of distinct assignments; a parameter whose field is inactive has one value."""
        apart = set(self._free).difference(*self._components)
        total = math.prod(len(self._free[key].values) for key in apart)
        for component in self._components:
            total *= sum(self._size_of(component, flat) for flat in self._combinations(component))
        return total

    def corners(self) -> list[list[dict[str, Any]]]:
        """For each component the choices of branches: the free values of its dimensions, each at its lightest."""
        return [
            [{key: flat[key] for key in component if key in self._free} for flat in self._combinations(component)]
            for component in self._components
        ]

    def lightest(self) -> dict[str, Any]:
        """Every free dimension at its lightest value."""
        return dict(self._lightest)

    def free_of_cost(self) -> frozenset[str]:
        """Dimensions that no parameter depends on, at no value of any other: heads, patches, strides, images."""
        bound = {key for component in self._components for key in component}
        costly = {_root(node, self._wiring) for node in self._nodes if node.key.rpartition(".")[2] in _COSTLY}
        return frozenset(self._free).difference(bound, costly)

    def ladders(self) -> dict[str, dict[Any, tuple[Any, ...]]]:
        """For each dimension with an order: value -> the values of its branch, lightest first."""
        return {
            key: {value: group for group in groups for value in group}
            for key, groups in self.groups.items()
            if key in self._knobs or all(map(is_number, self._free[key].values))
        }

    def _connected(self) -> list[list[str]]:
        """Free dimensions that conditions bind to one another."""
        sets: list[set[str]] = [{key} for key in self._splitting]
        roots: dict[str, frozenset[str]] = {}
        for node in self._nodes:
            own = frozenset({node.key}) if node.source is None else frozenset()
            roots[node.key] = bound = own.union(*(roots[key] for key in node.looks_at))
            if node.tests:
                touching = [known for known in sets if known & bound]
                sets = [known for known in sets if not known & bound] + [set(bound).union(*touching)]
        return [[key for key in self._free if key in members] for members in sets]

    def _combinations(self, component: list[str]) -> Iterator[dict[str, Any]]:
        """Flat values for every choice of branches in `component`; one where a dimension is inactive."""
        splitting = [key for key in component if key in self._splitting]
        for chosen in itertools.product(*(self.groups[key] for key in splitting)):
            start = self._lightest | {key: group[0] for key, group in zip(splitting, chosen, strict=True)}
            flat = evaluated(dict(start), self._nodes)
            inactive = [key for key in splitting if not self._free[key].active(flat)]
            if all(start[key] == self.groups[key][0][0] for key in inactive):
                yield flat

    def _size_of(self, component: list[str], flat: Mapping[str, Any]) -> int:
        """Number of assignments in the branches that `flat` stands for."""
        size = 1
        for key in component:
            if self._free[key].active(flat):
                size *= next(len(group) for group in self.groups[key] if flat[key] in group)
        return size


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _weight(value: Any) -> Any:
    """Orders the values of a field by the parameters they make, as far as that does not depend on others."""
    # Separable attention has fewer parameters than softmax attention, no fusion fewer than fusion.
    return value if is_number(value) else int(value not in ("separable", False))


def _lightest_first(key: str, values: tuple[Any, ...], is_knob: bool) -> tuple[Any, ...]:
    """A knob of words is taken as it is listed: what follows it decides whether that is its order."""
    if is_knob and not all(map(is_number, values)):
        return values
    # The images have no parameters, and their one fixed size may be a pair.
    return values if key == "image_size" and isinstance(values[0], tuple) else tuple(sorted(values, key=_weight))


def _groups(wiring: Wiring, ordered: Mapping[str, tuple[Any, ...]]) -> dict[str, tuple[tuple[Any, ...], ...]]:
    """Key -> its values, grouped by what conditions make of them."""
    followers: dict[str, list[tuple[Node, dict[Any, Any]]]] = {key: [] for key in ordered}
    for node in wiring.values():
        root, values = _followed(node, wiring)
        followers[root].append((node, values))
    tests = [test for node in wiring.values() for test in node.tests]
    if 0 in wiring["head_expansion"].domain:
        # Without the last convolution the classifier is wider than with a narrow one: 0 is not simply the lightest.
        tests.append(("head_expansion", frozenset({0})))
    found = {}
    for root, own in ordered.items():
        erratic = any(_is_erratic(node, values, own) for node, values in followers[root])
        looks = [(values, allowed) for node, values in followers[root] for key, allowed in tests if key == node.key]
        groups: dict[Any, list[Any]] = {}
        for value in own:
            outcome = tuple(values[value] in allowed for values, allowed in looks)
            groups.setdefault((value if erratic else None, outcome), []).append(value)
        found[root] = tuple(map(tuple, groups.values()))
    return found


def _root(node: Node, wiring: Wiring) -> str:
    """The free dimension at the end of a chain of ties."""
    while node.source is not None:
        node = wiring[node.source]
    return node.key


def _followed(node: Node, wiring: Wiring) -> tuple[str, dict[Any, Any]]:
    """The free dimension at the end of a chain of ties, and its values -> the values of `node` where active."""
    chain = [node]
    while (source := chain[-1].source) is not None:
        chain.append(wiring[source])
    values = {value: value for value in chain[-1].values}
    for link in reversed(chain[:-1]):
        values = {value: link.table[own] for value, own in values.items()}
    return chain[-1].key, values


def _is_erratic(node: Node, values: Mapping[Any, Any], own: tuple[Any, ...]) -> bool:
    """Whether a costly field does not simply rise with what it follows."""
    if node.source is None or node.key.rpartition(".")[2] not in _COSTLY:
        return False
    weights = [_weight(values[value]) for value in own]
    return weights != sorted(weights)
