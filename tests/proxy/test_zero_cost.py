"""The interface that every zero-cost score keeps: finite, repeatable, leaves nothing changed, fails in a line."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mvit_search.architecture import ConvStage, MobileViTConfig, MobileViTStage
from mvit_search.data import ImageSet, load_data
from mvit_search.errors import InputError, UnknownNameError, WorkError
from mvit_search.profile import cost
from mvit_search.proxy.zero_cost import NAMES, ZeroCostScore, images, score, scoring
from mvit_search.proxy.zero_cost.images import plain_batches

TINY = MobileViTConfig(
    image_size=(16, 16),
    stem_channels=8,
    head_expansion=2.0,
    stages=(
        ConvStage(out_channels=16, stride=2, expand_ratio=2.0),
        MobileViTStage(out_channels=24, expand_ratio=2.0, transformer_dim=32, num_layers=1, num_heads=2),
    ),
)
SEPARABLE = TINY.model_copy(
    update={"stages": (TINY.stages[0], TINY.stages[1].model_copy(update={"attention": "separable", "num_heads": 1}))}
)
SEEDLESS = ("params", "macs")


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return load_data("digits", image_size=16, max_images=200)


def replaced(data: ImageSet, **changes: object) -> ImageSet:
    return ImageSet(**{**vars(data), **changes})  # type: ignore[arg-type]


def test_every_name_has_a_score_and_words() -> None:
    assert list(NAMES) == [*scoring.OF_TABLE, *scoring.OF_NETWORK]
    assert all(NAMES.values())


@pytest.mark.parametrize("config", [TINY, SEPARABLE], ids=["softmax", "separable"])
@pytest.mark.parametrize("name", NAMES)
def test_contract_of_every_score(digits: ImageSet, name: str, config: MobileViTConfig) -> None:
    torch.manual_seed(5)
    random_state, threads = torch.get_rng_state(), torch.get_num_threads()
    first = score(name, config, digits, seed=0, threads=1)
    assert isinstance(first, ZeroCostScore)
    assert np.isfinite(first.value)
    assert first.seconds > 0
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.get_num_threads() == threads
    assert score(name, config, digits, seed=0, threads=1).value == first.value
    other = score(name, config, digits, seed=1, threads=1).value
    assert (other == first.value) == (name in SEEDLESS)


@pytest.mark.parametrize("name", NAMES)
def test_another_network_has_another_score(digits: ImageSet, name: str) -> None:
    wider = TINY.model_copy(update={"stem_channels": 24})
    assert score(name, wider, digits, seed=0).value != score(name, TINY, digits, seed=0).value


@pytest.mark.parametrize("name", ["params", "macs", "synflow", "zen"])
def test_scores_of_size_and_flow_rise_with_depth(digits: ImageSet, name: str) -> None:
    deeper = TINY.model_copy(
        update={"stages": (TINY.stages[0].model_copy(update={"num_blocks": 3}), TINY.stages[1])},
    )
    assert score(name, deeper, digits, seed=0).value > score(name, TINY, digits, seed=0).value


def test_params_and_macs_are_those_of_the_operator_table(digits: ImageSet) -> None:
    costs = cost(TINY, digits.num_classes)
    assert score("params", TINY, digits, seed=0).value == costs.params
    assert score("macs", TINY, digits, seed=0).value == costs.macs


def test_the_images_are_distinct_normalised_and_scaled(digits: ImageSet) -> None:
    batches = plain_batches(digits, 2, seed=0, device=torch.device("cpu"))
    assert [tuple(pixels.shape) for pixels, _ in batches] == [(64, 3, 16, 16)] * 2
    every = torch.cat([pixels for pixels, _ in batches])
    assert len(torch.unique(every, dim=0)) == len(every)
    assert abs(float(every.mean())) < 0.1
    assert abs(float(every.std()) - 1) < 0.1
    (pixels, labels), *_ = plain_batches(digits, 1, seed=0, device=torch.device("cpu"), share=0.5)
    assert tuple(pixels.shape) == (64, 3, 8, 8)
    # Labels stay with their images.
    whole, same = plain_batches(digits, 1, seed=0, device=torch.device("cpu"))[0]
    known = {shown.tobytes(): label for shown, label in zip(digits.train_images, digits.train_labels, strict=True)}
    assert [known[shown.tobytes()] for shown in _as_bytes(digits, whole)] == same.tolist()
    assert torch.equal(labels, same)


def _as_bytes(data: ImageSet, pixels: torch.Tensor) -> NDArray[np.uint8]:
    """The images before they were normalised."""
    sample = data.train_images[:: -(-len(data.train_images) // images._STATISTICS_IMAGES)].reshape(-1, 3) / 255.0
    back = pixels.permute(0, 2, 3, 1).double().numpy() * sample.std(axis=0) + sample.mean(axis=0)
    return np.round(255 * back).astype(np.uint8)


def test_small_data_give_smaller_batches(digits: ImageSet) -> None:
    few = replaced(digits, train_images=digits.train_images[:10], train_labels=digits.train_labels[:10])
    assert [len(labels) for _, labels in plain_batches(few, 2, seed=0, device=torch.device("cpu"))] == [5, 5]
    assert np.isfinite(score("zico", TINY, few, seed=0).value)
    fewer = replaced(digits, train_images=digits.train_images[:3], train_labels=digits.train_labels[:3])
    with pytest.raises(InputError, match="has 3 training images, too few"):
        score("zico", TINY, fewer, seed=0)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("params", "macs")])
def test_apples_gpus_have_no_doubles_so_the_processor_scores(digits: ImageSet, name: str) -> None:
    assert score(name, TINY, digits, seed=0, device="mps").value == score(name, TINY, digits, seed=0).value


def test_an_unknown_score_is_named_with_the_nearest(digits: ImageSet) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'synflow'"):
        score("sinflow", TINY, digits, seed=0)


@pytest.mark.parametrize("name", ["jacob_cov", "naswot"])
def test_a_score_that_is_not_finite_is_a_failure(digits: ImageSet, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Images of one kind all have one code, and a network that is blind has no Jacobian."""
    same = replaced(digits, train_images=np.repeat(digits.train_images[:1], 70, axis=0))
    same = replaced(same, train_labels=np.repeat(digits.train_labels[:1], 70))
    if name == "jacob_cov":
        real = scoring.build

        def blind(*arguments: object) -> torch.nn.Module:
            network = real(*arguments)  # type: ignore[arg-type]
            torch.nn.init.zeros_(network.stem.conv.weight)
            return network

        monkeypatch.setattr(scoring, "build", blind)
    with pytest.raises(WorkError, match=rf"{name}: the score is (nan|-inf)"):
        score(name, TINY, same, seed=0)


def test_a_network_that_cannot_be_run_is_a_failure(digits: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> float:
        raise RuntimeError("CUDA out of memory.\nTried to allocate")

    monkeypatch.setitem(scoring.OF_NETWORK, "snip", fails)
    threads = torch.get_num_threads()
    with pytest.raises(WorkError, match=r"^snip: CUDA out of memory. Tried to allocate$"):
        score("snip", TINY, digits, seed=0, threads=threads + 1)
    assert torch.get_num_threads() == threads
