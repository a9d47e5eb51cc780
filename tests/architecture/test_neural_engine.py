"""The rewritten network against the network: equal in double precision, where nothing hides behind rounding."""

import random
from collections.abc import Iterator

import pytest
import torch

from mvit_search.architecture import PRESETS, MobileViTConfig, MobileViTStage
from mvit_search.architecture.network import MobileViT
from mvit_search.architecture.neural_engine import Patches, for_neural_engine
from mvit_search.architecture.random_weights import random_network
from tests.random_configs import random_config

CLASSES = 7


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small convolutions in double precision: threads wait for one another longer than they work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def difference(network: MobileViT, seed: int = 0) -> float:
    """Largest difference of a logit, as a share of what the image changes."""
    network = network.double()
    rewritten = for_neural_engine(network).double()
    image = torch.rand(1, 3, *network.config.image_size, generator=torch.Generator().manual_seed(seed)).double()
    with torch.no_grad():
        expected, blank = network(image), network(torch.zeros_like(image))
        assert (expected - blank).abs().max() > 1e-2, "the image must matter"
        return float((rewritten(image) - expected).abs().max() / (expected - blank).abs().max())


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_random_configs_say_the_same(first: int) -> None:
    """Patches that do not divide the map, kernels, heads, fusion on and off, no last convolution, output strides."""
    for seed in range(first, first + 10):
        rng = random.Random(seed)
        config, stride = random_config(rng, max_image=64), rng.choice((None, 8, 16))
        network = random_network(config, CLASSES, seed=seed, output_stride=stride)
        assert difference(network) < 1e-9, (seed, config)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_say_the_same(name: str) -> None:
    assert difference(random_network(PRESETS[name].with_image_size(64), CLASSES)) < 1e-9


def one_block(**values: object) -> MobileViTConfig:
    stage = {"out_channels": 8, "transformer_dim": 12, "num_layers": 2, **values}
    return MobileViTConfig(image_size=(48, 40), stages=(MobileViTStage.model_validate(stage),))


@pytest.mark.parametrize("attention", ["softmax", "separable"])
@pytest.mark.parametrize(
    "patch", [(1, 1), (1, 4), (4, 4), (5, 4), (8, 8), (32, 16)], ids=lambda patch: f"{patch[0]}x{patch[1]}"
)
def test_patches_of_every_size_say_the_same(patch: tuple[int, int], attention: str) -> None:
    config = one_block(patch_h=patch[0], patch_w=patch[1], attention=attention)
    assert difference(random_network(config, CLASSES)) < 1e-9


@pytest.mark.parametrize("patch", [(1, 1), (2, 2), (3, 2), (8, 4)], ids=lambda patch: f"{patch[0]}x{patch[1]}")
def test_folding_undoes_unfolding(patch: tuple[int, int]) -> None:
    patches, image = Patches(5, *patch), torch.randn(1, 5, 24, 16)
    tokens = patches.unfold(image)
    assert tokens.shape == (1, 5, patch[0] * patch[1], 24 * 16 // (patch[0] * patch[1]))
    # Pixel 1 of every patch is the one right of its corner, or below it where patches are one pixel wide.
    if patch[1] > 1:
        assert torch.equal(tokens[0, :, 1], image[0, :, :: patch[0], 1 :: patch[1]].flatten(1))
    assert torch.equal(patches.fold(tokens, 24, 16), image)


@pytest.mark.parametrize("heads", [1, 2, 12])
def test_any_number_of_heads_says_the_same(heads: int) -> None:
    assert difference(random_network(one_block(num_heads=heads), CLASSES)) < 1e-9


@pytest.mark.parametrize("attention", ["softmax", "separable"])
def test_any_wrong_weight_is_noticed(attention: str) -> None:
    """The comparison itself: whichever tensor of the rewritten stages is changed, the logits are others."""
    network = random_network(one_block(attention=attention), CLASSES)
    rewritten = for_neural_engine(network)
    image = torch.rand(1, 3, *network.config.image_size)
    with torch.no_grad():
        before = rewritten(image)
        tensors = dict(rewritten.stages.named_parameters())
        assert len(tensors) > 20
        for name, tensor in tensors.items():
            if name.endswith(("query.bias", "keys.bias")):  # a softmax does not see what is added to all its scores
                continue
            kept = tensor.clone()
            tensor += 0.1 * torch.randn(tensor.shape)
            assert (rewritten(image) - before).abs().max() > 1e-4, name
            tensor.copy_(kept)


def test_the_network_itself_stays_as_it_was() -> None:
    network = random_network(one_block(), CLASSES).train()
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    for_neural_engine(network)
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())
    assert all(module.training for module in network.modules())
