"""The recipe is explicit, frozen and has an identity; the views are what it says."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from mvit_search.data import ImageSet, load_data
from mvit_search.errors import InputError
from mvit_search.proxy import PAPER, Recipe, default_recipe, load_recipe, parse_recipe
from mvit_search.proxy.batches import Batches, _clamped

PLAIN = Recipe(epochs=1, batch_size=16, learning_rate=1e-3, warmup_epochs=0.0, image_size=32)


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return load_data("digits", image_size=32, max_images=64)


def batch(data: ImageSet, recipe: Recipe, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return next(Batches(data, recipe, torch.device("cpu")).epoch(torch.Generator().manual_seed(seed)))


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
        ("area_low", 0.5), ("area_high", 1.5), ("max_aspect", 1.5), ("max_shift", 0.1), ("flip", True),
        ("recalibration_images", 0), ("start_share", 0.1), ("final_share", 0.1), ("width_power", 0.5),
        ("ema_decay", 0.9), ("precision", "bfloat16"), ("scales", (24, 32)),
    )]  # fmt: skip
    assert len(others) == len(Recipe.model_fields)
    assert len({recipe.digest() for recipe in (PLAIN, *others)}) == len(others) + 1


@pytest.mark.parametrize(
    "changes",
    [{"epochs": 0}, {"batch_size": 1}, {"learning_rate": float("nan")}, {"area_low": 1.5}, {"fliip": True},
     {"epochs": "3"}, {"label_smoothing": 1.0}, {"learning_rate": -1.0}, {"max_aspect": 0.5}, {"ema_decay": 1.0},
     {"scales": (32, 32)}, {"scales": (8,)}, {"precision": "float16"}],
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
    batches = Batches(digits, PLAIN, torch.device("cpu"))
    labels = torch.cat([labels for _, labels in batches.epoch(torch.Generator().manual_seed(0))])
    assert batches.images_per_epoch == 64
    assert sorted(labels.tolist()) == sorted(digits.train_labels.tolist())


def test_flip_mirrors_about_half_of_the_images(digits: ImageSet) -> None:
    plain, _ = batch(digits, with_changes(batch_size=64))
    flipped, _ = batch(digits, with_changes(batch_size=64, flip=True))
    same = torch.isclose(plain, flipped, atol=1e-4).flatten(1).all(1)
    mirrored = torch.isclose(plain.flip(3), flipped, atol=1e-4).flatten(1).all(1)
    assert (same | mirrored).all()
    assert 16 < int(mirrored.sum()) < 48


@pytest.mark.parametrize(
    "changes",
    [{"max_rotation_degrees": 15.0}, {"area_low": 0.6}, {"area_high": 1.4}, {"max_shift": 0.1}, {"max_aspect": 1.5}],
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


def bar_images(side: int = 40) -> ImageSet:
    """Horizontal position as brightness: a view's window can be read off its pixels."""
    ramp = np.linspace(0, 255, side).astype(np.uint8)
    pixels = np.broadcast_to(ramp[None, None, :, None], (64, side, side, 3)).copy()
    labels = np.arange(64, dtype=np.int64) % 2
    return ImageSet("ramp", "", ("a", "b"), pixels, labels, pixels, labels, side, "")


def test_a_crop_lies_inside_and_shows_the_area_it_says() -> None:
    """With a ramp from left to right, the brightest minus the darkest column is the width of the window."""
    data = bar_images()
    recipe = with_changes(area_low=0.25, area_high=0.25, image_size=40, batch_size=64)
    images, _ = batch(data, recipe)
    whole, _ = batch(data, with_changes(image_size=40, batch_size=64))
    span = float(whole.amax() - whole.amin())
    widths = (images[:, 0].amax((1, 2)) - images[:, 0].amin((1, 2))) / span
    torch.testing.assert_close(widths, torch.full((64,), 0.5), atol=0.04, rtol=0)
    assert images.amin() >= whole.amin() - 1e-3  # nothing beyond the edge, which would be black and darker
    starts = images[:, 0].amin((1, 2))
    assert float(starts.max() - starts.min()) > 0.35 * span  # anywhere inside


