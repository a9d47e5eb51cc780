"""Where candidates come from: space files, and the identity params <-> config."""

from mvit_search.space.loading import load_space, read_yaml, space_names
from mvit_search.space.space import Params, SearchSpace

__all__ = ["Params", "SearchSpace", "load_space", "read_yaml", "space_names"]
