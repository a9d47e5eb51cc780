"""Weights that one training leaves and another begins with."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mvit_search.data import ImageSet, load_data
from mvit_search.errors import ConflictError, InputError
from mvit_search.proxy import ProxyResult, train
from mvit_search.proxy.kept_weights import read_weights
from mvit_search.proxy.session import TrainingSession
from tests.proxy.test_training import FAST, TINY

TWO = FAST.changed(epochs=2)


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return load_data("digits", image_size=16, max_images=128)


@pytest.fixture(scope="module")
def kept(digits: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "kept"
    train(TINY, digits, TWO, seed=0, threads=1, keep_weights=path)
    return path


def bits(result: ProxyResult) -> list[tuple[float, float]]:
    return [(rung.top1, rung.loss) for rung in result.rungs]


def test_what_is_kept_is_the_network_at_the_end(digits: ImageSet, kept: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        session = TrainingSession(TINY, digits, TWO, seed=0)
        session.advance()
        session.advance()
    finally:
        torch.set_num_threads(before)
    theirs = read_weights(kept, TINY, 10)
    ours = session.network.state_dict()
    assert ours.keys() == theirs.tensors.keys()
    assert all(torch.equal(ours[name], theirs.tensors[name]) for name in ours)
    assert any(name.endswith("running_var") for name in ours)
    assert theirs.image_steps == session.image_steps
    assert theirs.seconds > 0


def test_it_begins_with_them_and_with_nothing_else(digits: ImageSet, kept: Path) -> None:
    first = read_weights(kept, TINY, 10)
    session = TrainingSession(TINY, digits, TWO, seed=7, first=first)
    scratch = TrainingSession(TINY, digits, TWO, seed=7)
    own, plain = session._tensors(), scratch._tensors()
    state = session.network.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in first.tensors.items())
    assert session.network.stem.conv.weight.stride() == scratch.network.stem.conv.weight.stride()
    for name in plain:  # fresh moments, and the seed's order of images
        assert torch.equal(own[name], plain[name]) == (not name.startswith(("weights.", "norm.")) or "adamw" in name)
    assert (session.epoch, session.steps, session.image_steps) == (0, 0, 0)


def test_the_average_is_what_is_kept(digits: ImageSet, tmp_path: Path) -> None:
    session = TrainingSession(TINY, digits, TWO.changed(ema_decay=0.9), seed=0)
    session.advance()
    session.score()
    session.keep(tmp_path / "kept")
    weight = read_weights(tmp_path / "kept", TINY, 10).tensors["head.classifier.weight"]
    assert torch.equal(weight, session.scored_network().head.classifier.weight)
    assert not torch.equal(weight, session.network.head.classifier.weight)


def test_the_same_first_weights_give_the_same_bits_stopped_or_not(digits: ImageSet, kept: Path, tmp_path: Path) -> None:
    whole = train(TINY, digits, TWO, seed=1, threads=1, first_weights=kept, keep_weights=tmp_path / "whole")
    stopped = train(TINY, digits, TWO, seed=1, threads=1, first_weights=kept, checkpoint=tmp_path / "c",
                    stop=lambda: True, keep_weights=tmp_path / "parts")  # fmt: skip
    assert stopped.rungs == ()
    assert not (tmp_path / "parts").exists()
    parts = train(TINY, digits, TWO, seed=1, threads=1, first_weights=kept, checkpoint=tmp_path / "c",
                  keep_weights=tmp_path / "parts")  # fmt: skip
    assert bits(parts) == bits(whole)
    ours, theirs = (load_file(tmp_path / name) for name in ("whole", "parts"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert bits(train(TINY, digits, TWO, seed=1, threads=1)) != bits(whole)


def test_a_checkpoint_is_not_carried_on_with_other_first_weights(digits: ImageSet, kept: Path, tmp_path: Path) -> None:
    train(TINY, digits, TWO, seed=1, first_weights=kept, checkpoint=tmp_path / "c", stop=lambda: True)
    train(TINY, digits, FAST, seed=4, keep_weights=tmp_path / "other")
    for other in (None, tmp_path / "other"):
        with pytest.raises(ConflictError, match="first_weights differs"):
            train(TINY, digits, TWO, seed=1, first_weights=other, checkpoint=tmp_path / "c")


@pytest.mark.parametrize(
    "damage",
    ["gone", "folder", "empty", "text", "cut", "one bit", "header", "checkpoint", "config", "classes", "names"],
)
def test_what_cannot_be_begun_with_is_one_clear_line(digits: ImageSet, kept: Path, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "first"
    content = bytearray(kept.read_bytes())
    if damage == "one bit":
        content[len(content) // 2] ^= 1
    elif damage == "cut":
        content = content[:-40]
    elif damage in ("empty", "text"):
        content = bytearray(b"hello" if damage == "text" else b"")
    path.write_bytes(content)
    config, data = TINY, digits
    if damage == "gone":
        path.unlink()
    elif damage == "folder":
        path.unlink()
        path.mkdir()
    elif damage == "header":
        save_file(load_file(kept), path, {"mvit-search weights": "[1]"})
    elif damage == "checkpoint":
        TrainingSession(TINY, digits, TWO, seed=0).save(path)
    elif damage == "config":
        config = TINY.model_copy(update={"stem_channels": 16})
    elif damage == "classes":
        data = replace(digits, class_names=(*digits.class_names, "ten"))
    elif damage == "names":  # of another version of the network, whole in itself
        renamed = {f"x{name}": tensor for name, tensor in load_file(kept).items()}
        with safe_open(kept, framework="pt") as file:
            header = json.loads(file.metadata()["mvit-search weights"])
        from mvit_search.proxy.kept_weights import _digest

        header["digest"] = _digest(renamed)
        save_file(renamed, path, {"mvit-search weights": json.dumps(header)})
    with pytest.raises(InputError) as caught:
        train(config, data, TWO, seed=0, first_weights=path)
    assert caught.value.field == "checkpoint"
    assert "\n" not in str(caught.value)


def test_kept_weights_are_whole_or_the_old_ones(
    digits: ImageSet, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    path = tmp_path / "kept"
    path.write_bytes(kept.read_bytes())
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        train(TINY, digits, FAST, seed=5, keep_weights=path)
    assert path.read_bytes() == kept.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


def test_saving_by_the_clock_does_not_save_at_the_end(digits: ImageSet, tmp_path: Path) -> None:
    seen: list[tuple[int, bool]] = []
    path = tmp_path / "c"
    train(TINY, digits, FAST.changed(epochs=3), seed=0, checkpoint=path, save_every_s=0.0,
          on_epoch=lambda epoch, _: seen.append((epoch, path.exists())))  # fmt: skip
    assert seen == [(1, False), (2, True), (3, True)]
    path.unlink()
    train(TINY, digits, FAST.changed(epochs=3), seed=0, checkpoint=path, save_every_s=1e9, stop=lambda: False)
    assert not path.exists()
