"""Which candidates of a space to measure: draws of it and its presets as a pool, and a D-optimal design of the pool."""

from typing import NamedTuple

from mvit_search.analysis.space_survey import presets_inside, sample
from mvit_search.architecture import MobileViTConfig
from mvit_search.architecture.ops import parts
from mvit_search.errors import InputError
from mvit_search.latency import PredictedTarget, Target
from mvit_search.latency.calibrating.manifest import Planned
from mvit_search.latency.calibrating.planning import Design, d_optimal
from mvit_search.latency.features import features
from mvit_search.profile.cost import params_of
from mvit_search.space import SearchSpace

POOL = 2000
_DIGEST_LETTERS = 10


class Choice(NamedTuple):
    """The chosen networks, the most informative first, out of so many, and what they tell."""

    planned: tuple[Planned, ...]
    pool: int
    design: Design


def choose(
    space: SearchSpace, target: Target, count: int, *, budget: int | None = None, seed: int = 0,
    num_classes: int = 1000, pool: int = POOL,
) -> Choice:  # fmt: skip
    """Choose `count` networks to measure; all there are, where the space holds fewer inside the budget.

    The pool is `pool` different candidates, spread evenly over the budget if there is one, and the presets inside.

    Raises:
        InputError: the target does not predict, or nothing is within the budget.
    """
    if not isinstance(target, PredictedTarget):
        rule = "measures, so there is nothing to improve by a plan"
        raise InputError("--target", target.name, rule, "name a target that predicts, such as iphone12")
    named = _pool(space, target, max(pool, count), budget, seed, num_classes)
    configs = list(named)
    design = d_optimal([features(parts(config, num_classes)) for config in configs], target.file, count)
    planned = tuple(
        Planned(
            name=named[configs[place]], config=configs[place], predicted_ms=_ms(target, configs[place], num_classes)
        )
        for place in design.chosen
    )
    return Choice(planned, len(configs), design)


def _pool(
    space: SearchSpace, target: PredictedTarget, size: int, budget: int | None, seed: int, num_classes: int
) -> dict[MobileViTConfig, str]:
    """Config -> name, presets first."""
    presets = {
        config: name
        for name, config in presets_inside(space).items()
        if budget is None or params_of(config, num_classes) <= budget
    }
    drawn = [one.config for one in sample(space, target, size, seed, budget, num_classes)]
    return presets | {
        config: f"candidate-{config.digest()[:_DIGEST_LETTERS]}" for config in drawn if config not in presets
    }


def _ms(target: PredictedTarget, config: MobileViTConfig, num_classes: int) -> float:
    return target.latency(config, num_classes).ms
