"""Hard limits, checked from the op table before anything is built."""

from typing import NamedTuple

from mvit_search.architecture import MobileViTConfig
from mvit_search.errors import InputError
from mvit_search.profile.cost import params_of
from mvit_search.space import SearchSpace


class Limits(NamedTuple):
    """The most a candidate may cost; parameters are counted with `num_classes` classes."""

    params: int
    num_classes: int

    def excess(self, config: MobileViTConfig) -> dict[str, float]:
        """For each broken limit by which share of it the candidate is over; empty if it fits."""
        over = params_of(config, self.num_classes) / self.params - 1
        return {"params": over} if over > 0 else {}

    def check_reachable(self, space: SearchSpace) -> None:
        """Raises InputError, with the smallest reachable value, if nothing in `space` fits."""
        smallest = params_of(space.smallest(), self.num_classes)
        if smallest > self.params:
            rule = f"nothing in space {space.name} is that small"
            raise InputError("--budget", self.params, rule, f"the smallest reachable is {smallest:,} parameters")
