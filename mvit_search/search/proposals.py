"""Drawing candidates inside the limits without training or asking anybody."""

import math
import random
from collections.abc import Callable

from mvit_search.architecture import MobileViTConfig
from mvit_search.profile.cost import params_of
from mvit_search.search.descent import descend
from mvit_search.search.limits import Excess, Limits
from mvit_search.space import Params, SearchSpace

_UNIFORM_DRAWS, _PASSES = 150, 4
_BISECTIONS = 6
_ATTEMPTS = 5

Draw = Callable[[SearchSpace, Callable[[MobileViTConfig], bool], random.Random], Params]
"""Draws a candidate that fits."""


def draw_evenly(
    space: SearchSpace, limits: Limits, share: float, rng: random.Random,
    excess: Callable[[MobileViTConfig], Excess] | None = None, draw: Draw | None = None,
) -> Params:  # fmt: skip
    """A candidate with at most `share` (0..1) of the way from the smallest network to the budget.

    Uniform draws crowd where the space has most candidates, near the budget or above it. Shares spread
    evenly over 0..1 give draws spread over cost. Every other limit is kept too: if not one of several
    draws can be scaled down to that, the last is changed further, or else the smallest network; near the limits of what
    can be reached at all, many calls may so give the same candidate, or even one over a limit.

    Args:
        excess: what a candidate breaks; None takes `limits.excess`, which knows of no predicted latency.
        draw: how; None is `draw_fitting`.
    """
    broken = excess or limits.excess
    smallest = params_of(space.smallest(), limits.num_classes)
    cap = smallest + share * (limits.params - smallest)

    def fits(config: MobileViTConfig) -> bool:
        return params_of(config, limits.num_classes) <= cap and not broken(config)

    for _ in range(_ATTEMPTS):
        params = (draw or draw_fitting)(space, fits, rng)
        # What costs no parameters, such as the size of the images, is not scaled.
        if fits(space.config(params)):
            return params
    for start in (params, space.params(space.smallest())):
        params = descend(space, start, lambda config: math.fsum(broken(config).values()), enough=0.0)
        if not broken(space.config(params)):
            break
    return params


def draw_fitting(space: SearchSpace, fits: Callable[[MobileViTConfig], bool], rng: random.Random) -> Params:
    """A uniform draw that fits; where hardly any does, one whose dimensions were lowered at random until it fits.

    Lowering all dimensions together would be quicker, and leave networks that are narrow everywhere: searches that
    begin with such find less (docs/samplers.md). If nothing fits, the smallest network comes back.
    """
    for _ in range(_UNIFORM_DRAWS):
        params = space.draw(rng)
        if fits(space.config(params)):
            return params
    costly = list(space.costly)
    for _ in range(_PASSES):
        rng.shuffle(costly)
        for key in costly:
            below = space.lighter(params, key)
            if not below:
                continue
            if fits(space.config({**params, key: below[0]})):
                fitting = (value for value in reversed(below) if fits(space.config({**params, key: value})))
                return space.params(space.config({**params, key: next(fitting)}))
            params = {**params, key: rng.choice(below)}
    return space.scaled(params, 0.0)


def draw_scaled(space: SearchSpace, fits: Callable[[MobileViTConfig], bool], rng: random.Random) -> Params:
    """A uniform draw, scaled down in all dimensions together just as far as it must be to fit.

    Costs rise with every number of a config, so bisection finds the largest share that fits. If not even the
    smallest corner does, that is what comes back. The candidates of recorded tables were drawn so.
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
    space: SearchSpace, limits: Limits, seen: set[str], rng: random.Random, attempts: int = 200,
    excess: Callable[[MobileViTConfig], Excess] | None = None, draw: Draw | None = None,
) -> Params | None:  # fmt: skip
    """A candidate inside the limits whose digest is not in `seen`; None if none turned up. See `draw_evenly`."""
    broken = excess or limits.excess
    for _ in range(attempts):
        params = draw_evenly(space, limits, rng.random(), rng, broken, draw)
        config = space.config(params)
        if config.digest() not in seen and not broken(config):
            return params
    return None
