"""Where candidates come from: space files, and the identity params <-> config."""

from mvit_search.space.loading import load_space, space_names
from mvit_search.space.schema import Value
from mvit_search.space.space import Params, SearchSpace
from mvit_search.space.yaml_file import Document, read_document, read_yaml

__all__ = ["Document", "Params", "SearchSpace", "Value", "load_space", "read_document", "read_yaml", "space_names"]
