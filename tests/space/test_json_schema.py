"""The schema for editors: up to date, and true to what loads. Checked with the few keywords that it uses."""

import json
import re

import pytest
import yaml

from mvit_search._files import bundled
from mvit_search.space import space_names
from mvit_search.space.json_schema import space_schema, space_schema_json

FOLDER = bundled("search_spaces")
SCHEMA = space_schema()
TYPES = {
    "object": dict, "array": list, "string": str, "boolean": bool, "number": (int, float), "integer": int,
    "null": type(None),
}  # fmt: skip
NOTES = {"title", "description", "default", "$schema", "$defs"}


def fits(value, schema) -> bool:
    """Whether `value` is valid; an unknown keyword fails, so that none goes unchecked."""
    if "$ref" in schema:
        return fits(value, SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]])
    if "type" in schema and not _holds("type", schema["type"], value, schema):
        return False
    return all(_holds(keyword, wanted, value, schema) for keyword, wanted in schema.items() if keyword not in NOTES)


def _holds(keyword, wanted, value, schema) -> bool:
    match keyword:
        case "type":
            names = [wanted] if isinstance(wanted, str) else wanted
            return any(
                isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool)) for name in names
            )
        case "anyOf":
            return any(fits(value, one) for one in wanted)
        case "oneOf":
            return sum(fits(value, one) for one in wanted) == 1
        case "const":
            return value == wanted
        case "enum":
            return value in wanted
        case "minimum":
            return value >= wanted
        case "maximum":
            return value <= wanted
        case "exclusiveMinimum":
            return value > wanted
        case "minItems" | "minProperties" | "minLength":
            return len(value) >= wanted
        case "maxItems" | "maxProperties" | "maxLength":
            return len(value) <= wanted
        case "prefixItems":
            return all(fits(item, one) for item, one in zip(value, wanted, strict=False))
        case "items":
            return all(fits(item, wanted) for item in value)
        case "required":
            return set(wanted) <= value.keys()
        case "properties":
            return all(fits(value[name], one) for name, one in wanted.items() if name in value)
        case "additionalProperties":
            others = [value[name] for name in value if name not in schema.get("properties", {})]
            return not others if wanted is False else all(fits(other, wanted) for other in others)
    raise AssertionError(f"the schema uses {keyword}, which this test does not know")


def test_the_file_is_what_the_model_makes():
    """Write it anew with `mvit-search space schema > search_spaces/space.schema.json`."""
    assert (FOLDER / "space.schema.json").read_text() == space_schema_json()


@pytest.mark.parametrize("name", space_names())
def test_every_space_that_ships_fits_and_names_its_schema(name):
    text = (FOLDER / f"{name}.yaml").read_text()
    assert text.startswith("# yaml-language-server: $schema=./space.schema.json\n# ")
    assert fits(yaml.safe_load(text), SCHEMA)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("num_heads: {choices", "num_head: {choices"),
        ("stem_channels: 16\n", ""),
        ("activation: silu", "activation: gelu"),
        ("kind: conv", "kind: convolution"),
        ("stride: 2", "stride: 3"),
        ("image_size: [64, 64]", "image_size: [64, 8]"),
        ("{choices: [2, 4]}", "{choices: []}"),
        ("{choices: [2, 4]}", "{choice: [2, 4]}"),
        ("{choices: [2, 4]}", "{low: 2}"),
        ("{choices: [2, 4]}", "two"),
    ],
)
def test_an_editor_underlines_what_does_not_load(old, new):
    text = (FOLDER / "mobilevit-mini.yaml").read_text()
    assert old in text
    assert not fits(yaml.safe_load(text.replace(old, new, 1)), SCHEMA)


def test_every_field_is_explained():
    for place in (SCHEMA, *(SCHEMA["$defs"][name] for name in SCHEMA["$defs"])):
        for name, field in place["properties"].items():
            assert name == "kind" or re.search(r"\w{3}", field["description"]), name


def test_the_schema_is_plain_json():
    assert json.loads(space_schema_json()) == SCHEMA
