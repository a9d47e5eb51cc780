"""Stopping and carrying on, the flat buffers, the average of the weights, memory that is short: to the last bit."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mvit_search.data import ImageSet, load_data
from mvit_search.errors import ConflictError, InputError, OutOfMemory
from mvit_search.proxy import Recipe, train, training
from mvit_search.proxy.batches import Batches
from mvit_search.proxy.optimising import (
    FlatParameters,
    WeightAverage,
    adamw,
    learning_rate_share,
    peak_learning_rate,
)  # fmt: skip
from mvit_search.proxy.session import TrainingSession, build
from tests.proxy.test_training import FAST, TINY

THREE = FAST.changed(epochs=3)
EVERYTHING = THREE.changed(
    ema_decay=0.9, scales=[16, 24], start_share=0.1, final_share=0.1, width_power=0.5, flip=True, max_aspect=1.3
)


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return load_data("digits", image_size=16, max_images=128)


def scores(result: object) -> list[tuple[int, float, float, int]]:
    return [(rung.epoch, rung.top1, rung.loss, rung.image_steps) for rung in result.rungs]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "recipe", [THREE, EVERYTHING, THREE.changed(precision="bfloat16")], ids=["plain", "all", "bf16"]
)
def test_stopped_at_every_rung_and_carried_on_is_one_training(digits: ImageSet, recipe: Recipe, tmp_path: Path) -> None:
    whole = train(TINY, digits, recipe, seed=3, threads=1, rungs=[1, 2])
    checkpoint = tmp_path / "training.safetensors"
    for epoch in (1, 2, 3):
        torch.manual_seed(epoch)  # the process's own random state must not matter
        parts = train(TINY, digits, recipe, seed=3, threads=1, rungs=[1, 2], until=epoch, checkpoint=checkpoint)
    assert scores(parts) == scores(whole)
    assert parts.steps == whole.steps
    again = train(TINY, digits, recipe, seed=3, threads=1, rungs=[1, 2], checkpoint=checkpoint)
    assert scores(again) == scores(whole)  # a finished one is only read


def test_a_checkpoint_holds_every_bit_of_the_state(digits: ImageSet, tmp_path: Path) -> None:
    first = TrainingSession(TINY, digits, EVERYTHING, seed=1)
    first.advance()
    first.score()
    first.save(tmp_path / "a")
    second = TrainingSession(TINY, digits, EVERYTHING, seed=1)
    second.load(tmp_path / "a")
    first.advance()
    second.advance()
    ours, theirs = first._tensors(), second._tensors()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert {"generator", "average.decayed", "adamw.free.exp_avg_sq", "norm.stem.norm.running_mean"} <= ours.keys()
    assert (second.epoch, second.steps, second.image_steps) == (first.epoch, first.steps, first.image_steps)
    assert second.spent()[0] > 0


def test_scoring_on_the_way_changes_nothing(digits: ImageSet) -> None:
    plain = train(TINY, digits, EVERYTHING, seed=0, threads=1)
    often = train(TINY, digits, EVERYTHING, seed=0, threads=1, rungs=[1, 2])
    assert scores(plain) == scores(often)[-1:]


def test_a_stop_saves_the_epoch_and_the_rest_follows(digits: ImageSet, tmp_path: Path) -> None:
    checkpoint = tmp_path / "training.safetensors"
    stopped = train(TINY, digits, THREE, seed=0, threads=1, checkpoint=checkpoint, stop=lambda: True)
    assert stopped.rungs == ()
    done = train(TINY, digits, THREE, seed=0, threads=1, checkpoint=checkpoint)
    assert scores(done) == scores(train(TINY, digits, THREE, seed=0, threads=1))


def test_where_it_was_stopped_it_can_still_be_scored(digits: ImageSet, tmp_path: Path) -> None:
    checkpoint = tmp_path / "training.safetensors"
    train(TINY, digits, THREE, seed=0, threads=1, checkpoint=checkpoint, stop=lambda: True)
    first = train(TINY, digits, THREE, seed=0, threads=1, checkpoint=checkpoint, until=1)
    assert scores(first) == scores(train(TINY, digits, THREE, seed=0, threads=1, rungs=[1]))[:1]


def test_a_checkpoint_of_another_torch_or_thread_count_is_refused(
    digits: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the bits of the one nor of the other would come out."""
    threads = torch.get_num_threads()
    session = TrainingSession(TINY, digits, THREE, seed=0)
    session.save(tmp_path / "a")
    try:
        torch.set_num_threads(threads + 1)
        with pytest.raises(ConflictError, match="threads differs"):
            session.load(tmp_path / "a")
    finally:
        torch.set_num_threads(threads)
    monkeypatch.setattr(torch, "__version__", "2.7.0")
    with pytest.raises(ConflictError, match="torch differs"):
        session.load(tmp_path / "a")


