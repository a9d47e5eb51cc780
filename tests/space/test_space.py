import random

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


@pytest.mark.parametrize("name", SPACES)
def test_fifty_draws_make_the_round_trip(name):
    space = load_space(name)
    rng = random.Random(0)
    for _ in range(50):
        params = space.draw(rng)
        config = space.config(params)
        assert space.params(config) == params
        assert config in space
        assert config.image_size == space.spec.image_size


@pytest.mark.parametrize("name", SPACES)
def test_a_draw_can_be_built(name):
    space = load_space(name)
    config = space.config(space.draw(random.Random(1)))
    assert sum(p.numel() for p in MobileViT(config).parameters()) == cost(config).params


@given(st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_no_candidate_is_smaller_than_the_smallest(rng):
    space = load_space("mobilevit")
    config = space.config(space.draw(rng))
    assert params_of(config) >= params_of(space.smallest())


@given(st.randoms(use_true_random=False), st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_scaling_is_monotone_and_spans_from_the_draw_to_the_smallest(rng, a, b):
    space = load_space("mobilevit")
    params = space.draw(rng)
    low, high = sorted((a, b))
    sizes = [params_of(space.config(space.scaled(params, share))) for share in (0.0, low, high, 1.0)]
    assert sizes == sorted(sizes)
    assert sizes[0] == params_of(space.smallest())
    assert space.scaled(params, 1.0) == params


def test_the_default_space_is_large_and_contains_the_published_networks():
    space = load_space("mobilevit")
    assert space.size() >= 10**12
    assert all(config in space for config in PRESETS.values())


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


def test_odd_params_are_named():
    space = load_space("mobilevit-mini")
    params = space.draw(random.Random(0))
    with pytest.raises(InputError, match=r"stages.2.num_heads: is missing"):
        space.config({k: v for k, v in params.items() if k != "stages.2.num_heads"})
    with pytest.raises(InputError, match="bogus: is not a dimension"):
        space.config({**params, "bogus": 1})
    with pytest.raises(InputError, match=r"stages.2.num_heads 3: must be one of \[2, 4\]"):
        space.config({**params, "stages.2.num_heads": 3})


MINI = (bundled("search_spaces") / "mobilevit-mini.yaml").read_text()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("num_heads:", "num_head:", "stages.2.num_head: unknown key; did you mean 'num_heads'?"),
        ("{choices: [2, 4]}", "{choice: [2, 4]}", "stages.2.num_heads.choice: unknown key; did you mean 'choices'?"),
        ("{choices: [2, 4]}", "{choices: []}", "stages.2.num_heads.choices: tuple should have at least 1 item"),
        ("{choices: [2, 4]}", "{choices: [2, 2]}", "choices must not repeat"),
        ("{choices: [2, 4]}", "{choices: [2, 5]}", "transformer_dim 32 must be divisible by num_heads 5"),
        ("{choices: [2, 4]}", "{low: 4, high: 2}", "high 2 must not be below low 4"),
        ("{choices: [2, 4]}", "{low: 2, high: 5, step: 2}", "step 2 must divide high - low = 3"),
        ("{choices: [2, 4]}", "{low: 2}", "stages.2.num_heads.high: is required"),
        ("{choices: [2, 4]}", "{low: 1, high: 100000}", "at most 1000 values"),
        ("{choices: [2, 4]}", "two", "num_heads 'two': input should be a valid integer"),
        ("activation: silu", "activation: gelu", "activation 'gelu'"),
        ("image_size: [64, 64]", "image_size: [64]", "image_size.1: is required"),
        ("kind: conv", "kind: convolution", "kind 'convolution': must be 'conv' or 'mobilevit'"),
        ("stem_channels: 16", "stem_channels: 16\nstem_channels: 8", "the key 'stem_channels' is given twice"),
        ("stem_channels: 16", "stem_channels: [16", "is not valid YAML"),
        ("stem_channels: 16", "stem_channels: !!python/object/apply:os.system ['true']", "is not valid YAML"),
        (MINI, "", "must be a mapping"),
        (MINI, "- a\n- b\n", "must be a mapping"),
    ],
)
def test_a_broken_file_is_one_line_that_names_file_and_field(tmp_path, old, new, message):
    path = tmp_path / "mine.yaml"
    path.write_text(MINI.replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        load_space(str(path))
    assert message in str(caught.value)
    assert "mine.yaml" in str(caught.value) or "space mine" in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_text_is_a_space_or_an_input_error(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("space") / "any.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError):
        load_space(str(path))


def test_unknown_and_missing_spaces():
    with pytest.raises(UnknownNameError, match="did you mean 'mobilevit'"):
        load_space("mobilvit")
    with pytest.raises(InputError, match="there is no such file"):
        load_space("nowhere/space.yaml")
