"""Who is trained: the presets, and candidates spread evenly over parameters and latency inside a budget."""

import math
import random
from dataclasses import dataclass

from mvit_search.architecture import PRESETS, MobileViTConfig
from mvit_search.errors import InputError
from mvit_search.latency import Target
from mvit_search.profile import cost
from mvit_search.search.limits import Limits
from mvit_search.search.proposals import draw_evenly, draw_scaled
from mvit_search.space import SearchSpace

_POOL = 4000
_WINDOW = 0.04
"""Share of the pool, nearest in parameters, within which a latency is chosen."""
_PRESETS = ("mobilevit-xxs", "mobilevit-xs", "mobilevit-s")


@dataclass(frozen=True)
class Candidate:
    """A network and what it costs; `name` is a preset's, or empty. Parameters and MACs with 1000 classes."""

    name: str
    config: MobileViTConfig
    params: int
    macs: int
    latency_ms: float


def choose_candidates(
    space: SearchSpace, target: Target, budget: int, count: int, *, smallest: int = 0, seed: int = 0
) -> tuple[Candidate, ...]:
    """Presets inside the budget, then drawn candidates; a larger `count` adds to those of a smaller one.

    The k-th drawn candidate is the one of a large pool that lies nearest to the k-th point of a two-dimensional
    low-discrepancy sequence (R2: Roberts 2018, the plastic number) over log parameters and, among those of about
    that size, over the rank of the predicted latency. So any number of them covers sizes and, within every size, fast
    and slow networks evenly, where uniform draws would crowd near the budget.

    Args:
        smallest: fewest parameters of a drawn candidate.

    Raises:
        InputError: no candidate lies inside the band.
    """
    largest = space.image_size_max
    presets = [
        _candidate(name, PRESETS[name].with_image_size(*largest), target)
        for name in _PRESETS
        if PRESETS[name].total_stride <= min(largest)
    ]
    chosen = [candidate for candidate in presets if candidate.params <= budget][:count]
    if count <= len(chosen):
        return tuple(chosen)
    pool = _pool(space, target, budget, smallest, seed)
    pool = [candidate for candidate in pool if candidate.config not in {c.config for c in chosen}]
    if not pool:
        rule = f"space {space.name} has no candidate of {smallest:,} to {budget:,} parameters"
        raise InputError("--budget", budget, rule, "ask for another --budget or --smallest")
    index = 0
    while len(chosen) < count and pool:
        index += 1
        picked = _nearest(pool, *_point(index))
        pool.remove(picked)
        chosen.append(picked)
    return tuple(chosen)


def _pool(space: SearchSpace, target: Target, budget: int, smallest: int, seed: int) -> list[Candidate]:
    """Distinct candidates of the band, by rising parameters."""
    rng = random.Random(f"ranking candidates {seed}")
    limits = Limits(budget, 1000)
    found: dict[str, Candidate] = {}
    for index in range(_POOL):
        share = (index + rng.random()) / _POOL
        config = space.config(draw_evenly(space, limits, share, rng, draw=draw_scaled))
        if config.digest() not in found:
            candidate = _candidate("", config, target)
            if smallest <= candidate.params <= budget:
                found[config.digest()] = candidate
    return sorted(found.values(), key=lambda candidate: (candidate.params, candidate.latency_ms))


def _candidate(name: str, config: MobileViTConfig, target: Target) -> Candidate:
    costs = cost(config)
    return Candidate(name, config, costs.params, costs.macs, target.latency(config).ms)


def _point(index: int) -> tuple[float, float]:
    """The R2 sequence: each of its beginnings covers the unit square evenly."""
    plastic = 1.32471795724474602596
    return (0.5 + index / plastic) % 1, (0.5 + index / plastic**2) % 1


def _nearest(pool: list[Candidate], size: float, speed: float) -> Candidate:
    """The candidate at those shares (0..1) of the log parameters and, among its like, of the latency ranks."""
    low, high = math.log(pool[0].params), math.log(pool[-1].params)
    wanted = low + size * (high - low)
    width = max(1, round(_WINDOW * len(pool)))
    alike = sorted(pool, key=lambda candidate: abs(math.log(candidate.params) - wanted))[:width]
    alike.sort(key=lambda candidate: candidate.latency_ms)
    return alike[min(len(alike) - 1, int(speed * len(alike)))]
