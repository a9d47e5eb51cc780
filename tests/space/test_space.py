import itertools
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, IntDistribution

from mvit_search._files import bundled
from mvit_search.architecture import PRESETS
from mvit_search.architecture.network import MobileViT
from mvit_search.errors import InputError, UnknownNameError
from mvit_search.profile import cost
from mvit_search.profile.cost import params_of
from mvit_search.space import load_space, space_names

SPACES = space_names()
LOADED = {name: load_space(name) for name in SPACES}


@pytest.mark.parametrize("name", SPACES)
def test_fifty_draws_make_the_round_trip(name):
    space = load_space(name)
    rng = random.Random(0)
    for _ in range(50):
        params = space.draw(rng)
        config = space.config(params)
        assert space.params(config) == params
        assert config in space
        assert config.image_size in space.image_sizes
        assert space.config(dict(reversed(params.items()))) == config


@pytest.mark.parametrize("name", SPACES)
def test_a_draw_can_be_built(name):
    space = load_space(name)
    config = space.config(space.draw(random.Random(1)))
    assert sum(p.numel() for p in MobileViT(config).parameters()) == cost(config).params


@given(st.randoms(use_true_random=False), st.sampled_from(SPACES))
@settings(max_examples=60, deadline=None)
def test_no_candidate_is_smaller_than_the_smallest(rng, name):
    space = LOADED[name]
    config = space.config(space.draw(rng))
    assert params_of(config) >= params_of(space.smallest())


@given(st.randoms(use_true_random=False), st.floats(0, 1), st.floats(0, 1), st.sampled_from(SPACES))
@settings(max_examples=60, deadline=None)
def test_scaling_is_monotone_and_spans_from_the_draw_to_the_smallest(rng, a, b, name):
    space = LOADED[name]
    params = space.draw(rng)
    low, high = sorted((a, b))
    sizes = [params_of(space.config(space.scaled(params, share))) for share in (0.0, low, high, 1.0)]
    assert sizes == sorted(sizes)
    assert sizes[0] == params_of(space.smallest())
    assert space.scaled(params, 1.0) == params


def test_the_default_space_is_large_and_contains_the_published_networks():
    space = load_space("mobilevit")
    assert space.size() >= 10**12
    assert all(PRESETS[f"mobilevit-{size}"] in space for size in ("xxs", "xs", "s"))


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("mobilevit", ["mobilevit-xxs", "mobilevit-xs", "mobilevit-s"]),
        ("mobilevit-compound", ["mobilevit-s"]),
        ("mobilevit-mini", []),
        ("mobilevit-patch", ["mobilevit-xxs", "mobilevit-xs", "mobilevit-s"]),
        ("mobilevit-v2", [name for name in PRESETS if name.startswith("mobilevitv2-")]),
    ],
)
def test_every_space_contains_the_published_networks_that_it_says(name, inside):
    space = load_space(name)
    assert [preset for preset, config in PRESETS.items() if config in space] == inside


def test_the_patch_space_contains_the_papers_ablation():
    """Tables 6 and 9: MobileViT-S and XS with patches 2,2,2 and 3,3,3 and 4,4,4 and 8,4,2."""
    space = load_space("mobilevit-patch")
    for size, patches in itertools.product(("xs", "s"), ((2, 2, 2), (3, 3, 3), (4, 4, 4), (8, 4, 2))):
        base = PRESETS[f"mobilevit-{size}"]
        stages = [
            stage if patch is None else stage.model_copy(update={"patch_h": patch, "patch_w": patch})
            for stage, patch in zip(base.stages, (None, None, *patches), strict=True)
        ]
        config = base.model_copy(update={"stages": tuple(stages)})
        assert space.config(space.params(config)) == config
    rectangular = base.stages[2].model_copy(update={"patch_w": 4})
    with pytest.raises(InputError, match=r"stages.2.patch_w 4: .* with stages.2.patch_h 2"):
        space.params(base.model_copy(update={"stages": (*base.stages[:2], rectangular, *base.stages[3:])}))


def test_the_compound_space_varies_the_resolution():
    space = load_space("mobilevit-compound")
    assert space.image_size_max == (320, 320)
    assert space.image_sizes[0] == (160, 160)
    params = {"width": 1.0, "depth": 1.0, "dim": 1.0, "resolution": 160}
    config = space.config(params)
    assert config == PRESETS["mobilevit-s"].with_image_size(160)
    assert space.params(config) == params
    assert space.relative_size(config) == 0.5


@pytest.mark.parametrize(
    ("name", "digest", "size"),
    [("mobilevit", "095bc27d364b", 109066698712984320000000), ("mobilevit-mini", "3f8987527d60", 1296)],
)
def test_the_first_spaces_keep_their_identity(name, digest, size):
    """Runs are pinned to a digest: a new form of field must not change that of a file that does not use it."""
    space = load_space(name)
    assert space.digest().startswith(digest)
    assert space.size() == size


def test_optuna_sees_ranges_as_integers_and_the_rest_as_categories():
    distributions = load_space("mobilevit").distributions()
    assert distributions["stages.3.num_layers"] == IntDistribution(1, 6)
    assert distributions["stages.2.patch_h"] == CategoricalDistribution((2, 4, 8))
    assert "activation" not in distributions


def test_the_digest_follows_content_not_description(tmp_path):
    text = (bundled("search_spaces") / "mobilevit-mini.yaml").read_text()
    same, other = tmp_path / "same.yaml", tmp_path / "other.yaml"
    same.write_text(text.replace("Small MobileViTs", "Tiny MobileViTs") + "\n# a comment\n")
    other.write_text(text.replace("{choices: [32, 48, 64]}", "{choices: [32, 48, 56]}"))
    base = load_space("mobilevit-mini").digest()
    assert load_space(str(same)).digest() == base
    assert load_space(str(other)).digest() != base


def test_a_config_outside_says_by_what():
    with pytest.raises(InputError, match=r"space mobilevit-mini has \(64, 64\)"):
        load_space("mobilevit-mini").params(PRESETS["mobilevit-s"])
    with pytest.raises(InputError, match=r"stages .* space mobilevit-mini has"):
        load_space("mobilevit-mini").params(PRESETS["mobilevit-s"].with_image_size(64))
    with pytest.raises(InputError, match=r"stages.2.out_channels 48: .*; no one width gives this and the fields"):
        load_space("mobilevit-compound").params(PRESETS["mobilevit-xxs"])


def test_loading_and_building_are_quick():
    """Bounds ten times what an idle machine takes: nothing here may grow with the number of candidates."""
    start = time.perf_counter()
    space = load_space("mobilevit")
    loaded = time.perf_counter()
    rng = random.Random(0)
    for _ in range(200):
        space.config(space.draw(rng))
    assert loaded - start < 0.5
    assert time.perf_counter() - loaded < 200 * 0.001


def test_odd_params_are_named():
    space = load_space("mobilevit-mini")
    params = space.draw(random.Random(0))
    with pytest.raises(InputError, match=r"stages.2.num_heads: is missing"):
        space.config({k: v for k, v in params.items() if k != "stages.2.num_heads"})
    with pytest.raises(InputError, match="bogus: is not a dimension"):
        space.config({**params, "bogus": 1})
    with pytest.raises(InputError, match=r"stages.2.num_heads 3: must be one of \[2, 4\]"):
        space.config({**params, "stages.2.num_heads": 3})


def test_unknown_and_missing_spaces():
    with pytest.raises(UnknownNameError, match="did you mean 'mobilevit'"):
        load_space("mobilvit")
    with pytest.raises(InputError, match="there is no such file"):
        load_space("nowhere/space.yaml")
