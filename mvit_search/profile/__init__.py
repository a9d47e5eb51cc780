"""What a candidate costs, from the operator table alone; `verify` cross-checks with fvcore and loads torch."""

from mvit_search.profile.cost import Cost, cost
from mvit_search.profile.layers import LayerRow, layer_rows
from mvit_search.profile.memory import peak_activation_bytes

__all__ = ["Cost", "LayerRow", "cost", "layer_rows", "peak_activation_bytes"]