def test_first_weights_leave_the_callers_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    torch.manual_seed(0)
    assert seeded == [0]  # as torch does it
    build(TINY, 10, 5, torch.device("cpu"))
    assert seeded == [0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"seed": 1}, "seed differs"), ({"recipe": THREE.changed(label_smoothing=0.0)}, "recipe differs"),
     ({"share": 0.5}, "share differs")],
)  # fmt: skip
def test_anothers_checkpoint_is_refused_with_what_differs(
    digits: ImageSet, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    TrainingSession(TINY, digits, THREE, seed=0).save(tmp_path / "a")
    arguments = {"recipe": THREE, "seed": 0, "share": 1.0, **changes}
    other = TrainingSession(TINY, digits, arguments["recipe"], seed=arguments["seed"], share=arguments["share"])  # type: ignore[arg-type]
    with pytest.raises(ConflictError, match=words):
        other.load(tmp_path / "a")


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "foreign"])
def test_a_damaged_checkpoint_is_one_clear_line(digits: ImageSet, tmp_path: Path, damage: str) -> None:
    from safetensors.torch import save

    path = tmp_path / "training.safetensors"
    TrainingSession(TINY, digits, THREE, seed=0).save(path)
    content = {"truncated": path.read_bytes()[:-100], "empty": b"", "text": b"hello", "foreign": save({})}[damage]
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as a training checkpoint") as caught:
        train(TINY, digits, THREE, seed=0, checkpoint=path)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_is_whole_or_the_old_one(
    digits: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    session = TrainingSession(TINY, digits, THREE, seed=0)
    path = tmp_path / "training.safetensors"
    session.save(path)
    before = path.read_bytes()
    session.advance()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        session.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# The flat buffers.


def test_flat_training_is_plain_training(digits: ImageSet) -> None:
    """The same steps by AdamW over the parameters themselves, as a textbook writes them."""
    recipe = THREE.changed(epochs=1)
    session = TrainingSession(TINY, digits, recipe, seed=0)
    session.advance()
    network = build(TINY, digits.num_classes, 0, torch.device("cpu")).train()
    groups = [
        {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    plain = torch.optim.AdamW(groups, lr=1.0)
    batches = Batches(digits, recipe, torch.device("cpu"))
    steps = batches.images_per_epoch // recipe.batch_size
    for step, (images, labels) in enumerate(batches.epoch(torch.Generator().manual_seed(0))):
        for group in plain.param_groups:
            group["lr"] = recipe.learning_rate * learning_rate_share(recipe, step / steps, (step + 1) / steps)
        plain.zero_grad()
        F.cross_entropy(network(images), labels, label_smoothing=recipe.label_smoothing).backward()
        nn.utils.clip_grad_norm_(network.parameters(), recipe.grad_clip)
        plain.step()
    first = build(TINY, digits.num_classes, 0, torch.device("cpu"))
    ours, theirs, start = (
        torch.cat([p.detach().reshape(-1) for p in n.parameters()]) for n in (session.network, network, first)
    )
    # AdamW's first steps follow the sign of a gradient, so a rounding error in one near zero moves its weight.
    assert float((ours - theirs).norm() / (theirs - start).norm()) < 0.01


def test_parameters_are_views_and_keep_their_layout() -> None:
    network = build(TINY, 10, 0, torch.device("cpu"))
    before = {name: (p.detach().clone(), p.stride()) for name, p in network.named_parameters()}
    flat = FlatParameters(network)
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, before[name][0])
        assert parameter.stride() == before[name][1]
    inside = {buffer.untyped_storage().data_ptr() for buffer in flat.buffers}
    assert {p.untyped_storage().data_ptr() for p in network.parameters()} == inside
    assert flat.decayed.numel() + flat.free.numel() == sum(p.numel() for p in network.parameters())


def test_no_decay_on_norms_and_biases() -> None:
    network = build(TINY, 10, 0, torch.device("cpu"))
    flat = FlatParameters(network)
    decayed, free = adamw(flat, FAST).param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (FAST.weight_decay, 0)
    ends = flat.free.untyped_storage().data_ptr()
    names = [name for name, p in network.named_parameters() if p.untyped_storage().data_ptr() == ends]
    assert names
    assert all("norm" in name or name.endswith("bias") for name in names)
    others = [name for name, _ in network.named_parameters() if name not in names]
    assert not [name for name in others if "norm" in name or name.endswith("bias")]


def test_the_average_follows_the_weights_by_its_formula() -> None:
    network = nn.Sequential(nn.Linear(3, 2))
    flat = FlatParameters(network)
    average = WeightAverage(flat, 0.5)
    expected = flat.decayed.clone()
    for step in range(1, 6):
        with torch.no_grad():
            flat.decayed.add_(1.0)
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * flat.decayed
        torch.testing.assert_close(average.averages[0], expected)


def test_the_average_is_what_is_scored(digits: ImageSet) -> None:
    session = TrainingSession(TINY, digits, THREE.changed(ema_decay=0.99), seed=0)
    session.advance()
    scored, trained = session.scored_network().head.classifier.weight, session.network.head.classifier.weight
    assert not torch.equal(scored, trained)
    plain = TrainingSession(TINY, digits, THREE, seed=0)
    plain.advance()
    assert torch.equal(plain.scored_network().head.classifier.weight, plain.network.head.classifier.weight)
    assert torch.equal(plain.network.head.classifier.weight, trained)  # averaging does not touch the training


# The schedule.


def test_the_learning_rate_rises_then_falls() -> None:
    recipe = FAST.changed(epochs=4, warmup_epochs=1.0)
    shares = [learning_rate_share(recipe, step / 10, (step + 1) / 10) for step in range(40)]
    assert shares[:10] == sorted(shares[:10])
    assert shares[0] == pytest.approx(0.1)
    assert shares[9] == shares[10] == max(shares) == 1.0
    assert shares[10:] == sorted(shares[10:], reverse=True)
    assert 0 < shares[-1] < 0.01
    assert learning_rate_share(recipe.changed(epochs=1, warmup_epochs=9.0), 0, 1) > 0


def test_the_papers_learning_rate_starts_and_ends_at_a_tenth() -> None:
    recipe = FAST.changed(epochs=4, warmup_epochs=1.0, start_share=0.1, final_share=0.1)
    shares = [learning_rate_share(recipe, step / 1000, (step + 1) / 1000) for step in range(4000)]
    assert shares[0] == pytest.approx(0.1, abs=1e-3)
    assert max(shares) == pytest.approx(1.0)
    assert shares[-1] == pytest.approx(0.1, abs=1e-3)


def test_the_peak_falls_with_width_where_the_recipe_says_so() -> None:
    assert peak_learning_rate(FAST, 123) == FAST.learning_rate
    scaled = FAST.changed(width_power=1.0)
    assert peak_learning_rate(scaled, 2_000_000) == FAST.learning_rate
    assert peak_learning_rate(scaled, 8_000_000) == pytest.approx(FAST.learning_rate / 2)  # twice as wide


# Memory.


class ShortOfMemory(nn.Module):
    """A network that asks for more memory than there is from `most` images up, in torch's words for a CPU."""

    def __init__(self, network: nn.Module, most: int) -> None:
        super().__init__()
        self.network, self.most, self.config = network, most, network.config

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled() and len(images) > self.most:
            raise RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
            )
        return self.network(images)  # type: ignore[no-any-return]


@pytest.fixture
def short_of_memory(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    from mvit_search.proxy import session

    most = [10]
    monkeypatch.setattr(session, "build", lambda *arguments: ShortOfMemory(build(*arguments), most[0]))
    return most


def test_batches_shrink_to_what_fits_and_the_result_says_so(digits: ImageSet, short_of_memory: list[int]) -> None:
    small = train(TINY, replace(digits), FAST.changed(recalibration_images=16), seed=0, threads=1)
    assert small.largest_batch == 8
    assert small.steps == 4  # still of 32 images each
    assert 0 <= small.top1 <= 1


def test_what_never_fits_is_a_typed_failure(digits: ImageSet, short_of_memory: list[int], tmp_path: Path) -> None:
    short_of_memory[0] = 1
    with pytest.raises(OutOfMemory, match="does not fit in memory at 4 images at once"):
        train(TINY, digits, FAST, seed=0, threads=1, checkpoint=tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_a_failure_names_the_images_that_were_tried(digits: ImageSet, short_of_memory: list[int]) -> None:
    short_of_memory[0] = 1
    with pytest.raises(OutOfMemory, match="does not fit in memory at 5 images at once"):
        train(TINY, digits, FAST.changed(batch_size=5), seed=0, threads=1)


def test_parts_of_a_batch_add_up_to_its_gradient(digits: ImageSet) -> None:
    """With batch-norm statistics of the parts left aside (evaluation mode), halves give the whole batch's gradient."""
    gradients = []
    for largest in (32, 16):
        session = TrainingSession(TINY, digits, FAST.changed(grad_clip=1e9), seed=0, largest_batch=largest)
        session.network.eval()
        images, labels = next(session.batches.epoch(torch.Generator().manual_seed(0)))
        session._step(images, labels, 0.0)
        gradients.append(session._flat.decayed.grad.clone())
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)


def test_other_runtime_errors_pass_through(digits: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> nn.Module:
        raise RuntimeError("operator does not exist")

    monkeypatch.setattr(training.TrainingSession, "advance", broken)
    with pytest.raises(RuntimeError, match="operator does not exist"):
        train(TINY, digits, FAST, seed=0)
