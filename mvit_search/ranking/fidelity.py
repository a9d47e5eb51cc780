"""`Fidelity`: one way of training a candidate, cheap or dear, that is to be compared with others."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mvit_search.data import ImageSet
from mvit_search.data._base import balanced_choice, image_set
from mvit_search.errors import InputError
from mvit_search.proxy import Recipe


@dataclass(frozen=True)
class Fidelity:
    """A complete schedule, and the epochs on its way at which it is scored too.

    Attributes:
        name: `32px-10000img-10ep`, and what else tells it from others.
        images: training images, class-balanced; every fidelity is scored on the same held-out images.
        rungs: epochs after which it is scored; the last one always.
    """

    name: str
    recipe: Recipe
    images: int
    rungs: tuple[int, ...]

    @property
    def image_steps(self) -> int:
        """Training images that one candidate sees in all."""
        return self.images * self.recipe.epochs


def fidelity(recipe: Recipe, images: int, rungs: Sequence[int] = (), label: str = "") -> Fidelity:
    """A fidelity under its systematic name; `label` is added where recipes differ in more than that."""
    name = f"{recipe.image_size}px-{images}img-{recipe.epochs}ep" + (f"-{label}" if label else "")
    return Fidelity(name, recipe, images, tuple(sorted({*rungs, recipe.epochs} - {0})))


def ladders(recipe: Recipe, images: int, classes: int) -> tuple[Fidelity, ...]:
    """The long schedule first, then everything cheaper that it is compared with, most useful first.

    Rungs of the long schedule against complete short ones of 1, 2, 4, ... epochs; a half of the resolution, and a
    quarter of the images, for a quarter of the epochs' cost; not fewer images than `classes` or two batches.
    """
    powers = [epochs for epochs in (1, 2, 4, 8, 16, 32, 64) if epochs < recipe.epochs]
    long = fidelity(recipe, images, [*powers, *(3 * p for p in powers if 3 * p < recipe.epochs)])
    short = [fidelity(shortened(recipe, epochs), images) for epochs in powers if epochs <= recipe.epochs / 2]
    small = recipe.changed(image_size=max(16, recipe.image_size // 2))
    lower = [fidelity(shortened(small, max(1, recipe.epochs // 4)), images)] if small != recipe else []
    few = images // 4
    fewer = [fidelity(recipe, few)] if few >= max(classes, 2 * recipe.batch_size) else []
    return (long, *short, *lower, *fewer)


def shortened(recipe: Recipe, epochs: int) -> Recipe:
    """The recipe as a complete schedule of fewer epochs, a quarter of them for the warm-up at most."""
    return recipe.changed(epochs=epochs, warmup_epochs=min(recipe.warmup_epochs, epochs / 4))


def subset(data: ImageSet, images: int, held_out: int | None, seed: int = 0) -> ImageSet:
    """The first part of the data, class-balanced: so many training images, and so many held-out ones.

    Raises:
        InputError: more images than there are, or fewer than classes.
    """
    if images > len(data.train_images):
        rule = f"more than the {len(data.train_images)} training images of {data.name}"
        raise InputError("images", images, rule, "ask for fewer")
    chosen = balanced_choice(data.train_labels, images, seed)
    kept = balanced_choice(data.val_labels, held_out, seed)
    if len(chosen) == len(data.train_images) and len(kept) == len(data.val_images):
        return data
    train = np.ascontiguousarray(data.train_images[chosen]), data.train_labels[chosen]
    val = np.ascontiguousarray(data.val_images[kept]), data.val_labels[kept]
    source = f"{data.source}; {len(chosen)} and {len(kept)} of them"
    return image_set(data.name, data.class_names, train, val, source)
