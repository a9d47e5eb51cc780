"""The CoreNet export: plugin, recipe and config say what the candidate says."""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from corenet_fake import modules

from mvit_search.architecture import PRESETS, ConvStage, MobileViTConfig, MobileViTStage, operators, parse_config
from mvit_search.architecture.network import MobileViT
from mvit_search.architecture.weights import to_corenet
from mvit_search.errors import InputError
from mvit_search.export import ExportResult, export

CHECKOUT = os.environ.get("MVIT_SEARCH_CORENET")

UNEVEN = MobileViTConfig(
    stem_channels=24,
    head_expansion=2.7,
    activation="relu",
    image_size=(224, 224),
    stages=(
        ConvStage(out_channels=16, num_blocks=2, expand_ratio=1.0),
        ConvStage(out_channels=40, num_blocks=5, stride=2, expand_ratio=2.5),
        MobileViTStage(
            out_channels=56, transformer_dim=64, num_layers=1, num_heads=1, ffn_ratio=1.5, conv_kernel_size=5,
            patch_h=8, patch_w=8, fusion=False,
        ),
        # 196 patches at 224 px and d = 196: as many tokens as channels.
        MobileViTStage(out_channels=72, transformer_dim=196, num_layers=5, num_heads=7, patch_h=1, patch_w=1),
        MobileViTStage(out_channels=104, transformer_dim=132, num_heads=3, ffn_ratio=2.3, patch_h=4, expand_ratio=6.0),
    ),
)  # fmt: skip


def exported(config: MobileViTConfig, name: str, out: Path) -> dict[str, Path]:
    """File suffix -> path."""
    return {path.suffix: path for path in export(config, name, "corenet", out).files}


def options(**changes: object) -> argparse.Namespace:
    """The options that the plugin reads, as CoreNet's parser would leave them."""
    values: dict[str, object] = {
        "model.activation.name": "gelu", "model.classification.n_classes": 10,
        "model.classification.classifier_dropout": 0.1, "model.classification.mit.dropout": 0.3,
        "model.classification.mit.attn_dropout": 0.1, "model.classification.mit.ffn_dropout": 0.2,
    }  # fmt: skip
    return argparse.Namespace(**{**values, **changes})


