"""Coordinate descent over a space's dimensions: what costs least, where no formula says so."""

import math
from collections.abc import Callable

from mvit_search.architecture import MobileViTConfig
from mvit_search.space import Params, SearchSpace


def descend(
    space: SearchSpace, start: Params, measure: Callable[[MobileViTConfig], float], enough: float = -math.inf
) -> Params:
    """Every dimension in turn to the value that measures least, until none changes anything.

    A local minimum: dimensions that lower the measure only together are not found. Ends early at `enough` or below.
    """
    params, least = start, measure(space.config(start))
    improved = True
    while improved:
        improved = False
        for key, values in space.dimensions.items():
            for value in values:
                if least <= enough:
                    return params
                changed = {**params, key: value}
                found = measure(space.config(changed))
                if found < least:
                    params, least, improved = changed, found, True
    return params
