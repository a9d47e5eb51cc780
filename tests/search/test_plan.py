"""What a run prepares from its settings: how many images, which recipe."""

from pathlib import Path

import pytest

from mvit_search.errors import InputError
from mvit_search.proxy import default_recipe
from mvit_search.search import parse_settings, prepare

RUN = {"budget": 6_000_000, "target": "iphone12"}


@pytest.mark.parametrize(
    ("settings", "images"),
    [({"data": "shapes:6000"}, 5000), ({"data": "shapes:6000", "data_fraction": 1.0}, 6000),
     ({"data": "shapes:6000", "images": 200}, 200), ({"data": "shapes:300"}, 300), ({}, 899)],
    ids=lambda value: str(value),
)  # fmt: skip
def test_a_proxy_stays_a_proxy_on_a_large_set(settings: dict[str, object], images: int) -> None:
    plan = prepare(parse_settings({**RUN, **settings}))
    assert plan.data is not None
    assert len(plan.data.train_images) == images


def test_a_recipe_comes_from_a_file_and_options_override_it(tmp_path: Path) -> None:
    recipe = default_recipe("digits").changed(epochs=7, ema_decay=0.9)
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.to_yaml())
    assert prepare(parse_settings({**RUN, "recipe": str(path)})).recipe == recipe
    plan = prepare(parse_settings({**RUN, "recipe": str(path), "epochs": 3, "proxy_size": 20}))
    assert plan.recipe == recipe.changed(epochs=3, image_size=20)
    assert plan.pins()["recipe"] == plan.recipe.digest()[:12]


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"recipe": "no-such.yaml"}, "no-such.yaml"), ({"proxy_size": 2000}, "image_size"),
     ({"images": 20}, "fewer than a batch")],
)  # fmt: skip
def test_what_cannot_be_trained_is_told_before_the_search(settings: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        prepare(parse_settings({**RUN, **settings}))