def test_aspect_stretches_the_window_both_ways() -> None:
    data = bar_images()
    images, _ = batch(data, with_changes(area_low=0.25, area_high=0.25, max_aspect=2.0, image_size=40, batch_size=64))
    whole, _ = batch(data, with_changes(image_size=40, batch_size=64))
    widths = (images[:, 0].amax((1, 2)) - images[:, 0].amin((1, 2))) / (whole.amax() - whole.amin())
    assert float(widths.min()) < 0.42
    assert float(widths.max()) > 0.6
    assert float(widths.max()) < 0.75


def test_the_multi_scale_sampler_draws_sides_with_batches_of_equal_cost(digits: ImageSet) -> None:
    """Paper, algorithm 1: b_t = H_n W_n b / (H_t W_t)."""
    recipe = with_changes(scales=(16, 32), batch_size=8)
    batches = Batches(digits, recipe, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    shapes = [tuple(images.shape) for _ in range(4) for images, _ in batches.epoch(generator)]
    assert {shape[-1]: shape[0] for shape in shapes} == {16: 32, 32: 8}
    first = [labels for _, labels in batches.epoch(torch.Generator().manual_seed(3))]
    again = [labels for _, labels in batches.epoch(torch.Generator().manual_seed(3))]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_recipes_survive_yaml(tmp_path: Path) -> None:
    for index, recipe in enumerate((PAPER, default_recipe("digits"), with_changes(scales=(16, 48)))):
        path = tmp_path / f"{index}.yaml"
        path.write_text(recipe.to_yaml())
        assert load_recipe(path) == recipe


def test_the_papers_recipe_is_as_published() -> None:
    assert (PAPER.learning_rate, PAPER.start_share * PAPER.learning_rate) == (2e-3, pytest.approx(2e-4))
    assert (PAPER.weight_decay, PAPER.label_smoothing, PAPER.epochs, PAPER.batch_size) == (0.01, 0.1, 300, 1024)
    assert PAPER.scales == (160, 192, 256, 288, 320)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epochs: 0\n", "epochs"),
        ("- 1\n", "mapping"),
        ("a: [\n", "recipe"),
        ("epoch: 3\n", "epoch"),
        ("epochs: 1\nepochs: 2\n", "twice"),
        ("epochs: 2.0e-1\n", "epochs"),
    ],
)
def test_a_malformed_recipe_file_is_one_clear_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        load_recipe(path)
    assert "\n" not in str(caught.value)


def test_a_change_is_checked_like_a_recipe() -> None:
    assert PLAIN.changed(epochs=3).epochs == 3
    with pytest.raises(InputError, match="batch_size"):
        PLAIN.changed(batch_size=1)
    with pytest.raises(InputError, match="mapping"):
        parse_recipe([])


def test_a_clamped_grid_is_border_padding() -> None:
    """For Apple's GPUs, which have no border padding: nothing but the outermost pixels beyond the edge."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(4, 3, 9, 9, generator=generator)
    grid = 2.6 * torch.rand(4, 7, 7, 2, generator=generator) - 1.3
    border = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    zeros = F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)
    clamped = F.grid_sample(images, _clamped(grid, 9), padding_mode="zeros", align_corners=False)
    assert (border - zeros).abs().max() > 0.1
    torch.testing.assert_close(clamped, border, rtol=0, atol=1e-5)


def test_a_power_of_ten_needs_no_point(tmp_path: Path) -> None:
    """YAML 1.1 reads 2e-3 as text, but nobody means text."""
    path = tmp_path / "recipe.yaml"
    path.write_text(PLAIN.to_yaml().replace("learning_rate: 0.001", "learning_rate: 1e-3"))
    assert "1e-3" in path.read_text()
    assert load_recipe(path) == PLAIN
    with pytest.raises(InputError, match="no such file"):
        load_recipe(tmp_path / "none.yaml")
