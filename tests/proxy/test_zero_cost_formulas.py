"""Each score against what its paper's formula gives by hand on a network of a few weights."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from mvit_search.architecture import ConvStage, MobileViTConfig, MobileViTStage
from mvit_search.architecture.blocks import Attention, SeparableAttention
from mvit_search.architecture.network import MobileViT
from mvit_search.proxy.zero_cost._base import Batch
from mvit_search.proxy.zero_cost.grad_norm import grad_norm
from mvit_search.proxy.zero_cost.jacob_cov import correlation_score, jacob_cov
from mvit_search.proxy.zero_cost.naswot import agreement, log_determinant, naswot
from mvit_search.proxy.zero_cost.snip import snip
from mvit_search.proxy.zero_cost.synflow import flow, linearise, synflow
from mvit_search.proxy.zero_cost.zen import draw_weights, one_repeat, zen
from mvit_search.proxy.zero_cost.zico import steadiness, zico

GENERATOR = torch.Generator()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    GENERATOR.manual_seed(0)


def batch(features: int, classes: int, count: int = 5, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, features, generator=generator), torch.arange(count) % classes


def gradient_by_hand(weight: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    """Of the mean cross-entropy of W x: (softmax - one-hot)^T x / N."""
    error = (images @ weight.T).softmax(dim=1)
    error[torch.arange(len(labels)), labels] -= 1
    return error.T @ images / len(labels)


# synflow


def test_synflow_of_two_linear_layers_is_the_sum_over_paths_once_for_each_layer() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.SiLU(), nn.LayerNorm(4), nn.Linear(4, 2))
    first, second = (network[i].weight.detach().double().abs() for i in (0, 3))
    paths = sum(
        float(first[j, i] * second[k, j]) for i, j, k in itertools.product(range(3), range(4), range(2))
    )  # fmt: skip
    assert flow(network, (3,)) == pytest.approx(2 * paths, rel=1e-12)


def test_synflow_is_the_logarithm_and_looks_at_no_data() -> None:
    networks = [nn.Sequential(nn.Linear(3, 2)) for _ in range(3)]
    for network in networks[1:]:
        network.load_state_dict(networks[0].state_dict())
    values = [synflow(network, [batch(3, 2, seed=seed)], GENERATOR) for seed, network in enumerate(networks[:2])]
    assert values[0] == values[1] == pytest.approx(math.log(flow(networks[2], (3,))))


def vit(attention: str = "softmax") -> MobileViT:
    stage = MobileViTStage(
        out_channels=12, expand_ratio=2.0, transformer_dim=16, num_layers=2, num_heads=1, attention=attention
    )
    stages = (ConvStage(out_channels=8, stride=2, expand_ratio=2.0), stage)
    return MobileViT(MobileViTConfig(image_size=(16, 16), stem_channels=8, stages=stages), 3)


@pytest.mark.parametrize("attention", ["softmax", "separable"])
def test_a_mobilevit_made_linear_is_a_sum_of_paths(attention: str) -> None:
    """Outputs are positive, linear in the image and in each layer that all paths pass."""
    network = vit(attention)
    linearise(network)
    image = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    whole = network(image)
    assert bool((whole > 0).all())
    torch.testing.assert_close(network(3 * image), 3 * whole, rtol=1e-12, atol=0)
    torch.testing.assert_close(network(image) + network(torch.ones_like(image)), network(image + 1), rtol=1e-12, atol=0)
    with torch.no_grad():
        network.stem.conv.weight.mul_(2)
    torch.testing.assert_close(network(image), 2 * whole, rtol=1e-12, atol=0)


@pytest.mark.parametrize("attention", ["softmax", "separable"])
def test_queries_and_keys_carry_no_flow_but_values_do(attention: str) -> None:
    def changed(first: int | None, last: int | None) -> float:
        torch.manual_seed(1)
        network = vit(attention)
        for module in network.modules():
            if isinstance(module, (Attention, SeparableAttention)):
                with torch.no_grad():
                    module.qkv.weight[first:last] *= 5
        return flow(network, (3, 16, 16))

    queries_and_keys = 2 * 16 if attention == "softmax" else 1 + 16
    assert changed(0, 0) == changed(0, queries_and_keys)
    assert changed(0, 0) < changed(queries_and_keys, None)


# grad_norm, snip


def test_grad_norm_of_a_linear_layer() -> None:
    network = nn.Sequential(nn.Linear(3, 2, bias=False))
    images, labels = batch(3, 2)
    by_hand = gradient_by_hand(network[0].weight.detach(), images, labels)
    assert grad_norm(network, [(images, labels)], GENERATOR) == pytest.approx(float((by_hand**2).sum().sqrt()))


def test_grad_norm_adds_the_norms_of_layers_and_leaves_out_norms_and_biases() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    images, labels = batch(3, 2)
    nn.functional.cross_entropy(network(images), labels).backward()
    expected = sum(float(network[i].weight.grad.norm()) for i in (0, 2))
    assert grad_norm(network, [(images, labels)], GENERATOR) == pytest.approx(expected)


def test_snip_is_the_sum_of_weight_times_gradient() -> None:
    network = nn.Sequential(nn.Linear(3, 2, bias=False))
    weight = network[0].weight.detach().clone()
    images, labels = batch(3, 2)
    expected = float((weight * gradient_by_hand(weight, images, labels)).abs().sum())
    assert snip(network, [(images, labels)], GENERATOR) == pytest.approx(expected)


def test_snip_foretells_what_cutting_a_weight_does_to_the_loss() -> None:
    """To first order: the derivative along a mask, which is what the paper defines."""
    network = nn.Sequential(nn.Linear(3, 2, bias=False))
    weight = network[0].weight.detach().clone()
    images, labels = batch(3, 2)

    def loss(mask: Tensor) -> Tensor:
        return nn.functional.cross_entropy(images @ (weight * mask).T, labels)

    slopes = torch.autograd.functional.jacobian(loss, torch.ones_like(weight))
    assert snip(network, [(images, labels)], GENERATOR) == pytest.approx(float(slopes.abs().sum()))


# jacob_cov


def test_jacob_cov_is_greatest_for_uncorrelated_rows_and_least_for_equal_ones() -> None:
    k = 1e-5
    uncorrelated = torch.tensor([[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0], [1.0, 1.0, -1.0, -1.0]])
    assert correlation_score(uncorrelated) == pytest.approx(-3 * (math.log(1 + k) + 1 / (1 + k)))
    equal = torch.tensor([[1.0, 2.0, 4.0]] * 3)
    expected = -(math.log(3 + k) + 1 / (3 + k) + 2 * (math.log(k) + 1 / k))
    assert correlation_score(equal) == pytest.approx(expected, rel=1e-6)
    assert math.isnan(correlation_score(torch.tensor([[1.0, 1.0], [0.0, 1.0]])))


def test_jacob_cov_of_a_network_with_a_known_jacobian() -> None:
    """Of W x all rows are the column sums of W; of x**2 they are 2 x."""
    images, labels = batch(6, 2)
    linear = nn.Sequential(nn.Linear(6, 4, bias=False))
    same = linear[0].weight.sum(dim=0).detach().expand(5, 6)
    assert jacob_cov(linear, [(images, labels)], GENERATOR) == pytest.approx(correlation_score(same), rel=1e-6)

    class Square(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x**2

    found = jacob_cov(Square(), [(images, labels)], GENERATOR)
    assert found == pytest.approx(correlation_score(2 * images))


# naswot


@pytest.mark.parametrize("act", [nn.ReLU, nn.SiLU, nn.Hardswish])
def test_naswot_of_codes_known_by_hand(act: type[nn.Module]) -> None:
    codes = torch.tensor([[True, False, True], [True, True, False]])
    kernel = torch.tensor([[3.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
    assert torch.equal(agreement(codes), kernel)
    assert log_determinant(kernel) == pytest.approx(math.log(8))
    inputs = torch.where(codes, 0.7, -1.3)
    assert naswot(nn.Sequential(act()), [(inputs, torch.zeros(2))], GENERATOR) == pytest.approx(math.log(8))
    # Two activations add up: det [[6, 2], [2, 6]].
    twice = naswot(nn.Sequential(act(), nn.Flatten(), _Minus(), act()), [(inputs, torch.zeros(2))], GENERATOR)
    assert twice == pytest.approx(math.log(32))


class _Minus(nn.Module):
    """Turns on what was on before, whatever the activation made of it."""

    def forward(self, x: Tensor) -> Tensor:
        return x - 0.05


def test_naswot_of_equal_images_is_minus_infinity() -> None:
    inputs = torch.ones(2, 3)
    assert naswot(nn.Sequential(nn.ReLU()), [(inputs, torch.zeros(2))], GENERATOR) == -math.inf


def test_naswot_sees_tokens_of_one_image_as_that_images() -> None:
    """Swapping two images swaps rows and columns of the kernel, which leaves the determinant."""
    network = vit().train()
    images = torch.randn(4, 3, 16, 16)
    labels = torch.zeros(4)
    swapped = images[[1, 0, 2, 3]]
    first = naswot(network, [(images, labels)], GENERATOR)
    assert naswot(network, [(swapped, labels)], GENERATOR) == pytest.approx(first, rel=1e-6)


# zen


class Scale(nn.Module):
    """A layer that enlarges: what a following norm hides."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


