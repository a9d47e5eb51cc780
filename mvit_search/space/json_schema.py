"""The JSON Schema of space files, for editors: generated from the model, never written by hand."""

import json
from typing import Any

from mvit_search.architecture import MobileViTConfig
from mvit_search.space.schema import SpaceSpec

_SPEC_OF = {"ConvStageSpec": "ConvStage", "MobileViTStageSpec": "MobileViTStage"}
_KEYWORDS = {"ge": "minimum", "le": "maximum"}


def space_schema() -> dict[str, Any]:
    """The schema as plain values. What a bare value may be comes from the fields of the network's own description."""
    schema = SpaceSpec.model_json_schema()
    network = MobileViTConfig.model_json_schema()
    _say_bare(schema["properties"], network["properties"])
    for spec, stage in _SPEC_OF.items():
        _say_bare(schema["$defs"][spec]["properties"], network["$defs"][stage]["properties"])
    # The model asks for it only where attention is softmax; an editor is not told of the exception.
    schema["$defs"]["MobileViTStageSpec"]["required"].remove("num_heads")
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {**head, **_standard(schema), "title": "mvit-search search space"}


def space_schema_json() -> str:
    """The text of `search_spaces/space.schema.json`."""
    return json.dumps(space_schema(), indent=2) + "\n"


def _say_bare(properties: dict[str, Any], network: dict[str, Any]) -> None:
    for name, schema in properties.items():
        if name in network and {"$comment": "bare"} in schema.get("anyOf", ()):
            field = network[name]
            bare = field["prefixItems"][0] if "prefixItems" in field else field
            schema["anyOf"][0] = {key: value for key, value in bare.items() if key not in ("title", "default")}


def _standard(node: Any) -> Any:
    """The same schema with the standard's words for bounds: pydantic leaves its own behind some validators."""
    if isinstance(node, dict):
        return {_KEYWORDS.get(key, key): _standard(value) for key, value in node.items()}
    return [_standard(item) for item in node] if isinstance(node, list) else node
