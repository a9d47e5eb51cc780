"""Drawing candidates inside the limits without training or asking anybody."""

import random
from collections.abc import Callable

from mvit_search.architecture import MobileViTConfig
from mvit_search.profile.cost import params_of
from mvit_search.search.limits import Limits
from mvit_search.space import Params, SearchSpace

_BISECTIONS = 6


def draw_evenly(space: SearchSpace, limits: Limits, share: float, rng: random.Random) -> Params:
    """A candidate with at most `share` (0..1) of the way from the smallest network to the budget.

    Uniform draws crowd where the space has most candidates, near the budget or above it. Shares spread
    evenly over 0..1 give a first generation spread over cost.
    """
    smallest = params_of(space.smallest(), limits.num_classes)
    cap = smallest + share * (limits.params - smallest)
    return draw_fitting(space, lambda config: params_of(config, limits.num_classes) <= cap, rng)


def draw_fitting(space: SearchSpace, fits: Callable[[MobileViTConfig], bool], rng: random.Random) -> Params:
    """A uniform draw, scaled down just as far as it must be to fit.

    Costs rise with every number of a config, so bisection finds the largest share that fits. If not even the
    smallest corner does, that is what comes back.
    """
    params = space.draw(rng)
    if fits(space.config(params)):
        return params
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if fits(space.config(space.scaled(params, middle))):
            low = middle
        else:
            high = middle
    return space.scaled(params, low)


def unseen(
    space: SearchSpace, limits: Limits, seen: set[str], rng: random.Random, attempts: int = 200
) -> Params | None:
    """A candidate inside the limits whose digest is not in `seen`; None if none turned up."""
    for _ in range(attempts):
        params = draw_evenly(space, limits, rng.random(), rng)
        config = space.config(params)
        if config.digest() not in seen and not limits.excess(config):
            return params
    return None
