"""The in-process evaluator: what it hands to the training, and what becomes of a candidate that fails."""

from collections.abc import Callable
from typing import Any

import pytest

from mvit_search import proxy
from mvit_search.architecture import ConvStage, MobileViTConfig, preset
from mvit_search.data import ImageSet, load_data
from mvit_search.proxy import Recipe, default_recipe
from mvit_search.proxy.result import Rung
from mvit_search.search.evaluator import InProcessEvaluator
from mvit_search.space import load_space

RECIPE: Recipe = default_recipe("digits").model_copy(update={"epochs": 1})


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return load_data("digits", image_size=RECIPE.image_size, max_images=128)


def evaluator(data: ImageSet, relative_size: Callable[[MobileViTConfig], float]) -> InProcessEvaluator:
    return InProcessEvaluator(data, RECIPE, relative_size=relative_size)


def test_a_candidate_of_lower_resolution_sees_smaller_images(digits: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    space = load_space("mobilevit-compound")
    sizes, shares = [], []

    def train(config: MobileViTConfig, *_: Any, share: float, **__: Any) -> Any:
        sizes.append(config.image_size[0])
        shares.append(share)
        return proxy.ProxyResult((Rung(1, 0.5, 1.0, 10, 0.1, 0.1),), 1, 10.0, 10)

    monkeypatch.setattr(proxy, "train", train)
    params = {name: values[0] for name, values in space.dimensions.items()}
    knob = next(name for name, values in space.dimensions.items() if {192, 256} <= set(values))
    for side in (192, 256):
        evaluator(digits, space.relative_size).evaluate(space.config({**params, knob: side}), seed=0)
    largest = space.image_size_max[0]
    assert sizes == [192, 256]
    assert shares == [192 / largest, 256 / largest]
    assert shares[0] < shares[1]


def test_a_network_too_large_to_build_is_that_candidates_failure(digits: ImageSet) -> None:
    stage = ConvStage(out_channels=8192, num_blocks=64, expand_ratio=16.0)
    result = evaluator(digits, lambda _: 1.0).evaluate(MobileViTConfig(stages=(stage,)), seed=0)
    assert result.value is None
    assert result.error is not None
    assert "not built" in result.error


@pytest.mark.parametrize(("fitted", "told"), [(RECIPE.batch_size, None), (8, 8)])
def test_the_batch_that_fitted_is_told_where_a_whole_one_did_not(
    digits: ImageSet, monkeypatch: pytest.MonkeyPatch, fitted: int, told: int | None
) -> None:
    result = proxy.ProxyResult((Rung(1, 0.5, 1.0, 10, 0.1, 0.1),), 1, 10.0, fitted)
    monkeypatch.setattr(proxy, "train", lambda *_, **__: result)
    assert evaluator(digits, lambda _: 1.0).evaluate(preset("mobilevit-xxs"), seed=0).largest_batch == told