class _TokenNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.transpose(1, 3)).transpose(1, 3)


def repeat(body: nn.Module) -> float:
    return one_repeat(body.train(), torch.zeros(16, 3, 8, 8), torch.Generator().manual_seed(3))


def test_zen_of_a_linear_network_by_hand() -> None:
    body = nn.Sequential(nn.Conv2d(3, 4, 1))
    found = repeat(body)
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(4, 3, generator=generator)
    torch.randn(16, 3, 8, 8, generator=generator)
    step = 0.01 * torch.randn(16, 3, 8, 8, generator=generator)
    moved = torch.einsum("oc,bchw->bohw", weight, step).abs().sum(dim=(1, 2, 3)).mean()
    # The difference of two float32 outputs of size 1 is known to about 1e-5 of its size of 0.01.
    assert found == pytest.approx(math.log(moved), abs=1e-4)


@pytest.mark.parametrize(
    "norm", [lambda: nn.BatchNorm2d(6), lambda: nn.GroupNorm(1, 6), _TokenNorm], ids=["batch", "group", "layer"]
)
def test_zen_sees_the_scale_that_a_norm_hides(norm: object) -> None:
    plain, scaled, bare = (
        repeat(nn.Sequential(nn.Conv2d(3, 6, 1), Scale(factor), *([norm()] if with_norm else [])))  # type: ignore[operator]
        for factor, with_norm in ((1.0, True), (1000.0, True), (1.0, False))
    )
    assert scaled - plain == pytest.approx(math.log(1000), abs=1e-3)
    assert plain == pytest.approx(bare, abs=0.2)  # alike, but for channels and images of unequal variance


