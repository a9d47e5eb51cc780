"""`mvit-search weights convert` as a user meets it."""

import json
from pathlib import Path

import pytest
import torch
from test_cli import cli, fails

from mvit_search.architecture import ConvStage, MobileViTConfig, MobileViTStage
from mvit_search.architecture.checkpoints import read_checkpoint, write_checkpoint
from mvit_search.architecture.network import MobileViT
from mvit_search.architecture.weights import convert, same_tensors
from mvit_search.errors import InputError

CONFIG = MobileViTConfig(
    head_expansion=0,
    stages=(
        ConvStage(out_channels=8, stride=2),
        MobileViTStage(out_channels=8, transformer_dim=8, num_layers=1, attention="separable", fusion=False),
    ),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The network's config, and its weights as timm keeps them: in a training checkpoint, without counters."""
    (tmp_path / "net.json").write_text(CONFIG.canonical_json())
    torch.manual_seed(0)
    state = MobileViT(CONFIG, num_classes=5).state_dict()
    write_checkpoint(tmp_path / "ours.safetensors", state)
    timm = convert(state, CONFIG, "ours", "timm").state_dict
    bare = {f"module.{key}": value for key, value in timm.items() if not key.endswith("num_batches_tracked")}
    torch.save({"state_dict": bare, "state_dict_ema": timm, "epoch": 2}, tmp_path / "timm.pth.tar")
    return tmp_path


def test_it_says_what_it_read_unwrapped_converted_and_verified(folder: Path) -> None:
    done = cli("weights", "convert", "timm.pth.tar", "--config", "net.json", cwd=folder)

    assert done.returncode == 0, done.stderr
    network = MobileViT(CONFIG, 5)
    tensors = len(network.state_dict())
    counters = sum(key.endswith("num_batches_tracked") for key in network.state_dict())
    params = sum(p.numel() for p in network.parameters())
    for text in (
        f"timm.pth.tar: {tensors - counters} tensors, unwrapped from state_dict, module.",
        "under state_dict_ema is left behind: --ema",
        f"timm (told by {tensors - counters} of {tensors - counters} keys)",
        f"ours: {tensors} tensors, {params:,} parameters, 5 classes, float32",
        f"{counters} num_batches_tracked that the source left out",
        "loads strictly into net; converted back, every tensor is the source's",
        "wrote      timm.ours.safetensors",
    ):
        assert text in done.stdout
    assert same_tensors(
        read_checkpoint(folder / "timm.ours.safetensors").state_dict,
        read_checkpoint(folder / "ours.safetensors").state_dict,
    )


def test_json_and_a_torch_file(folder: Path) -> None:
    arguments = ("ours.safetensors", "-c", "net.json", "--from", "ours", "--to", "corenet", "-o", "core.pt", "--json")
    done = cli("weights", "convert", *arguments, cwd=folder)

    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["checks"] == {"loads_strictly": True, "round_trip": True}
    assert (document["from"], document["from_told_by"], document["to"]) == ("ours", "--from", "corenet")
    assert (document["num_classes"], document["file"], document["filled"]) == (5, "core.pt", [])
    assert document["params"] == sum(p.numel() for p in MobileViT(CONFIG, 5).parameters())
    assert "layer_2.1.global_rep.0.pre_norm_attn.0.weight" in torch.load(folder / "core.pt", weights_only=True)


def test_bad_input_is_one_line_and_exit_code_2(folder: Path) -> None:
    convert_timm = ("weights", "convert", "timm.pth.tar", "--config", "net.json")
    state = read_checkpoint(folder / "ours.safetensors").state_dict
    state["extra"] = state.pop("head.classifier.bias")
    write_checkpoint(folder / "edited.safetensors", state)
    torch.save(MobileViT(CONFIG, 5), folder / "pickled.pt")

    fails("unknown layout (known: ours, corenet, timm, transformers); did you mean 'timm'", *convert_timm,
          "--to", "tim", cwd=folder)  # fmt: skip
    fails("exists; choose another name, or add --force", *convert_timm, "-o", "ours.safetensors", cwd=folder)
    fails("source 'edited.safetensors': lacks head.classifier.bias and has the unknown extra", "weights", "convert",
          "edited.safetensors", "--config", "net.json", cwd=folder)  # fmt: skip
    torch.save(torch.nn.Linear(2, 2).state_dict(), folder / "linear.pt")

    fails("source 'linear.pt': its keys are those of none of the known layouts (ours, ", "weights", "convert",
          "linear.pt", "--config", "net.json", cwd=folder)  # fmt: skip
    fails(
        "source 'pickled.pt': holds more than tensors",
        "weights",
        "convert",
        "pickled.pt",
        "--config",
        "net.json",
        cwd=folder,
    )
    fails("is a folder", "weights", "convert", ".", "--config", "net.json", cwd=folder)


def test_weights_that_are_no_numbers_are_told_of(folder: Path) -> None:
    state = read_checkpoint(folder / "ours.safetensors").state_dict
    state["head.classifier.bias"] = torch.full((5,), float("nan"))
    state["head.classifier.weight"][0, 0] = float("inf")
    write_checkpoint(folder / "nan.pt", state)
    arguments = ("weights", "convert", "nan.pt", "-c", "net.json", "--to", "timm", "--force")
    done = cli(*arguments, cwd=folder)
    assert f"warning    2 of {len(state)} tensors hold NaN or infinite values" in done.stdout
    document = json.loads(cli(*arguments, "--json", cwd=folder).stdout)
    assert len(document["not_finite"]) == 2
    assert json.loads(cli("weights", "convert", "ours.safetensors", "-c", "net.json", "-o", "a.pt", "--json",
                          cwd=folder).stdout)["not_finite"] == []  # fmt: skip


def test_an_output_that_may_not_be_reached(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mvit_search.cli.weights import _check_free

    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", refuse)
    with pytest.raises(InputError, match=r"out '.*x\.pt': cannot be written \(Permission denied\)"):
        _check_free(folder / "x.pt", force=True)


def test_force_replaces_even_the_source(folder: Path) -> None:
    arguments = ("ours.safetensors", "-c", "net.json", "--to", "timm", "-o", "ours.safetensors", "--force")
    done = cli("weights", "convert", *arguments, cwd=folder)

    assert done.returncode == 0, done.stderr
    assert "stages.1.1.conv_kxk.bn.weight" in read_checkpoint(folder / "ours.safetensors").state_dict
