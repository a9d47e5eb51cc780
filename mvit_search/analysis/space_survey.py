"""What a space holds, found by looking at draws of it: the spread of costs, and the share inside a budget."""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any, NamedTuple

from mvit_search.architecture import PRESETS, MobileViTConfig
from mvit_search.errors import InputError
from mvit_search.latency import Latency, Target
from mvit_search.profile import cost
from mvit_search.space import Params, SearchSpace

ATTEMPTS = 200
_MOST_LISTED = 20_000
"""Spaces of up to so many combinations are listed where draws find nothing new; a combination takes some 100 us."""
_EXTRAPOLATED = "extrapolated"
_Z_95 = 1.959963984540054


class Drawn(NamedTuple):
    """A candidate and what it costs."""

    assignment: Params
    config: MobileViTConfig
    params: int
    macs: int
    latency: Latency


class Spread(NamedTuple):
    """Smallest, middle and largest of a number over the draws."""

    low: float
    median: float
    high: float


class Share(NamedTuple):
    """How many of the draws are inside a budget.

    Attributes:
        inside, draws: counts.
        low, high: 95 % interval (Wilson, 1927) of the share.
    """

    inside: int
    draws: int
    low: float
    high: float

    @property
    def share(self) -> float:
        return self.inside / self.draws


class Survey(NamedTuple):
    """Draws of a space, each dimension uniform and independent, with their costs.

    Attributes:
        presets: the published networks inside the space, as published or else at its largest resolution.
    """

    space: SearchSpace
    target: Target
    num_classes: int
    draws: tuple[Drawn, ...]
    presets: tuple[tuple[str, Drawn], ...]

    def spread(self, name: str) -> Spread:
        """Of `params`, `macs` or `latency_ms`."""
        values = self.values(name)
        return Spread(min(values), median(values), max(values))

    def values(self, name: str) -> list[float]:
        """`params`, `macs` or `latency_ms` of every draw."""
        return [amount(drawn, name) for drawn in self.draws]

    def share_inside(self, budget: int) -> Share:
        """The share of draws with at most `budget` parameters."""
        inside = sum(drawn.params <= budget for drawn in self.draws)
        return Share(inside, len(self.draws), *wilson_interval(inside, len(self.draws)))

    @property
    def source_text(self) -> str:
        """One phrase on how the latencies are known."""
        beyond = {drawn.config.image_size for drawn in self.draws if _EXTRAPOLATED in drawn.latency.source}
        if len(beyond) < 3:
            return "; ".join(self.sources)
        first = next(source for source in self.sources if _EXTRAPOLATED in source)
        return f"{first}; likewise at {len(beyond) - 1} other image sizes"

    @property
    def sources(self) -> tuple[str, ...]:
        """How the latencies are known; several where the resolution varies."""
        return tuple(dict.fromkeys(drawn.latency.source for drawn in self.draws))


def survey(space: SearchSpace, target: Target, draws: int, seed: int = 0, num_classes: int = 1000) -> Survey:
    """Draw and cost `draws` candidates.

    Raises:
        InputError: the target measures, which would take a run of each network.
    """
    _require_predicting(target)
    rng = random.Random(seed)
    found = tuple(_drawn(space.draw(rng), space, target, num_classes) for _ in range(draws))
    presets = tuple((name, _costed({}, config, target, num_classes)) for name, config in presets_inside(space).items())
    return Survey(space, target, num_classes, found, presets)


def presets_inside(space: SearchSpace) -> dict[str, MobileViTConfig]:
    """The published networks that lie in `space`, as published or else at its largest resolution."""
    found = {}
    for name, config in PRESETS.items():
        if config in space:
            found[name] = config
        elif min(space.image_size_max) >= config.total_stride:
            sized = config.with_image_size(*space.image_size_max)
            found |= {name: sized} if sized in space else {}
    return found


def sample(
    space: SearchSpace, target: Target, count: int, seed: int = 0, budget: int | None = None, num_classes: int = 1000
) -> list[Drawn]:
    """`count` different candidates; all of them where a space that `is_listed` holds fewer.

    Of a larger space, fewer mean that `ATTEMPTS` draws one after the other found nothing new.

    With a `budget` (parameters) they spread evenly from the smallest candidate to it; without one they are uniform
    draws.

    Raises:
        InputError: nothing in the space is within the budget, or the target measures, as in `survey`.
    """
    _require_predicting(target)
    rng = random.Random(seed)
    seen: set[str] = set()
    propose = _new if budget is None else _proposals_within(space, budget, num_classes)
    found: list[Drawn] = []
    while len(found) < count:
        params = propose(space, seen, rng)
        if params is None:
            break
        drawn = _drawn(params, space, target, num_classes)
        seen.add(drawn.config.digest())
        found.append(drawn)
    if len(found) < count and is_listed(space):
        left = [_drawn(params, space, target, num_classes) for params in _listed(space, seen)]
        left = [drawn for drawn in left if budget is None or drawn.params <= budget]
        found += rng.sample(left, min(len(left), count - len(found)))
    return found