def test_zen_draws_gaussian_weights_and_tempers_queries_and_keys() -> None:
    network = vit()
    draw_weights(network, GENERATOR)
    assert float(network.head.classifier.weight.detach().std()) == pytest.approx(1, abs=0.2)
    qkv = network.stages[1][1].transformer[0].attention.qkv.weight.detach()
    bias = network.stages[1][1].transformer[0].attention.qkv.bias
    assert float(qkv[:32].std()) == pytest.approx(0.25, abs=0.03)
    assert float(qkv[32:].std()) == pytest.approx(1, abs=0.12)
    assert not bias.any()


def test_zen_measures_a_mobilevit_before_its_pooling() -> None:
    """The classifier has no part in it, and the links around inverted residuals are left out."""
    images = torch.zeros(4, 3, 16, 16)
    small, large = (zen(network, [(images, torch.zeros(4))], torch.Generator().manual_seed(0)) for network in _heads())
    assert small == pytest.approx(large, abs=0.5)
    network = vit().train()
    zen(network, [(images, torch.zeros(4))], GENERATOR)
    assert not any(module.residual for module in network.modules() if hasattr(module, "residual"))


def _heads() -> list[nn.Module]:
    config = vit().config
    return [MobileViT(config, classes).train() for classes in (2, 500)]


# zico


def test_zico_of_known_gradients() -> None:
    gradients = torch.tensor([[1.0, 2.0, -1.0], [3.0, 2.0, 1.0]])
    # mean |g| 2, 2, 1; deviations 1, 0, 1: the second weight does not vary and is left out.
    assert steadiness(gradients) == pytest.approx(math.log(2 / 1 + 1 / 1))
    assert steadiness(torch.ones(2, 3)) == 0.0


def test_zico_of_a_linear_network() -> None:
    network = nn.Sequential(nn.Linear(3, 2, bias=False))
    batches = [batch(3, 2, seed=seed) for seed in (0, 1)]
    weight = network[0].weight.detach().clone()
    first, second = (gradient_by_hand(weight, *one) for one in batches)
    # The deviation of two values is half their difference.
    ratio = (first.abs() + second.abs()) / 2 / ((first - second).abs() / 2)
    assert zico(network, batches, GENERATOR) == pytest.approx(math.log(float(ratio.sum())), rel=1e-5)
