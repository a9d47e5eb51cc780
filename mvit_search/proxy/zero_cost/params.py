"""`params`: the number of parameters, from the operator table. The baseline that every other score has to beat."""

from mvit_search.architecture import MobileViTConfig
from mvit_search.profile.cost import params_of


def params(config: MobileViTConfig, num_classes: int) -> float:
    return float(params_of(config, num_classes))
