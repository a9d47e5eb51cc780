"""Which field follows what: free dimensions, ties and conditions, as tables ready to be looked up.

Everything a space can vary is finite, so a tie is a table from the values of what it follows to its own, and
a condition is a set of values. All of it is worked out, and checked, when the space is loaded.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

from mvit_search.architecture.rows import make_divisible
from mvit_search.errors import InputError
from mvit_search.space.schema import Choices, Range, SpaceSpec, Tie

Test = tuple[str, frozenset[Any]]
"""A field or knob, and the values with which a condition holds."""


class Node(NamedTuple):
    """A field or a knob.

    Attributes:
        key: its flat name: `width`, `stages.2.num_heads`.
        values: what it may be where it is active.
        source: what it follows; None for what is free, or fixed.
        table: value of the source -> own value.
        tests: its condition; all of them must hold. Empty: always active.
        otherwise: its value where the condition does not hold.
    """

    key: str
    values: tuple[Any, ...]
    source: str | None = None
    table: Mapping[Any, Any] = {}
    tests: tuple[Test, ...] = ()
    otherwise: Any = None

    @property
    def domain(self) -> tuple[Any, ...]:
        """Every value that it can have."""
        return self.values if not self.tests else tuple(dict.fromkeys((*self.values, self.otherwise)))

    @property
    def looks_at(self) -> tuple[str, ...]:
        """Keys that its value depends on, besides its own parameter."""
        return (*(key for key, _ in self.tests), *((self.source,) if self.source is not None else ()))

    def active(self, flat: Mapping[str, Any]) -> bool:
        """Whether its condition holds."""
        return all(flat[key] in allowed for key, allowed in self.tests)


Wiring = dict[str, Node]
"""Nodes by key, each after all that it looks at."""


def wire(spec: SpaceSpec) -> Wiring:
    """The nodes of a space.

    Raises:
        InputError: an unknown name, a circle, a table with holes, a condition that never holds; `field` is the path.
    """
    forms = forms_of(spec)
    knobs = tuple(spec.knobs or ())
    looks_at = {key: _references(key, form, forms, knobs) for key, form in forms.items()}
    try:
        order = tuple(TopologicalSorter({key: tuple(names.values()) for key, names in looks_at.items()}).static_order())
    except CycleError as error:
        circle = error.args[1]
        raise InputError(circle[-1], None, f"is tied in a circle: {' -> '.join(reversed(circle))}") from None
    nodes: Wiring = {}
    for key in order:
        nodes[key] = _node(key, forms[key], looks_at[key], nodes)
    _require_used(knobs, nodes)
    return nodes


def forms_of(spec: SpaceSpec) -> dict[str, Any]:
    """Knobs and fields by their flat names, in the order of the file's schema."""
    forms: dict[str, Any] = dict(spec.knobs or {})
    forms |= {name: getattr(spec, name) for name in ("image_size", "stem_channels", "head_expansion", "activation")}
    for index, stage in enumerate(spec.stages):
        for name in type(stage).model_fields:
            if name != "kind":
                forms[f"stages.{index}.{name}"] = getattr(stage, name)
    return forms


def _references(key: str, form: Any, forms: Mapping[str, Any], knobs: tuple[str, ...]) -> dict[str, str]:
    """Names as the file spells them -> keys."""
    if not isinstance(form, (Choices, Range, Tie)):
        return {}
    if key in knobs and form.when is not None:
        raise InputError(f"knobs.{key}.when", None, "a knob is free: it has no condition")
    fields = [name for name in forms if name not in knobs]
    siblings = {name.rpartition(".")[2]: name for name in fields if _stage(name) == _stage(key) != ""}
    # In this order for whoever misspelt one.
    anything = {**siblings, **{name: name for name in (*knobs, *fields) if name not in siblings}}
    found = {name: _look_up(f"{key}.when", "field or knob", name, anything) for name in form.when or {}}
    if isinstance(form, Tie) and form.knob is not None:
        found[form.knob] = _look_up(f"{key}.knob", "knob", form.knob, {name: name for name in knobs})
    elif isinstance(form, Tie) and form.field is not None:
        known = {**siblings, **{name: name for name in fields if name not in siblings}}
        found[form.field] = _look_up(f"{key}.field", "field", form.field, known)
    return found


def _stage(key: str) -> str:
    """`stages.2.num_heads` -> `stages.2`; a field of no stage -> ``."""
    return key.rpartition(".")[0]


def _look_up(path: str, kind: str, name: str, known: Mapping[str, str]) -> str:
    if name in known:
        return known[name]
    near = get_close_matches(name, known, n=1)
    some = ", ".join(list(known)[:12]) or "none"
    advice = f"did you mean {near[0]!r}?" if near else f"known: {some}"
    raise InputError(path, name, f"unknown {kind}", advice)


def _node(key: str, form: Any, names: Mapping[str, str], nodes: Wiring) -> Node:
    if not isinstance(form, (Choices, Range, Tie)):
        return Node(key, (form,))
    tests = tuple(_test(f"{key}.when", names[name], allowed, nodes) for name, allowed in (form.when or {}).items())
    if isinstance(form, Tie):
        source = nodes[names[form.knob if form.knob is not None else form.field or ""]]
        table = _table(key, form, source)
        return Node(key, tuple(dict.fromkeys(table.values())), source.key, table, tests, form.otherwise)
    return Node(key, form.values(), tests=tests, otherwise=form.otherwise)


def _test(path: str, key: str, allowed: tuple[Any, ...], nodes: Wiring) -> Test:
    domain = nodes[key].domain
    for value in allowed:
        if value not in domain:
            near = get_close_matches(str(value), [str(known) for known in domain], n=1)
            advice = f"did you mean {near[0]!r}?" if near else f"it has {_listed(domain)}"
            raise InputError(path, value, f"{key} never has that value", advice)
    return key, frozenset(allowed)


def _table(key: str, tie: Tie, source: Node) -> dict[Any, Any]:
    if tie.table is None:
        return {value: _formula(key, tie, value) for value in source.domain}
    for value in source.domain:
        if value not in tie.table:
            raise InputError(f"{key}.table", None, f"has no entry for the {source.key} {value!r}")
    for value in tie.table:
        if value not in source.domain:
            rule = f"{source.key} never has that value"
            raise InputError(f"{key}.table", value, rule, f"it has {_listed(source.domain)}")
    return dict(tie.table)


def _formula(key: str, tie: Tie, value: Any) -> Any:
    if not tie.has_formula:
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(key, value, "a formula follows numbers alone", "use a table")
    # Ten digits: 1.1 * 30 is 33, whatever binary fractions say.
    number = round(value * (1 if tie.times is None else tie.times) + (tie.plus or 0), 10)
    # Rounding to a divisor would make the divisor itself of it, which nobody meant.
    if number < 0 or (number == 0 and tie.divisor is not None):
        followed = f"{tie.knob if tie.knob is not None else tie.field} {value!r}"
        raise InputError(key, number, f"comes of {followed}: must be above zero before it is rounded to a divisor")
    if tie.divisor is not None:
        return make_divisible(number, tie.divisor)
    return int(number) if float(number).is_integer() else number


def _require_used(knobs: tuple[str, ...], nodes: Wiring) -> None:
    used = {name for node in nodes.values() for name in node.looks_at}
    for name in knobs:
        if name not in used:
            raise InputError(f"knobs.{name}", None, "nothing follows this knob", f"use it: {{knob: {name}}}")


def _listed(values: tuple[Any, ...]) -> str:
    shown = ", ".join(str(value) for value in values[:12])
    return shown if len(values) <= 12 else f"{shown}, ..."