class Loaded:
    """A plugin executed against the fake CoreNet."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        made, registry, self.norms = modules()
        for name, module in made.items():
            monkeypatch.setitem(sys.modules, name, module)
        exec(compile(path.read_text(), path.name, "exec"), {"__name__": path.stem})
        ((self.registered, self.network_class),) = registry.registered.items()

    def build(self, **kwargs: Any) -> Any:
        return self.network_class(options(), **kwargs)


def test_plugin_registers_under_the_names_of_its_file_and_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = exported(UNEVEN, "first-run/12", tmp_path)
    plugin = Loaded(files[".py"], monkeypatch)

    name = f"mvit_search_first_run_12_{UNEVEN.digest()[:6]}"
    assert plugin.registered == f"classification:{name}"
    assert {path.stem for path in files.values()} == {name}
    recipe = yaml.safe_load(files[".yaml"].read_text())
    assert recipe["model"]["classification"]["name"] == name
    # CoreNet asks every registered model for its options, and refuses one that is added twice.
    parser = argparse.ArgumentParser()
    assert plugin.network_class.add_arguments(parser) is parser  # type: ignore[attr-defined]
    assert len(parser._actions) == 1


def test_plugin_builds_the_candidates_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Loaded(exported(UNEVEN, "uneven", tmp_path)[".py"], monkeypatch).build()

    assert network.conv_1.told == (3, 24, 3, 2, True, True)
    assert [block.told for block in network.layer_1] == [(24, 16, 1, 1.0, 1), (16, 16, 1, 1.0, 1)]
    assert [block.told for block in network.layer_2] == [(16, 40, 2, 2.5, 1), *[(40, 40, 1, 2.5, 1)] * 4]
    for number in (3, 4, 5):
        stage = UNEVEN.stages[number - 1]
        assert isinstance(stage, MobileViTStage)
        downsample, block = getattr(network, f"layer_{number}")
        before = UNEVEN.stages[number - 2].out_channels
        assert downsample.told == (before, stage.out_channels, 2, stage.expand_ratio, 1)
        assert block.told == {
            "in_channels": stage.out_channels, "transformer_dim": stage.transformer_dim, "ffn_dim": stage.ffn_dim,
            "layers": stage.num_layers, "head_dim": stage.transformer_dim // stage.num_heads,
            "patch": (stage.patch_h, stage.patch_w), "kernel": stage.conv_kernel_size,
            "no_fusion": not stage.fusion, "dropouts": (0.1, 0.3, 0.2),
        }  # fmt: skip
    assert network.conv_1x1_exp.told == (104, 280, 1, 1, True, True)
    assert network.classifier.fc.told == (280, 10, True)
    assert network.was_reset
    assert network.model_conf_dict["layer5"] == {"in": 72, "out": 104}
    assert network.model_conf_dict["exp_before_cls"] == {"in": 104, "out": 280}


def test_plugins_activation_wins_over_the_options_and_leaves_them_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Loaded(exported(UNEVEN, "relu", tmp_path)[".py"], monkeypatch).build()

    told = {module.activation for module in network.modules() if hasattr(module, "activation")}
    assert told == {"relu"}
    assert getattr(network.opts, "model.activation.name") == "gelu"


def test_plugins_layer_norm_takes_the_last_axis_when_patches_equal_channels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = Loaded(exported(UNEVEN, "norm", tmp_path)[".py"], monkeypatch)
    ((name, norm_class),) = plugin.norms.items()
    tokens = torch.randn(2, 6, 6)

    assert plugin.build().layer_4[1].norm_name == name
    normalised = norm_class(6)(tokens)
    assert torch.allclose(normalised, torch.nn.functional.layer_norm(tokens, (6,)))


def test_segmentation_backbone_trades_stride_for_dilation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Loaded(exported(UNEVEN, "dilated", tmp_path)[".py"], monkeypatch).build(output_stride=8)

    # (in, out, stride, expand ratio, dilation); as in CoreNet, a layer's own dilation starts one layer later.
    assert network.layer_4[0].told[2:] == (1, 4.0, 1)
    assert network.layer_5[0].told[2:] == (1, 6.0, 2)
    assert network.dilation == 4


def test_recipe_is_the_papers(tmp_path: Path) -> None:
    recipe = yaml.safe_load(exported(PRESETS["mobilevit-s"], "mobilevit-s", tmp_path)[".yaml"].read_text())

    assert recipe["optim"] | {"adamw": None} == {
        "name": "adamw", "weight_decay": 0.01, "no_decay_bn_filter_bias": False, "adamw": None,
    }  # fmt: skip
    assert recipe["scheduler"] == {
        "name": "cosine", "is_iteration_based": False, "max_epochs": 300,
        "warmup_iterations": 20000, "warmup_init_lr": 2e-4, "cosine": {"max_lr": 2e-3, "min_lr": 2e-4},
    }  # fmt: skip
    assert recipe["loss"]["classification"] == {"name": "cross_entropy", "cross_entropy": {"label_smoothing": 0.1}}
    assert recipe["ema"] == {"enable": True, "momentum": 5e-4}
    assert recipe["dataset"]["train_batch_size0"] == 128
    assert recipe["dataset"]["root_train"].startswith("SET-ME")
    assert recipe["sampler"] == {
        "name": "variable_batch_sampler",
        "vbs": {
            "crop_size_width": 256, "crop_size_height": 256, "max_n_scales": 5, "check_scale": 32,
            "min_crop_size_width": 160, "max_crop_size_width": 320,
            "min_crop_size_height": 160, "max_crop_size_height": 320,
        },
    }  # fmt: skip
    assert recipe["image_augmentation"]["random_resized_crop"]["enable"] is True
    assert recipe["image_augmentation"]["random_horizontal_flip"]["enable"] is True
    assert recipe["image_augmentation"]["resize"]["size"] == 288
    assert recipe["image_augmentation"]["center_crop"]["size"] == 256
    assert recipe["model"]["classification"]["n_classes"] == 1000


def test_recipe_follows_the_candidates_image_size(tmp_path: Path) -> None:
    config = PRESETS["mobilevit-xxs"].with_image_size(192, 384)
    recipe = yaml.safe_load(exported(config, "wide", tmp_path)[".yaml"].read_text())
    sampler = recipe["sampler"]["vbs"]

    assert [sampler[f"{which}crop_size_height"] for which in ("min_", "", "max_")] == [128, 192, 256]
    assert [sampler[f"{which}crop_size_width"] for which in ("min_", "", "max_")] == [256, 384, 480]
    assert recipe["image_augmentation"]["resize"]["size"] == [216, 432]
    assert recipe["image_augmentation"]["center_crop"]["size"] == [192, 384]


def test_config_file_reads_back_and_the_plugin_states_the_cost(tmp_path: Path) -> None:
    files = exported(UNEVEN, "uneven", tmp_path)

    assert parse_config(json.loads(files[".json"].read_text())) == UNEVEN
    text = files[".py"].read_text()
    assert f"{sum(op.params for op in operators(UNEVEN)):,} parameters" in text
    assert f"{sum(op.macs for op in operators(UNEVEN)):,}" in text
    assert "mvit_search." not in text.replace("mvit_search_", "")


def test_fewer_layers_than_corenet_has_are_refused(tmp_path: Path) -> None:
    config = parse_config({"stages": [stage.model_dump() for stage in UNEVEN.stages[:4]]})

    with pytest.raises(InputError, match=r"stages 4: .*exactly 5 layers"):
        export(config, "short", "corenet", tmp_path)
    assert not list(tmp_path.iterdir())


def test_ratio_one_on_a_width_that_corenet_would_round_is_refused(tmp_path: Path) -> None:
    config = UNEVEN.model_copy(update={"stem_channels": 20})

    with pytest.raises(InputError, match=r"stages\.0\.expand_ratio 1: .*20 input channels .*multiple of 8"):
        export(config, "narrow", "corenet", tmp_path)


@pytest.fixture(scope="module")
def real_corenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout that MVIT_SEARCH_CORENET names, made ready as the plugin's text says."""
    if CHECKOUT is None:
        pytest.skip("MVIT_SEARCH_CORENET names no CoreNet checkout")
    root = tmp_path_factory.mktemp("corenet")
    shutil.copytree(Path(CHECKOUT) / "corenet", root / "corenet", ignore=shutil.ignore_patterns("internal"))
    (root / "corenet/internal").mkdir(exist_ok=True)
    (root / "corenet/internal/__init__.py").write_text("KNOWN_WARNINGS_INTERNAL = []\n")
    return root


