"""What a network is worth BEFORE any training: zero-cost scores, one file each behind one interface.

    score("synflow", config, data, seed=0).value           # larger is better; not an accuracy, and of no unit

Names and what they say are here without torch; `score` loads torch when it is first asked for. A new score is one
file, a line in `NAMES` and one in the table of `scoring.py`; tests hold it to the interface.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

from mvit_search.errors import UnknownNameError

if TYPE_CHECKING:
    from mvit_search.proxy.zero_cost.scoring import score

__all__ = ["NAMES", "ZeroCostScore", "check_name", "score"]

NAMES: dict[str, str] = {
    "params": "number of parameters",
    "macs": "multiply-adds of one image",
    "synflow": "logarithm of the flow through all paths of absolute weights",
    "jacob_cov": "how little the images' input gradients resemble each other",
    "naswot": "how differently the images switch the activations on and off",
    "snip": "what the loss would change if weights were cut",
    "grad_norm": "gradient norms, summed over layers",
    "zen": "how strongly the features answer a small change of a random image",
    "zico": "how steady the gradients are from batch to batch",
}
"""Every score by its name, with what it says in a few words."""


class ZeroCostScore(NamedTuple):
    """`value`: larger is better, finite; `seconds`: wall-clock time that it took, building the network included."""

    value: float
    seconds: float


def check_name(name: str) -> None:
    """Raises UnknownNameError, with the nearest name, for an unknown score."""
    if name not in NAMES:
        raise UnknownNameError("zero-cost score", name, NAMES)


def __getattr__(name: str) -> Any:
    # As `proxy.train`: a mistyped name should not wait for torch to load (PEP 562).
    if name == "score":
        from mvit_search.proxy.zero_cost.scoring import score

        return score
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
