"""How GOOD a candidate is likely to be: a short, real training on real images, scored on held-out ones.

    recipe = default_recipe("digits")
    data = load_data("digits", image_size=recipe.image_size)
    result = train(config, data, recipe, seed=0)
    result.top1                                            # 0..1 on images that it never trained on

`train` loads torch when it is first asked for; `Recipe` and `ProxyResult` do not need it.
"""

from typing import TYPE_CHECKING, Any

from mvit_search.proxy.recipe import PAPER, Recipe, default_recipe, load_recipe, parse_recipe
from mvit_search.proxy.result import ProxyResult, Rung

if TYPE_CHECKING:
    from mvit_search.proxy.training import train

__all__ = ["PAPER", "ProxyResult", "Recipe", "Rung", "default_recipe", "load_recipe", "parse_recipe", "train"]


def __getattr__(name: str) -> Any:
    # A typo in a file name should not wait for torch to load, so `train` comes on demand (PEP 562).
    if name == "train":
        from mvit_search.proxy.training import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
