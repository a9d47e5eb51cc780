"""What training does differently gives the sums of the plain layers, forwards and backwards."""

import copy
import random

import pytest
import torch
from torch.nn import functional as F

from mvit_search.architecture import MobileViTStage, blocks, preset, training_ops
from mvit_search.architecture.blocks import Attention, MobileViTBlock, fold, unfold
from mvit_search.architecture.network import MobileViT
from mvit_search.architecture.training_ops import SMALLEST_PRODUCT, Linear, Product, fold_rows, unfold_rows
from tests.random_configs import random_config

onednn = pytest.mark.skipif(not training_ops.ONEDNN, reason="this build of torch has no oneDNN")
LARGE = (2048, 40, 72)  # rows, in, out: above SMALLEST_PRODUCT


def plain(monkeypatch):
    """From here on, the plain layers in training too."""
    monkeypatch.setattr(training_ops, "ONEDNN", False)
    monkeypatch.setattr(blocks, "in_eager_training", lambda module: False)


def gradients(network, images, labels):
    """(logits, loss, gradients and running statistics by name) of one step's passes."""
    network.zero_grad()
    logits = network(images)
    loss = F.cross_entropy(logits, labels, label_smoothing=0.1)
    loss.backward()
    found = {name: parameter.grad.clone() for name, parameter in network.named_parameters()}
    return logits.detach(), float(loss.detach()), found | {name: b.clone() for name, b in network.named_buffers()}


@pytest.mark.parametrize(("wide", "narrow"), [(5, 3), (3, 5), (4, 4)])
def test_a_product_has_the_gradients_of_its_formula(wide, narrow):
    torch.manual_seed(0)
    tensors = [
        torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((7, wide), (narrow, wide), (narrow,))
    ]
    assert torch.autograd.gradcheck(Product.apply, tensors)


