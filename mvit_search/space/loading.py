"""Finding and reading space files."""

from os.path import isfile
from pathlib import Path

from pydantic import ValidationError

from mvit_search._files import bundled
from mvit_search.architecture.config import validation_input_error
from mvit_search.errors import InputError, UnknownNameError
from mvit_search.space.schema import Choices, ConvStageSpec, MobileViTStageSpec, Range, SpaceSpec, Tie
from mvit_search.space.space import SearchSpace
from mvit_search.space.yaml_file import Document, read_document

_KIND = "space"
_SUFFIXES = (".yaml", ".yml", ".json")
_MODELS = (
    ("conv", ConvStageSpec),
    ("mobilevit", MobileViTStageSpec),
    ("choices", Choices),
    ("range", Range),
    ("tie", Tie),
)
_LEVELS = {f"<{tag}>": list(model.model_fields) for tag, model in _MODELS}


def space_names() -> tuple[str, ...]:
    """Names of the spaces that ship."""
    return tuple(sorted(path.stem for path in bundled("search_spaces").glob("*.yaml")))


def load_space(reference: str) -> SearchSpace:
    """The space of that name, or in that `.yaml`, `.yml` or `.json` file.

    Raises:
        UnknownNameError: with the nearest name.
        InputError: for a file that cannot be read, or breaks the schema: with file, line and field.
    """
    if "/" in reference or reference.lower().endswith(_SUFFIXES):
        return _read(Path(reference))
    if reference not in space_names():
        if isfile(reference):
            raise InputError(_KIND, reference, "must end in .yaml, .yml or .json", "rename the file")
        raise UnknownNameError("space", reference, space_names())
    return _read(bundled("search_spaces") / f"{reference}.yaml")


def _read(path: Path) -> SearchSpace:
    document = read_document(path, _KIND)
    if not isinstance(document.data, dict):
        rule = "must be a mapping"
        error = InputError(_KIND, None, rule, "see search_spaces/mobilevit.yaml for one that works")
        raise document.located(error, _KIND, "")
    spec = _validated(document)
    try:
        return SearchSpace(path.stem, spec)
    except InputError as error:
        raise document.located(error, _KIND, error.field) from None


def _validated(document: Document) -> SpaceSpec:
    try:
        return SpaceSpec.model_validate(document.data)
    except ValidationError as error:
        problem = validation_input_error(error, _KIND, list(SpaceSpec.model_fields), _LEVELS)
        field = problem.field.removeprefix(_KIND).removeprefix(": ")
        raise document.located(problem, _KIND, field) from None
