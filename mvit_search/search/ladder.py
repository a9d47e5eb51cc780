"""The fidelities of a run: one full training, or rungs of successive halving, each a complete short training.

A rung is trained as a schedule of its own, annealed to its end, from the weights that the rung below left: what was
scored at a rung is then a finished network, and nothing of its training is thrown away. Rungs of one long schedule
would be scored at a high learning rate; on photographs they rank worse, on digits alike (docs/proxies.md).
"""

import itertools
import re
from typing import NamedTuple, Self

from mvit_search.errors import InputError
from mvit_search.proxy import Recipe

DEFAULT_ETA = 3
MOST_RUNGS = 6


class Rung(NamedTuple):
    """One fidelity.

    Attributes:
        epochs: trained in all when this rung is reached, those of the rungs below included.
        image_size: side in pixels; None takes the recipe's.
        fraction: of the training images, above 0 and at most 1.
    """

    epochs: int
    image_size: int | None = None
    fraction: float = 1.0

    def __str__(self) -> str:
        side = f"@{self.image_size}" if self.image_size is not None else ""
        share = f":{self.fraction:g}" if self.fraction != 1 else ""
        return f"{self.epochs}{side}{share}"


class Ladder(NamedTuple):
    """Rungs from the cheapest to the full fidelity; of every `eta` candidates at a rung one goes on to the next.

    A run without halving has one rung.
    """

    rungs: tuple[Rung, ...]
    eta: int = DEFAULT_ETA

    @property
    def top(self) -> int:
        """Index of the full fidelity."""
        return len(self.rungs) - 1

    def epochs_of(self, rung: int) -> int:
        """Epochs of this rung's own training, those of the rungs below left out."""
        return self.rungs[rung].epochs - (self.rungs[rung - 1].epochs if rung else 0)

    def recipe_of(self, rung: int, recipe: Recipe) -> Recipe:
        """The recipe of this rung's own training.

        Raises:
            InputError: the recipe does not allow so few epochs, or that side.
        """
        side = self.rungs[rung].image_size
        return recipe.changed(epochs=self.epochs_of(rung), image_size=side or recipe.image_size)

    def key(self, rung: int) -> str:
        """The fidelity in words, the same wherever the same is trained: `1,3,9@32`."""
        return ",".join(map(str, self.rungs[: rung + 1]))

    @classmethod
    def full(cls, recipe: Recipe) -> Self:
        """One rung: the whole recipe."""
        return cls((Rung(recipe.epochs),))

    @classmethod
    def halving(cls, recipe: Recipe, eta: int) -> Self:
        """Rungs at E, E/eta, E/eta^2, ... epochs of a recipe of E, four at most.

        Raises:
            InputError: a recipe of one epoch.
        """
        if recipe.epochs < 2:
            rule = "is too short to be divided into rungs"
            raise InputError("epochs", recipe.epochs, rule, "give --epochs 2 or more, --rungs, or --fidelity full")
        epochs = sorted({max(1, round(recipe.epochs / eta**k)) for k in range(4)})
        return cls(tuple(map(Rung, epochs)), eta)


def parse_rungs(text: str, eta: int) -> Ladder:
    """`1,3,9`, or with side and share of the images: `1@16:0.5,3@24,9`.

    Raises:
        InputError: not so written, fewer than two rungs, epochs that do not rise, or a share outside 0..1.
    """
    form = "must be EPOCHS[@SIDE][:FRACTION], two to six of them with commas between"
    rungs = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,6})(?:@(\d{1,5}))?(?::(\d*\.?\d+))?\s*", part, re.ASCII)
        if match is None:
            raise InputError("--rungs", text, form, "for example 1,3,9 or 1@16:0.5,3,9")
        epochs, side, share = match.groups()
        rungs.append(Rung(int(epochs), int(side) if side else None, float(share) if share else 1.0))
    if not 2 <= len(rungs) <= MOST_RUNGS:
        raise InputError("--rungs", text, form, "for example 1,3,9")
    if any(low.epochs >= high.epochs for low, high in itertools.pairwise(rungs)) or not rungs[0].epochs:
        raise InputError("--rungs", text, "the epochs must rise, from 1 at the least", "they count from the start")
    for rung in rungs:
        if not 0 < rung.fraction <= 1:
            raise InputError("--rungs", text, f"the share {rung.fraction:g} is not above 0 and at most 1")
        if rung.image_size is not None and rung.image_size < 16:
            raise InputError("--rungs", text, f"the side {rung.image_size} is below 16 pixels")
    return Ladder(tuple(rungs), eta)
