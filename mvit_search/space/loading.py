"""Finding and reading space files."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mvit_search._files import bundled
from mvit_search.architecture.config import known_fields, validation_input_error
from mvit_search.errors import InputError, UnknownNameError
from mvit_search.space.schema import Choices, ConvStageSpec, MobileViTStageSpec, Range, SpaceSpec
from mvit_search.space.space import SearchSpace


def space_names() -> tuple[str, ...]:
    """Names of the spaces that ship."""
    return tuple(sorted(path.stem for path in bundled("search_spaces").glob("*.yaml")))


def load_space(reference: str) -> SearchSpace:
    """The space of that name, or in that `.yaml` file.

    Raises:
        UnknownNameError: with the nearest name.
        InputError: for a file that cannot be read, or breaks the schema.
    """
    if reference.endswith((".yaml", ".yml")) or "/" in reference:
        return _read(Path(reference))
    if reference not in space_names():
        raise UnknownNameError("space", reference, space_names())
    return _read(bundled("search_spaces") / f"{reference}.yaml")


def read_yaml(path: Path, field: str) -> Any:
    """The document in a YAML (or JSON) file.

    Raises:
        InputError: naming file, line and column of a syntax error.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(field, str(path), "there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(field, str(path), f"cannot be read ({error})") from None
    try:
        return yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error)
        raise InputError(field, where, f"is not valid YAML: {problem}") from None
    except RecursionError:
        raise InputError(field, str(path), "is nested too deeply") from None
    except ValueError as error:
        # A date, or a tagged number, that is none.
        raise InputError(field, str(path), f"is not valid YAML: {error}") from None


def _read(path: Path) -> SearchSpace:
    data = read_yaml(path, "space")
    source = f"space {path.name}"
    if not isinstance(data, dict):
        raise InputError(source, None, "must be a mapping", "see search_spaces/mobilevit.yaml for one that works")
    try:
        spec = SpaceSpec.model_validate(data)
    except ValidationError as error:
        known = known_fields(SpaceSpec, ConvStageSpec, MobileViTStageSpec, Choices, Range)
        raise validation_input_error(error, source, known) from None
    return SearchSpace(path.stem, spec)


class _UniqueKeyLoader(yaml.SafeLoader):
    """The safe loader, with a key that is given twice as an error instead of the last one winning."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            if isinstance(key, str):
                seen.add(key)
        return super().construct_mapping(node, deep=deep)
