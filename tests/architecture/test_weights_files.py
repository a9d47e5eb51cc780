"""Checkpoint files: what is unwrapped, what is refused, and that nothing in them runs."""

import argparse
import pickle
import random
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mvit_search.architecture.checkpoints import read_checkpoint, write_checkpoint
from mvit_search.architecture.weights import same_tensors
from mvit_search.errors import InputError


def weights() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {"conv.weight": torch.randn(4, 3, 3, 3), "norm.num_batches_tracked": torch.tensor(5)}


def averaged() -> dict[str, Tensor]:
    return {key: value + 1 for key, value in weights().items()}


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".bin", ".ckpt"])
def test_written_weights_read_back_the_same(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    state = weights() | {"half": torch.ones(2, 2).half(), "view": torch.ones(4, 4)[:, 1]}

    write_checkpoint(path, state)
    found = read_checkpoint(path)

    assert same_tensors(found.state_dict, state)
    assert found.unwrapped == ()
    assert found.left is None
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_safetensors_file_says_what_transformers_asks_for(tmp_path: Path) -> None:
    from safetensors import safe_open

    write_checkpoint(tmp_path / "a.safetensors", weights())

    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize(
    ("content", "unwrapped"),
    [
        (OrderedDict(weights()), ()),
        ({"state_dict": weights(), "epoch": 3, "args": argparse.Namespace(lr=0.1)}, ("state_dict",)),
        ({"model": prefixed("module.", weights())}, ("model", "module.")),
        ({"model_state_dict": prefixed("module._orig_mod.", weights())}, ("model_state_dict", "module.", "_orig_mod.")),
        ({"model": {"state_dict": weights()}}, ("model", "state_dict")),
        ({"n_averaged": torch.tensor(9), **prefixed("module.", weights())}, ("n_averaged", "module.")),
    ],
)  # fmt: skip
def test_the_usual_wrappings_come_off_and_are_named(content: object, unwrapped: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pt")

    found = read_checkpoint(tmp_path / "a.pt")

    assert found.unwrapped == unwrapped
    assert same_tensors(found.state_dict, weights())


@pytest.mark.parametrize(("model", "ema"), [("state_dict", "state_dict_ema"), ("model_state_dict", "ema_state_dict")])
def test_an_average_beside_the_weights_is_told_of_or_taken(model: str, ema: str, tmp_path: Path) -> None:
    torch.save({model: weights(), ema: averaged(), "epoch": 1}, tmp_path / "a.pt")

    plain, average = read_checkpoint(tmp_path / "a.pt"), read_checkpoint(tmp_path / "a.pt", ema=True)

    assert (plain.unwrapped, plain.left) == ((model,), ema)
    assert same_tensors(plain.state_dict, weights())
    assert (average.unwrapped, average.left) == ((ema,), None)
    assert same_tensors(average.state_dict, averaged())


def test_an_average_that_is_not_there_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": weights()}, tmp_path / "a.pt")

    with pytest.raises(InputError, match="holds no average"):
        read_checkpoint(tmp_path / "a.pt", ema=True)


class Trap:
    """Unpickled carelessly, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.mark,)  # type: ignore[return-value]


def test_pickled_code_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": weights(), "hook": Trap(tmp_path / "ran")}, tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"holds more than tensors \(.*\) and is not read, for safety"):
        read_checkpoint(tmp_path / "a.pt")
    torch.save(nn.Linear(2, 2), tmp_path / "b.pt")
    with pytest.raises(InputError, match=r"\(torch\.nn\.modules\.linear\.Linear\)"):
        read_checkpoint(tmp_path / "b.pt")
    (tmp_path / "c.pt").write_bytes(pickle.dumps(Trap(tmp_path / "ran"), protocol=4))
    with pytest.raises(InputError, match=r"\(a pickle that torch\.save did not write\) and is not read"):
        read_checkpoint(tmp_path / "c.pt")  # torch's warning of the protocol would fail this test
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "holds nothing, where a state dict"),
        ([torch.ones(2)], "holds list, where a state dict"),
        (torch.ones(2), "holds Tensor, where a state dict"),
        ({"epoch": 3, "a": torch.ones(2)}, "holds int under 'epoch', where weights"),
        ({3: torch.ones(2)}, "holds Tensor under 3, where weights"),
    ],
)
def test_what_is_no_state_dict_is_named(content: object, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pt")

    with pytest.raises(InputError, match=message):
        read_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_damaged_files_give_one_line(suffix: str, tmp_path: Path) -> None:
    """Cut short anywhere, or with bytes changed: never another error than ours."""
    whole, damaged = tmp_path / f"whole{suffix}", tmp_path / f"damaged{suffix}"
    write_checkpoint(whole, weights())
    data = whole.read_bytes()
    rng, complaints = random.Random(4), []
    for length in (0, 1, 7, 8, 60, len(data) // 2, len(data) - 1):
        damaged.write_bytes(data[:length])
        with pytest.raises(InputError, match="is no whole") as caught:
            read_checkpoint(damaged)
        assert "\n" not in str(caught.value)
    for _ in range(60):
        changed = bytearray(data)
        for _ in range(rng.randint(1, 20)):
            changed[rng.randrange(len(data))] = rng.randrange(256)
        damaged.write_bytes(changed)
        try:
            read_checkpoint(damaged)
        except InputError as error:
            complaints.append(str(error))
    assert complaints
    assert not any("\n" in complaint for complaint in complaints)


def test_another_files_content_under_the_suffix(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "a.safetensors", weights())
    (tmp_path / "a.safetensors").rename(tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"is a safetensors file; rename it to \.safetensors"):
        read_checkpoint(tmp_path / "a.pt")
    for is_zip in (True, False):
        torch.save(weights(), tmp_path / "b.safetensors", _use_new_zipfile_serialization=is_zip)
        with pytest.raises(InputError, match=r"is a torch file; rename it to \.pt"):
            read_checkpoint(tmp_path / "b.safetensors")


def test_a_path_may_be_text(tmp_path: Path) -> None:
    write_checkpoint(f"{tmp_path}/a.pt", weights())
    assert same_tensors(read_checkpoint(f"{tmp_path}/a.pt").state_dict, weights())


def test_a_folder_that_may_not_be_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(InputError, match=r"cannot be read \(Permission denied\)"):
        read_checkpoint(tmp_path / "a.pt")


def test_paths_that_are_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(InputError, match=r"has the suffix of no checkpoint .*\.safetensors, \.pt"):
        read_checkpoint(tmp_path / "a.json")
    with pytest.raises(InputError, match="there is no such file"):
        read_checkpoint(tmp_path / "a.pt")
    with pytest.raises(InputError, match="is a folder"):
        read_checkpoint(tmp_path)
    with pytest.raises(InputError, match="suffix of no checkpoint"):
        write_checkpoint(tmp_path / "a.txt", weights())
    with pytest.raises(InputError, match=r"cannot be written \(No such file"):
        write_checkpoint(tmp_path / "nowhere/a.pt", weights())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.pt").mkdir()

    with pytest.raises(InputError, match="cannot be written"):
        write_checkpoint(tmp_path / "a.pt", weights())

    assert [file.name for file in tmp_path.iterdir()] == ["a.pt"]