def random_network(config: MobileViTConfig) -> MobileViT:
    """In evaluation mode, with weights and running statistics that a fresh network does not have."""
    torch.manual_seed(3)
    network = MobileViT(config).eval()
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith("running_var") or (name.endswith("weight") and value.ndim == 1):
                value.uniform_(0.5, 1.5)
            elif value.ndim == 1:
                value.normal_(0, 0.2)
            elif value.ndim == 2:
                value.normal_(0, value.shape[1] ** -0.5)
    return network


COMPARE = """
import sys, torch
from corenet.options.opts import get_training_arguments
from corenet.modeling.models import get_model
recipe, case = sys.argv[1:]
model = get_model(get_training_arguments(args=["--common.config-file", recipe])).eval()
case = torch.load(case, weights_only=True)
model.load_state_dict(case["weights"], strict=True)
with torch.no_grad():
    difference = (model(case["images"]) - case["logits"]).abs().max().item()
print("RESULT", sum(p.numel() for p in model.parameters()), difference)
"""


@pytest.mark.parametrize("config", [PRESETS["mobilevit-xxs"], UNEVEN], ids=["mobilevit-xxs", "uneven"])
def test_real_corenet_builds_the_same_network(
    config: MobileViTConfig, real_corenet: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    result: ExportResult = export(config, request.node.callspec.id, "corenet", tmp_path)
    plugin, recipe, _ = result.files
    folder = real_corenet / "corenet/internal/projects" / plugin.stem / "modeling/models/classification"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(plugin, folder)
    network = random_network(config)
    images = torch.randn(1, 3, *config.image_size)
    with torch.no_grad():
        case = {
            "weights": to_corenet(network.state_dict(), config),
            "images": images,
            "logits": network(images),
        }
    torch.save(case, tmp_path / "case.pt")

    # CoreNet has its own environment, so another interpreter may be named.
    python = os.environ.get("MVIT_SEARCH_CORENET_PYTHON", sys.executable)
    environment = {**os.environ, "PYTHONPATH": str(real_corenet)}
    done = subprocess.run(
        [python, "-c", COMPARE, str(recipe), str(tmp_path / "case.pt")],
        capture_output=True, text=True, cwd=real_corenet, env=environment, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("RESULT"))
    _, params, difference = line.split()

    assert int(params) == result.checks["params"]
    assert float(difference) < 1e-4
