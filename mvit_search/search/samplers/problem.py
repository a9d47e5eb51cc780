"""What a sampler is made for, and for which proposal: everything it may depend on beside the study."""

import random
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler


class Problem(NamedTuple):
    """What a run asks of its sampler.

    Attributes:
        distributions: parameter name -> what it may be; every trial has all of them.
        objectives: how many there are.
        trials: candidates that the run is to evaluate.
        population: size of a generation, where a sampler has any; where not, trials before it begins to learn.
        costs: of params, in the order of a trial's values after the first; None where they break a limit. None if
            only measuring shows them.
    """

    distributions: Mapping[str, BaseDistribution]
    objectives: int
    trials: int
    population: int
    costs: Callable[[Mapping[str, Any]], tuple[float, ...] | None] | None = None

    def varying(self) -> dict[str, BaseDistribution]:
        """The parameters with more than one value: those that a sampler can learn anything of.

        Optuna finds them by looking through all trials whenever a sampler is new, which takes longer than the proposal.
        """
        return {name: each for name, each in self.distributions.items() if not each.single()}


class Turn(NamedTuple):
    """Which proposal a sampler is made for.

    Attributes:
        seed: the run's.
        admitted: how many candidates were before it.
        attempt: proposals that were sampled away since the latest admitted one.
    """

    seed: int
    admitted: int
    attempt: int = 0

    def draw(self) -> int:
        """A seed of this proposal's own, below 2^31."""
        return random.Random(f"sampler {self.seed} {self.admitted} {self.attempt}").getrandbits(31)

    def lasting(self, purpose: str) -> int:
        """A seed for what must come out alike whichever proposal it is first worked out for, below 2^31."""
        return random.Random(f"sampler {self.seed} {purpose}").getrandbits(31)


class Member(NamedTuple):
    """A sampler of the table: how it is made for a proposal, and what refuses it for a run (raises InputError)."""

    make: Callable[[Turn, Problem], BaseSampler]
    check: Callable[[Problem], None] = lambda problem: None
