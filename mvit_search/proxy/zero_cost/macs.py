"""`macs`: multiply-adds of one image at the candidate's own resolution, from the operator table. The other baseline."""

from mvit_search.architecture import MobileViTConfig
from mvit_search.profile import cost


def macs(config: MobileViTConfig, num_classes: int) -> float:
    return float(cost(config, num_classes).macs)
