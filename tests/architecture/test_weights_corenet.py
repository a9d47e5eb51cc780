"""The network equals CoreNet's stock MobileViT and MobileViTv2, where a checkout is named."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from random_weights import assert_same_logits, random_weights, two_images

from mvit_search.architecture import PRESETS, preset
from mvit_search.architecture.network import MobileViT
from mvit_search.architecture.weights import to_corenet

CHECKOUT = os.environ.get("MVIT_SEARCH_CORENET")
# CoreNet's layer norm takes the wrong axis where a stage has as many patches as channels: S at 192 px, for one.
SIZES = ((256, 256), (224, 320))

COMPARE = """
import sys, torch
from corenet.options.opts import get_training_arguments
from corenet.modeling.models import get_model
recipe, case = sys.argv[1:]
model = get_model(get_training_arguments(args=["--common.config-file", recipe])).eval()
case = torch.load(case, weights_only=True)
model.load_state_dict(case["weights"], strict=True)
assert model.state_dict().keys() == case["weights"].keys()
with torch.no_grad():
    difference = max((model(i) - l).abs().max().item() for i, l in zip(case["images"], case["logits"]))
print("RESULT", sum(p.numel() for p in model.parameters()), difference)
"""

SHARED = """\
dataset: {category: classification, name: imagenet}
model:
  normalization: {name: batch_norm, momentum: 0.1}
  activation: {name: swish}
  layer: {global_pool: mean, conv_init: kaiming_normal, linear_init: trunc_normal, linear_init_std_dev: 0.02}
  classification:
    n_classes: 1000
    activation: {name: swish}
"""
V1 = """\
    name: mobilevit
    mit: {{mode: {mode}, number_heads: 4, no_fuse_local_global_features: false, conv_kernel_size: 3}}
"""
V2 = """\
    name: mobilevit_v2
    mitv2: {{width_multiplier: {width}, attn_norm_layer: layer_norm_2d}}
"""


def recipe(name: str) -> str:
    """The options that choose CoreNet's own network of that name."""
    size = name.split("-")[1]
    if "v2" in name:
        return SHARED + V2.format(width=size)
    return SHARED + V1.format(mode={"xxs": "xx_small", "xs": "x_small", "s": "small"}[size])


@pytest.fixture(scope="module")
def real_corenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout that MVIT_SEARCH_CORENET names, without its internal projects."""
    if CHECKOUT is None:
        pytest.skip("MVIT_SEARCH_CORENET names no CoreNet checkout")
    root = tmp_path_factory.mktemp("corenet")
    shutil.copytree(Path(CHECKOUT) / "corenet", root / "corenet", ignore=shutil.ignore_patterns("internal"))
    return root


@pytest.mark.parametrize("name", PRESETS)
def test_logits_equal_those_of_corenet(name: str, real_corenet: Path, tmp_path: Path) -> None:
    config = preset(name)
    network = random_weights(MobileViT(config), seed=4)
    images = [two_images(*size) for size in SIZES]
    with torch.no_grad():
        logits = [network(image) for image in images]
    for logit in logits:
        assert_same_logits(logit, logit)  # that they say something
    case = {"weights": to_corenet(network.state_dict(), config), "images": images, "logits": logits}
    torch.save(case, tmp_path / "case.pt")
    (tmp_path / "recipe.yaml").write_text(recipe(name))

    # CoreNet has its own environment, so another interpreter may be named.
    python = os.environ.get("MVIT_SEARCH_CORENET_PYTHON", sys.executable)
    done = subprocess.run(
        [python, "-c", COMPARE, str(tmp_path / "recipe.yaml"), str(tmp_path / "case.pt")],
        capture_output=True, text=True, cwd=real_corenet, env={**os.environ, "PYTHONPATH": str(real_corenet)},
        timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("RESULT"))
    _, params, difference = line.split()
    print(name, line)

    assert int(params) == sum(p.numel() for p in network.parameters())
    assert float(difference) < 1e-4