def is_listed(space: SearchSpace) -> bool:
    """Whether `sample` lists the space where draws find nothing new, so that it misses no candidate."""
    return space.box_size <= _MOST_LISTED


def amount(drawn: Drawn, name: str) -> float:
    """`params`, `macs` or `latency_ms` of a candidate."""
    return {"params": drawn.params, "macs": drawn.macs, "latency_ms": drawn.latency.ms}[name]


def wilson_interval(inside: int, draws: int) -> tuple[float, float]:
    """95 % interval of a share from `inside` hits in `draws`: unlike the plain one, sound at 0 and at 1 as well."""
    if draws == 0:
        return 0.0, 1.0
    share, z2 = inside / draws, _Z_95**2
    middle = (share + z2 / (2 * draws)) / (1 + z2 / draws)
    half = _Z_95 / (1 + z2 / draws) * math.sqrt(share * (1 - share) / draws + z2 / (4 * draws**2))
    return (max(0.0, middle - half) if inside else 0.0), (min(1.0, middle + half) if inside < draws else 1.0)


def telling_dimensions(found: Survey, most: int) -> list[str]:
    """The dimensions whose values go most with parameters or latency, by correlation of ranks; all if few.

    A dimension of words is taken by the order in which the space lists its values.
    """
    dimensions = found.space.dimensions
    if len(dimensions) <= most:
        return list(dimensions)
    costs = [_ranks(found.values(name)) for name in ("params", "latency_ms")]
    strength = {}
    for key, values in dimensions.items():
        places = _ranks([values.index(drawn.assignment[key]) for drawn in found.draws])
        strength[key] = max(abs(_correlation(places, ranks)) for ranks in costs)
    chosen = sorted(dimensions, key=lambda key: -strength[key])[:most]
    return [key for key in dimensions if key in chosen]


def _require_predicting(target: Target) -> None:
    if target.measured:
        rule = "measures, and a survey needs the latency of hundreds of networks"
        raise InputError("--target", target.name, rule, "give a target that predicts, such as iphone12")


def _proposals_within(
    space: SearchSpace, budget: int, num_classes: int
) -> Callable[[SearchSpace, set[str], random.Random], Params | None]:
    from mvit_search.search.limits import Limits  # Optuna comes with it.
    from mvit_search.search.proposals import draw_scaled, unseen

    limits = Limits(budget, num_classes)
    limits.check_reachable(space)
    return lambda space, seen, rng: unseen(space, limits, seen, rng, ATTEMPTS, draw=draw_scaled)


def _listed(space: SearchSpace, seen: set[str]) -> Iterator[Params]:
    """Every candidate that has not been seen, once; what it gives has been seen then."""
    for params in space.assignments():
        digest = space.config(params).digest()
        if digest not in seen:
            seen.add(digest)
            yield params


def _new(space: SearchSpace, seen: set[str], rng: random.Random) -> Params | None:
    """A uniform draw that has not been seen; None if none turned up."""
    for _ in range(ATTEMPTS):
        params = space.draw(rng)
        if space.config(params).digest() not in seen:
            return params
    return None


def _drawn(params: Params, space: SearchSpace, target: Target, num_classes: int) -> Drawn:
    return _costed(params, space.config(params), target, num_classes)


def _costed(params: dict[str, Any], config: MobileViTConfig, target: Target, num_classes: int) -> Drawn:
    costs = cost(config, num_classes)
    return Drawn(params, config, costs.params, costs.macs, target.latency(config, num_classes))


def _ranks(values: Sequence[float]) -> list[float]:
    """Ranks, equal values sharing their mean rank."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and values[order[end]] == values[order[start]]:
            end += 1
        for position in order[start:end]:
            ranks[position] = (start + end - 1) / 2
        start = end
    return ranks


def _correlation(a: list[float], b: list[float]) -> float:
    middle_a, middle_b = sum(a) / len(a), sum(b) / len(b)
    product = sum((x - middle_a) * (y - middle_b) for x, y in zip(a, b, strict=True))
    spread = sum((x - middle_a) ** 2 for x in a) * sum((y - middle_b) ** 2 for y in b)
    return product / math.sqrt(spread) if spread else 0.0
