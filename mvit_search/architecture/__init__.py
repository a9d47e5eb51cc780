"""What a candidate is: its description, its operator table and its network.

`MobileViT` and the state-dict maps live in `network` and `weights`, which load torch; the names here do not.
"""

from mvit_search.architecture.config import ConvStage, MobileViTConfig, MobileViTStage, parse_config
from mvit_search.architecture.ops import operators
from mvit_search.architecture.presets import PRESETS, preset
from mvit_search.architecture.rows import Op

__all__ = [
    "PRESETS", "ConvStage", "MobileViTConfig", "MobileViTStage", "Op", "operators", "parse_config", "preset",
]  # fmt: skip
