"""The recipe is explicit, frozen and has an identity; the views are what it says."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from mvit_search.data import ImageSet, load_data
from mvit_search.proxy import Recipe, default_recipe
from mvit_search.proxy.batches import Batches

PLAIN = Recipe(epochs=1, batch_size=16, learning_rate=1e-3, warmup_epochs=0.0, image_size=32)


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return load_data("digits", image_size=32, max_images=64)


def batch(data: ImageSet, recipe: Recipe, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return next(Batches(data, recipe, torch.device("cpu"), torch.Generator().manual_seed(seed)).epoch())


def with_changes(**changes: object) -> Recipe:
    return Recipe.model_validate({**PLAIN.model_dump(), **changes})


@pytest.mark.parametrize("name", ["digits", "some/folder"])
def test_default_recipes_survive_json(name: str) -> None:
    recipe = default_recipe(name)
    again = Recipe.model_validate_json(recipe.model_dump_json())
    assert again == recipe
    assert again.digest() == recipe.digest()


def test_digits_are_never_mirrored() -> None:
    assert not default_recipe("digits").flip
    assert default_recipe("photos/").flip


def test_every_field_is_part_of_the_identity() -> None:
    others = [with_changes(**{name: value}) for name, value in (
        ("epochs", 2), ("batch_size", 8), ("learning_rate", 2e-3), ("weight_decay", 0.0), ("label_smoothing", 0.0),
        ("warmup_epochs", 0.5), ("grad_clip", 2.0), ("image_size", 64), ("max_rotation_degrees", 1.0),
        ("view_low", 0.5), ("view_high", 1.5), ("max_shift", 0.1), ("flip", True), ("recalibration_images", 0),
    )]  # fmt: skip
    assert len(others) == len(Recipe.model_fields)
    assert len({recipe.digest() for recipe in (PLAIN, *others)}) == len(others) + 1


@pytest.mark.parametrize(
    "changes",
    [{"epochs": 0}, {"batch_size": 1}, {"learning_rate": float("nan")}, {"view_low": 1.5}, {"fliip": True},
     {"epochs": "3"}, {"label_smoothing": 1.0}, {"learning_rate": -1.0}],
)  # fmt: skip
def test_what_cannot_be_trained_cannot_be_written(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        with_changes(**changes)


def test_without_views_the_batch_is_the_images(digits: ImageSet) -> None:
    images, labels = batch(digits, PLAIN)
    assert images.shape == (16, 3, 32, 32)
    assert images.is_contiguous(memory_format=torch.channels_last)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))[:16]
    np.testing.assert_array_equal(labels.numpy(), digits.train_labels[order.numpy()])
    raw = digits.train_images[order.numpy()].astype(np.float32) / 255
    shown = images.permute(0, 2, 3, 1).numpy()
    assert np.corrcoef(raw.ravel(), shown.ravel())[0, 1] > 0.9999


def test_batches_are_normalised(digits: ImageSet) -> None:
    images, _ = batch(digits, with_changes(batch_size=64))
    assert images.mean().abs() < 0.02
    assert (images.std() - 1).abs() < 0.02


def test_an_epoch_shows_every_image_once(digits: ImageSet) -> None:
    batches = Batches(digits, PLAIN, torch.device("cpu"), torch.Generator().manual_seed(0))
    labels = torch.cat([labels for _, labels in batches.epoch()])
    assert batches.steps_per_epoch == 4
    assert sorted(labels.tolist()) == sorted(digits.train_labels.tolist())


def test_flip_mirrors_about_half_of_the_images(digits: ImageSet) -> None:
    plain, _ = batch(digits, with_changes(batch_size=64))
    flipped, _ = batch(digits, with_changes(batch_size=64, flip=True))
    same = torch.isclose(plain, flipped, atol=1e-4).flatten(1).all(1)
    mirrored = torch.isclose(plain.flip(3), flipped, atol=1e-4).flatten(1).all(1)
    assert (same | mirrored).all()
    assert 16 < int(mirrored.sum()) < 48


@pytest.mark.parametrize(
    "changes", [{"max_rotation_degrees": 15.0}, {"view_low": 0.8}, {"view_high": 1.2}, {"max_shift": 0.1}]
)
def test_each_view_setting_changes_the_images_by_seed(digits: ImageSet, changes: dict[str, object]) -> None:
    recipe = with_changes(**changes)
    first, again, other = batch(digits, recipe), batch(digits, recipe), batch(digits, recipe, seed=1)
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[0], batch(digits, PLAIN)[0])


def test_a_shift_moves_by_no_more_than_it_says() -> None:
    """A one-pixel-wide bar in the middle stays within a tenth of 40 pixels of it."""
    pixels = np.zeros((16, 40, 40, 3), dtype=np.uint8)
    pixels[:, :, 19:21] = 255
    labels = np.arange(16, dtype=np.int64) % 2
    data = ImageSet("bars", "", ("a", "b"), pixels, labels, pixels, labels, 40, "")
    images, _ = batch(data, with_changes(max_shift=0.1, image_size=40))
    columns = images[:, 0].amax(1).argmax(1)
    assert 15 <= int(columns.min()) < 19
    assert 20 < int(columns.max()) <= 25