@onednn
@pytest.mark.parametrize("turned", [False, True])
def test_a_large_layer_in_training_goes_through_onednn_and_equals_torchs(turned):
    torch.manual_seed(1)
    rows, inner, outer = LARGE
    inner, outer = (outer, inner) if turned else (inner, outer)
    assert rows * inner * outer >= SMALLEST_PRODUCT
    layer = Linear(inner, outer)
    x = torch.randn(32, rows // 32, inner, requires_grad=True)
    gradient = torch.randn(32, rows // 32, outer)
    result = layer(x)
    assert "Product" in result.grad_fn.next_functions[0][0].name()
    wanted = F.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(result, wanted, rtol=1e-4, atol=1e-5)
    inputs = (x, layer.weight, layer.bias)
    for own, theirs in zip(
        torch.autograd.grad(result, inputs, gradient), torch.autograd.grad(wanted, inputs, gradient), strict=True
    ):
        torch.testing.assert_close(own, theirs, rtol=1e-4, atol=1e-3)


def test_a_frozen_weight_has_no_gradient_and_lets_the_others_pass():
    layer = Linear(*LARGE[1:])
    layer.weight.requires_grad_(False)
    x = torch.randn(LARGE[0], LARGE[1], requires_grad=True)
    layer(x).sum().backward()
    assert layer.weight.grad is None
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand_as(x), rtol=1e-4, atol=1e-4)
    assert layer.bias.grad.tolist() == [LARGE[0]] * LARGE[2]


@pytest.mark.parametrize("case", ["evaluation", "small", "double", "empty", "autocast"])
def test_everything_else_is_torchs_own_layer(case, monkeypatch):
    monkeypatch.setattr(Product, "apply", lambda *arguments: pytest.fail("the product was used"))
    rows, inner, outer = LARGE
    layer = Linear(inner, outer)
    x = torch.randn({"small": 10, "empty": 0}.get(case, rows), inner)
    if case == "evaluation":
        layer.eval()
    if case == "double":
        layer, x = layer.double(), x.double()
    with torch.autocast("cpu", torch.bfloat16, enabled=case == "autocast"):
        assert layer(x).shape == (len(x), outer)


@onednn
def test_tracing_and_exporting_see_plain_layers():
    layer = Linear(*LARGE[1:])
    x = torch.randn(LARGE[0], LARGE[1])
    assert "linear" in str(torch.jit.trace(layer, x).inlined_graph)
    kinds = {str(node.target) for node in torch.export.export(layer, (x,)).graph.nodes}
    assert "aten.linear.default" in kinds


@pytest.mark.parametrize("patch", [(1, 1), (2, 2), (4, 2), (3, 5)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_rows_are_unfolded_and_folded_like_maps(patch, layout):
    x = torch.randn(3, 7, 12, 10).contiguous(memory_format=layout)
    tokens = unfold_rows(x, *patch)
    assert torch.equal(tokens, unfold(x, *patch))
    back = fold_rows(tokens, *patch, 12, 10)
    assert torch.equal(back, fold(tokens, *patch, 12, 10))
    assert layout == torch.contiguous_format or back.is_contiguous(memory_format=layout)


def test_attention_over_one_patch_is_the_values_and_leaves_queries_and_keys_without_gradient():
    torch.manual_seed(2)
    attention = Attention(8, num_heads=2)
    x = torch.randn(5, 1, 8, requires_grad=True)
    short = attention(x)
    torch.testing.assert_close(short, attention.eval()(x))
    short.square().sum().backward()
    assert attention.qkv.weight.grad[:16].abs().max() == 0
    assert attention.qkv.weight.grad[16:].abs().min() > 0


def assert_same_passes(network, images, monkeypatch):
    """Logits, gradients and statistics as with the plain layers, within what the order of float32 sums moves."""
    labels = torch.arange(len(images)) % 5
    twin = copy.deepcopy(network)
    logits, loss, own = gradients(network, images, labels)
    plain(monkeypatch)
    plain_logits, plain_loss, theirs = gradients(twin, images, labels)
    torch.testing.assert_close(logits, plain_logits, rtol=1e-3, atol=1e-4)
    assert loss == pytest.approx(plain_loss, rel=1e-5)
    largest = max(float(t.abs().max()) for name, t in theirs.items() if "running" not in name and t.is_floating_point())
    for name, wanted in theirs.items():
        scale = 1e-3 * max(float(wanted.abs().max()), 1e-2 * largest)
        assert float((own[name] - wanted).abs().max()) <= scale, name


@pytest.mark.parametrize("name", ["mobilevit-xxs", "mobilevit-s", "mobilevitv2-0.5"])
def test_a_presets_passes_are_those_of_plain_layers(name, monkeypatch):
    torch.manual_seed(3)
    network = MobileViT(preset(name), 5).to(memory_format=torch.channels_last).train()
    images = torch.randn(16, 3, 48, 48).contiguous(memory_format=torch.channels_last)
    assert_same_passes(network, images, monkeypatch)


@pytest.mark.parametrize("seed", range(6))
def test_random_networks_passes_are_those_of_plain_layers(seed, monkeypatch):
    torch.manual_seed(seed)
    config = random_config(random.Random(seed), max_image=64)
    assert_same_passes(MobileViT(config, 5).train(), torch.randn(8, 3, *config.image_size), monkeypatch)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_passes_give_the_same_bits(threads):
    torch.manual_seed(4)
    stage = MobileViTStage(out_channels=32, transformer_dim=64, num_layers=1)
    block = MobileViTBlock(stage, "silu").to(memory_format=torch.channels_last).train()
    x = torch.randn(64, 32, 8, 8).contiguous(memory_format=torch.channels_last)
    assert x.numel() // 32 * 64 * 64 >= SMALLEST_PRODUCT
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        first, second = (
            torch.autograd.grad(block(x).square().sum(), list(block.parameters())) for _ in range(2)
        )  # fmt: skip
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(own, again) for own, again in zip(first, second, strict=True))
