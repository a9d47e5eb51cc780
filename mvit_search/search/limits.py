"""Hard limits, checked from the op table before anything is built, or from what was measured and trained."""

import math
import random
from collections.abc import Callable
from typing import NamedTuple

from mvit_search._quantities import format_bytes
from mvit_search.architecture import MobileViTConfig
from mvit_search.errors import InputError
from mvit_search.latency import Target
from mvit_search.profile.cost import cost, params_of
from mvit_search.search.descent import descend
from mvit_search.space import Params, SearchSpace

Excess = dict[str, float]
"""Broken limits by name, each with the share (> 0) of the limit by which it is broken."""


class Limits(NamedTuple):
    """The most a candidate may cost, and the least it must reach; None where there is no such limit.

    Attributes:
        params: counted with `num_classes` classes, as all costs are.
        peak_activation_bytes, weight_bytes: of a network of 16 bit.
        latency_ms: of one image on the run's target.
        min_top1: 0..1, at the full fidelity.
    """

    params: int
    num_classes: int
    macs: int | None = None
    peak_activation_bytes: int | None = None
    weight_bytes: int | None = None
    latency_ms: float | None = None
    min_top1: float | None = None

    def excess(self, config: MobileViTConfig, latency_ms: float | None = None) -> Excess:
        """What the candidate breaks, as far as that is known before it is built; empty if it fits.

        `latency_ms`: where the target predicts. It takes some 0.1 ms, half of that where only parameters are limited.
        """
        if self.macs is None and self.weight_bytes is None and self.peak_activation_bytes is None:
            over = {"params": params_of(config, self.num_classes) / self.params - 1}
        else:
            costs = cost(config, self.num_classes)
            over = {"params": costs.params / self.params - 1}
            if self.macs is not None:
                over["macs"] = costs.macs / self.macs - 1
            if self.weight_bytes is not None:
                over["weight_bytes"] = costs.weight_bytes / self.weight_bytes - 1
            if self.peak_activation_bytes is not None:
                over["peak_activation_bytes"] = costs.peak_activation_bytes / self.peak_activation_bytes - 1
        return {key: share for key, share in over.items() if share > 0} | self.excess_after(None, latency_ms)

    def excess_after(self, value: float | None, latency_ms: float | None) -> Excess:
        """What only measuring or training shows: a latency over its limit, a top-1 below the least."""
        over: Excess = {}
        if self.latency_ms is not None and latency_ms is not None and latency_ms > self.latency_ms:
            over["latency_ms"] = latency_ms / self.latency_ms - 1
        if self.min_top1 is not None and value is not None and value < self.min_top1:
            over["top1"] = 1 - value / self.min_top1
        return over

    def check_reachable(self, space: SearchSpace, target: Target | None = None) -> None:
        """See whether anything in `space` fits; `target`, where it predicts, is asked for latencies.

        The smallest network of a space mostly costs least in everything, and then this is one look. Else candidates
        that cost less are looked for, one dimension at a time; that may miss some in a space of strange conditions.

        Raises:
            InputError: naming the tightest limit, with the smallest reachable value.
        """
        reach = _Reach(self, space, target if self.latency_ms is not None else None)
        broken = reach.excess(space.smallest())
        if not broken:
            return
        smallest = space.params(space.smallest())
        least = {key: reach.least(key, smallest) for key in broken}
        beyond = {key: amount / reach.limits[key] for key, amount in least.items() if amount > reach.limits[key]}
        if beyond:
            key = max(beyond, key=beyond.__getitem__)
            kind = _KINDS[key]
            rule = f"nothing in space {space.name} is that {kind.adjective}"
            raise InputError(
                kind.option, reach.limits[key], rule, f"the smallest reachable is {kind.words(least[key])}"
            )
        together = reach.nearest(smallest)
        if together is not None:
            key, amount = together
            others = " and ".join(_KINDS[other].option for other in reach.limits if other != key)
            rule = f"nothing was found in space {space.name} that keeps it within {others} as well"
            raise InputError(
                _KINDS[key].option, reach.limits[key], rule, f"the nearest has {_KINDS[key].words(amount)}"
            )


class _Kind(NamedTuple):
    option: str
    adjective: str
    words: Callable[[float], str]


def _bytes(number: float) -> str:
    return f"{format_bytes(number)} ({number:,.0f} bytes)"


_KINDS = {
    "params": _Kind("--budget", "small", lambda number: f"{number:,.0f} parameters"),
    "macs": _Kind("--max-macs", "small", lambda number: f"{number:,.0f} MACs"),
    "weight_bytes": _Kind("--max-weights", "small", _bytes),
    "peak_activation_bytes": _Kind("--max-memory", "small", _bytes),
    # Rounded up, so that the figure can be given as the limit.
    "latency_ms": _Kind("--max-latency", "fast", lambda ms: f"{math.ceil(1000 * ms) / 1000:.3f} ms (predicted)"),
}
_STARTS = 8


class _Reach:
    """Looks for what costs least in a space."""

    def __init__(self, limits: Limits, space: SearchSpace, target: Target | None) -> None:
        self._space, self._target, self._num_classes = space, target, limits.num_classes
        known = _KINDS if target is not None else _KINDS.keys() - {"latency_ms"}
        given: dict[str, float | None] = limits._asdict()
        self.limits = {key: most for key, most in given.items() if key in known and most is not None}

    def excess(self, config: MobileViTConfig) -> Excess:
        """As `Limits.excess`."""
        amounts = self._amounts(config)
        return {key: amounts[key] / most - 1 for key, most in self.limits.items() if amounts[key] > most}

    def least(self, key: str, start: Params) -> float:
        """The smallest amount found of that cost, whatever the others."""
        found = descend(self._space, start, lambda config: self._amounts(config)[key])
        return self._amounts(self._space.config(found))[key]

    def nearest(self, start: Params) -> tuple[str, float] | None:
        """The limit that what comes nearest to all of them breaks most, with its amount; None if all can be kept."""
        rng = random.Random(0)
        starts = [start, *(self._space.scaled(self._space.draw(rng), 0.0) for _ in range(_STARTS))]
        found = [self._space.config(descend(self._space, one, self._total, enough=0.0)) for one in starts]
        best = min(found, key=self._total)
        broken = self.excess(best)
        if not broken:
            return None
        key = max(broken, key=broken.__getitem__)
        return key, self._amounts(best)[key]

    def _total(self, config: MobileViTConfig) -> float:
        return math.fsum(self.excess(config).values())

    def _amounts(self, config: MobileViTConfig) -> dict[str, float]:
        costs = cost(config, self._num_classes)
        latency = {"latency_ms": self._target.latency(config, self._num_classes).ms} if self._target else {}
        return {
            "params": costs.params, "macs": costs.macs, "weight_bytes": costs.weight_bytes,
            "peak_activation_bytes": costs.peak_activation_bytes, **latency,
        }  # fmt: skip
