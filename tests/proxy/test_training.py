"""The training loop on real digits with a tiny network: it learns, repeats itself, and fails by name."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mvit_search.architecture import ConvStage, MobileViTConfig, MobileViTStage
from mvit_search.data import ImageSet, load_data
from mvit_search.errors import InputError, TrainingDiverged
from mvit_search.proxy import ProxyResult, Recipe, default_recipe, train
from mvit_search.proxy.batches import Batches
from mvit_search.proxy.scoring import evaluate, recalibrate
from mvit_search.proxy.session import TrainingSession, build

TINY = MobileViTConfig(
    image_size=(16, 16),
    stem_channels=8,
    head_expansion=2.0,
    stages=(
        ConvStage(out_channels=16, stride=2, expand_ratio=2.0),
        MobileViTStage(out_channels=24, expand_ratio=2.0, transformer_dim=32, num_layers=1, num_heads=2),
    ),
)
FAST = default_recipe("digits").model_copy(update={"image_size": 16, "epochs": 1})


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return load_data("digits", image_size=16, max_images=256)


def run(data: ImageSet, recipe: Recipe = FAST, *, seed: int = 0) -> ProxyResult:
    return train(TINY, data, recipe, seed=seed, threads=1)


def weights_after_fit(data: ImageSet, recipe: Recipe, seed: int = 0) -> dict[str, torch.Tensor]:
    session = TrainingSession(TINY, data, recipe, seed=seed)
    session.advance()
    return session.network.state_dict()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def replaced(data: ImageSet, **changes: object) -> ImageSet:
    return ImageSet(**{**vars(data), **changes})  # type: ignore[arg-type]


@pytest.mark.slow
def test_learns_far_above_chance() -> None:
    data = load_data("digits", image_size=16)
    recipe = FAST.model_copy(update={"epochs": 8, "learning_rate": 5e-3})
    losses: list[tuple[int, float]] = []
    result = train(TINY, data, recipe, seed=0, threads=1, on_epoch=lambda epoch, loss: losses.append((epoch, loss)))
    assert result.top1 > 0.6  # chance is 0.1
    assert [epoch for epoch, _ in losses] == list(range(1, 9))
    assert losses[-1][1] < 0.7 * losses[0][1]
    assert result.epochs == 8
    assert result.steps == 8 * (len(data.train_images) // recipe.batch_size)
    assert result.seconds > 0
    assert result.images_per_second > 0


def test_same_seed_same_bits_other_seed_other_result(digits: ImageSet) -> None:
    first, second, other = run(digits), run(digits), run(digits, seed=1)
    assert (first.top1, first.loss) == (second.top1, second.loss)
    assert other.loss != first.loss


def test_leaves_random_state_threads_and_data_alone(digits: ImageSet) -> None:
    torch.manual_seed(5)
    state, threads, pixels = torch.get_rng_state(), torch.get_num_threads(), digits.train_images.copy()
    result = run(digits)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    np.testing.assert_array_equal(digits.train_images, pixels)
    torch.manual_seed(99)
    assert run(digits).loss == result.loss


def test_threads_are_restored_after_a_failure(digits: ImageSet) -> None:
    before = torch.get_num_threads()
    other = 1 if before > 1 else 2
    with pytest.raises(TrainingDiverged):
        train(TINY, digits, FAST.model_copy(update={"learning_rate": 1e38}), seed=0, threads=other)
    assert torch.get_num_threads() == before


def test_an_absurd_learning_rate_diverges_by_name(digits: ImageSet) -> None:
    with pytest.raises(TrainingDiverged, match=r"nan|inf"):
        run(digits, FAST.model_copy(update={"learning_rate": 1e38}))


def test_nan_weights_diverge_by_name(digits: ImageSet) -> None:
    session = TrainingSession(TINY, digits, FAST, seed=0)
    nn.init.constant_(session.network.head.classifier.weight, float("nan"))
    with pytest.raises(TrainingDiverged, match="training loss at step 1"):
        session.advance()
    with pytest.raises(TrainingDiverged, match="held-out loss"):
        session.score()


def test_ctrl_c_passes_through_and_restores_the_threads(digits: ImageSet) -> None:
    during: list[int] = []

    def interrupt(epoch: int, loss: float) -> None:
        during.append(torch.get_num_threads())
        raise KeyboardInterrupt

    before = torch.get_num_threads()
    other = 1 if before > 1 else 2
    with pytest.raises(KeyboardInterrupt):
        train(TINY, digits, FAST, seed=0, threads=other, on_epoch=interrupt)
    assert during == [other]
    assert torch.get_num_threads() == before


def test_held_out_images_do_not_touch_the_weights(digits: ImageSet) -> None:
    plain = weights_after_fit(digits, FAST)
    spoilt = replaced(digits, val_images=255 - digits.val_images, val_labels=digits.val_labels[::-1].copy())
    after = weights_after_fit(spoilt, FAST)
    assert all(torch.equal(plain[name], after[name]) for name in plain)


def test_recalibration_uses_training_images_alone(digits: ImageSet) -> None:
    def statistics(data: ImageSet) -> torch.Tensor:
        network = build(TINY, 10, 0, torch.device("cpu"))
        recalibrate(network, Batches(data, FAST, torch.device("cpu")), seeded())
        return network.stem.norm.running_var

    assert torch.equal(statistics(digits), statistics(replaced(digits, val_images=255 - digits.val_images)))


@pytest.mark.parametrize(
    ("images", "sizes"),
    [(512, [128] * 4), (130, [65, 65]), (129, [65, 64]), (300, [100] * 3), (2, [2]), (1, []), (0, [])],
)
def test_recalibration_parts_are_near_equal(digits: ImageSet, images: int, sizes: list[int]) -> None:
    """A short last part would weigh as much as a whole one."""
    pixels, labels = np.repeat(digits.train_images, 2, axis=0), np.repeat(digits.train_labels, 2)
    data = replaced(digits, train_images=pixels, train_labels=labels)
    recipe = FAST.model_copy(update={"recalibration_images": images})
    batches = Batches(data, recipe, torch.device("cpu"))
    assert [len(part) for part in batches.recalibration(128, seeded())] == sizes


def test_recalibration_holds_one_part_at_a_time(digits: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    def views(*arguments: object) -> Iterator[torch.Tensor]:
        for _ in range(3):
            events.append("made")
            yield torch.randn(4, 3, 8, 8)

    batches = Batches(digits, FAST, torch.device("cpu"))
    monkeypatch.setattr(batches, "recalibration", views)
    norm = nn.BatchNorm2d(3)
    norm.register_forward_hook(lambda *_: events.append("used"))
    recalibrate(norm, batches, torch.Generator())
    assert events == ["made", "used"] * 3
    assert int(norm.num_batches_tracked) == 3


def test_every_recalibration_image_weighs_the_same(digits: ImageSet) -> None:
    """The statistics over 130 images in two parts are those of all 130 at once."""
    still = {"max_rotation_degrees": 0.0, "area_low": 1.0, "area_high": 1.0, "max_shift": 0.0}
    recipe = FAST.model_copy(update={"recalibration_images": 130, **still})
    batches = Batches(digits, recipe, torch.device("cpu"))
    network = build(TINY, 10, 0, torch.device("cpu"))
    recalibrate(network, batches, seeded())
    (together,) = batches.recalibration(130, seeded())
    expected = network.stem.conv(together).mean(dim=(0, 2, 3))
    torch.testing.assert_close(network.stem.norm.running_mean, expected, rtol=1e-4, atol=1e-5)


def test_top1_is_the_share_of_held_out_images_that_are_right(digits: ImageSet) -> None:
    class Always(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.eye(10)[torch.full((len(images),), 3)]

    top1, loss = evaluate(Always(), Batches(digits, FAST, torch.device("cpu")), digits)
    assert top1 == pytest.approx(float((digits.val_labels == 3).mean()))
    assert loss > 0


def test_fewer_images_than_a_batch_is_one_clear_line(digits: ImageSet) -> None:
    small = load_data("digits", image_size=16, max_images=20)
    with pytest.raises(InputError, match="20 training images, fewer than a batch of 32"):
        run(small)


def test_data_of_another_resolution_is_refused(digits: ImageSet) -> None:
    with pytest.raises(InputError, match="16 px"):
        run(digits, default_recipe("digits"))


def test_a_share_of_the_resolution_scales_what_the_network_sees(digits: ImageSet) -> None:
    seen = set()
    batches = Batches(digits, FAST, torch.device("cpu"), share=0.75)
    for images, _ in (next(batches.epoch(seeded())), next(batches.held_out(digits, 8))):
        seen.add(tuple(images.shape[-2:]))
    seen.add(tuple(next(batches.recalibration(32, seeded())).shape[-2:]))
    assert seen == {(12, 12)}
    whole = Batches(digits, FAST, torch.device("cpu"), share=1.0)
    assert next(whole.epoch(seeded()))[0].shape[-2:] == (16, 16)
    assert train(TINY, digits, FAST, seed=0, threads=1, share=1.0).top1 == run(digits).top1
    assert train(TINY, digits, FAST, seed=0, threads=1, share=0.5).loss != run(digits).loss


def test_candidates_costed_at_another_resolution_train_all_the_same(digits: ImageSet) -> None:
    costed = TINY.with_image_size(256)
    assert train(costed, digits, FAST, seed=0, threads=1).loss == run(digits).loss


def test_photographs_in_a_folder_train(tmp_path: Path) -> None:
    from PIL import Image

    generator = np.random.default_rng(0)
    for name, colour in (("red", (200, 40, 40)), ("blue", (40, 40, 200))):
        (tmp_path / name).mkdir()
        for index in range(20):
            pixels = np.clip(np.array(colour) + generator.normal(0, 30, (24, 24, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.jpg")
    recipe = default_recipe(str(tmp_path)).model_copy(update={"image_size": 24, "batch_size": 8, "epochs": 3})
    result = run(load_data(str(tmp_path), image_size=24), recipe)
    assert result.top1 > 0.8
