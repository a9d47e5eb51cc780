"""Reading a YAML or JSON file that anybody may have written: safely, quickly, and with the line of every mistake."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mvit_search.errors import InputError

# Far above any space or config, and far below what would keep the parser, or an editor of a bomb, busy.
_MOST_BYTES = 64 * 1024
_MOST_NODES = 20_000
_DEEPEST = 32
_LARGEST_INTEGER = 10**18
_LONGEST_INTEGER = 80
"""Characters of an integer that are worth converting: Python itself refuses thousands, with advice of its own."""
_BASE_60 = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+")
_MOST_SHOWN = 60
_LONGEST_TEXT = 400


class Document(NamedTuple):
    """What a file says, and where it says it.

    Attributes:
        name: the file's name, for messages.
        data: the document as plain values.
        root: the parsed tree, which knows the lines; None for an empty file, and for JSON that is no YAML.
    """

    name: str
    data: Any
    root: yaml.Node | None

    def line_of(self, field: str) -> int | None:
        """Line of a field such as `stages.2.num_heads`; of the nearest thing around it that the file has."""
        node, line = self.root, None if self.root is None else self.root.start_mark.line
        for part in field.split(".") if field else ():
            found = _child(node, part)
            if found is None:
                break
            line, node = found
        return None if line is None else line + 1

    def located(self, error: InputError, kind: str, field: str) -> InputError:
        """The same error about `field` of this file, as `space mine.yaml:14: stages.2.num_head: ...`."""
        line = self.line_of(field)
        where = f"{kind} {self.name}" if line is None else f"{kind} {self.name}:{line}"
        place = f"{where}: {_printable(field)}" if field else where
        shown = error.value if len(repr(error.value)) <= _MOST_SHOWN else f"{repr(error.value)[:_MOST_SHOWN]}..."
        return InputError(place, shown, _printable(error.rule), _printable(error.advice))


def read_document(path: Path, field: str) -> Document:
    """The file at `path`, JSON if its name says so, else YAML; `field` names what it is in an error.

    Raises:
        InputError: no such file, too large, or not valid YAML or JSON: with line and column.
    """
    text = _text(path, field)
    if path.suffix.lower() == ".json":
        return Document(path.name, _json_values(text, path, field), _json_lines(text))
    try:
        return _parse(text, path.name)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        problem = _printable(getattr(error, "problem", None) or str(error))
        raise InputError(field, where, f"is not valid YAML: {problem}") from None
    except RecursionError:
        raise InputError(field, str(path), "is nested too deeply") from None
    except ValueError as error:
        # A date, or a tagged number, that is none.
        raise InputError(field, str(path), f"is not valid YAML: {_printable(str(error))}") from None
    except (AttributeError, TypeError, KeyError, IndexError):
        # A tag on a value of another shape (`!!int [1]`, `!!float ""`): PyYAML runs into it unprepared.
        raise InputError(field, str(path), "is not valid YAML: a tag that does not suit its value") from None


def read_yaml(path: Path, field: str) -> Any:
    """The plain values of the YAML or JSON file at `path`.

    Raises:
        InputError: as `read_document`.
    """
    return read_document(path, field).data


def _text(path: Path, field: str) -> str:
    try:
        # Told before it is opened: a pipe would be waited for, a device read without end.
        if path.exists() and not path.is_file():
            raise InputError(field, str(path), "is a folder, not a file" if path.is_dir() else "is not a file")
        with path.open("rb") as stream:
            content = stream.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise InputError(field, str(path), f"is larger than {_MOST_BYTES // 1024} KiB")
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        raise InputError(field, str(path), "there is no such file") from None
    except OSError as error:
        raise InputError(field, str(path), f"cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise InputError(field, str(path), f"cannot be read ({error})") from None


def _json_values(text: str, path: Path, field: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_once, parse_int=_json_integer)
    except json.JSONDecodeError as error:
        where = f"{path}:{error.lineno}:{error.colno}"
        raise InputError(field, where, f"is not valid JSON: {_printable(error.msg)}") from None
    except ValueError as error:
        raise InputError(field, str(path), f"is not valid JSON: {_printable(str(error))}") from None
    except RecursionError:
        raise InputError(field, str(path), "is nested too deeply") from None


def _json_lines(text: str) -> yaml.Node | None:
    """JSON is YAML too, and then has lines; what little of it is none (tabs that indent) goes without."""
    try:
        return yaml.compose(text, _StrictLoader)
    except (yaml.YAMLError, RecursionError):
        return None


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, with a key that is given twice as an error instead of the last one winning."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} is given twice")
        found[key] = value
    return found


def _json_integer(text: str) -> int:
    if len(text) > _LONGEST_INTEGER or abs(int(text)) > _LARGEST_INTEGER:
        raise ValueError("an integer of more than 18 digits")
    return int(text)


def _parse(text: str, name: str) -> Document:
    loader = _StrictLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return Document(name, None, None)
        _expanded_size(root, {}, ())
        return Document(name, loader.construct_document(root), root)
    finally:
        loader.dispose()


def _expanded_size(node: yaml.Node, known: dict[int, int], around: tuple[int, ...]) -> int:
    """Nodes below and with `node`, an alias counting as often as it is used: a bomb is found before it goes off."""
    if id(node) in known:
        return known[id(node)]
    if id(node) in around:
        raise _problem("an alias stands inside of what it names", node)
    if len(around) > _DEEPEST:
        raise _problem("nested too deeply", node)
    inner = (*around, id(node))
    size = 1
    if isinstance(node, yaml.SequenceNode):
        size += sum(_expanded_size(child, known, inner) for child in node.value)
    elif isinstance(node, yaml.MappingNode):
        size += sum(_expanded_size(child, known, inner) for pair in node.value for child in pair)
    if size > _MOST_NODES:
        raise _problem(f"more than {_MOST_NODES} values", node)
    known[id(node)] = size
    return size


def _problem(text: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, text, node.start_mark)


class _StrictLoader(yaml.SafeLoader):
    """The safe loader, stricter by two rules.

    A key that is given twice is an error, instead of the last one winning. So are numbers that YAML 1.1, which PyYAML
    reads, takes for others than they look: 012 is 10 there, and 1:30 is 90. `1e9` is a number, as in YAML 1.2.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if key_node.tag == "tag:yaml.org,2002:merge" or not isinstance(key_node, yaml.ScalarNode):
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise _problem(f"the key {key!r} is given twice", key_node)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        text = str(node.value)
        if _LEADING_ZERO.fullmatch(text):
            plain = text.replace("_", "").lstrip("-+0") or "0"
            raise _problem(f"{_printable(text)} starts with a zero; write {plain}, or quote it", node)
        _refuse_base_60(node)
        number: int = super().construct_yaml_int(node) if len(text) <= _LONGEST_INTEGER else _LARGEST_INTEGER + 1
        if abs(number) > _LARGEST_INTEGER:
            raise _problem("an integer of more than 18 digits", node)
        return number

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        _refuse_base_60(node)
        number: float = super().construct_yaml_float(node)
        return number


def _refuse_base_60(node: yaml.ScalarNode) -> None:
    if _BASE_60.fullmatch(str(node.value)):
        raise _problem(f"{_printable(node.value)} is no plain number; write it in full, or quote it", node)


_StrictLoader.add_constructor("tag:yaml.org,2002:int", _StrictLoader.construct_yaml_int)
_StrictLoader.add_constructor("tag:yaml.org,2002:float", _StrictLoader.construct_yaml_float)
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?0[0-9]+$"), list("-+0"))
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def _child(node: yaml.Node | None, part: str) -> tuple[int, yaml.Node] | None:
    """(line, value) of a key of a mapping, or of a numbered item of a list."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value == part:
                return key.start_mark.line, value
    elif isinstance(node, yaml.SequenceNode) and part.isdecimal() and int(part) < len(node.value):
        child = node.value[int(part)]
        return child.start_mark.line, child
    return None


def _printable(text: str) -> str:
    """Cut to a length that can be read, without characters that a terminal would obey."""
    shown = "".join(char if char.isprintable() else " " for char in text)
    return shown if len(shown) <= _LONGEST_TEXT else f"{shown[:_LONGEST_TEXT]}..."
