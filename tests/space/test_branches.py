"""Small random spaces with knobs, ties and conditions, against going through all of their candidates."""

import itertools
import random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mvit_search.errors import InputError
from mvit_search.profile.cost import params_of
from mvit_search.space import SearchSpace
from mvit_search.space.checking import evaluated
from mvit_search.space.schema import SpaceSpec
from mvit_search.space.wiring import wire

BASE = {
    "description": "random", "image_size": [64, 64], "stem_channels": 8, "head_expansion": 2, "activation": "silu",
}  # fmt: skip
CONV = {"kind": "conv", "out_channels": 8, "num_blocks": 1, "stride": 2, "expand_ratio": 2}
BLOCK = {
    "kind": "mobilevit", "out_channels": 8, "stride": 2, "expand_ratio": 2, "transformer_dim": 16, "num_layers": 1,
    "num_heads": 1, "ffn_ratio": 1, "patch_h": 2, "patch_w": 2, "conv_kernel_size": 3,
}  # fmt: skip


def _conditional(rng: random.Random, form: dict, otherwise: object, knobs: bool) -> dict:
    conditions = [{"attention": "softmax"}, {"attention": "separable"}, {"fusion": True}, {"stages.0.num_blocks": 1}]
    conditions += [{"a": [1, 3]}, {"a": 2, "b": "small"}, {"num_layers": 1}] if knobs else []
    return {**form, "when": rng.choice(conditions), "otherwise": otherwise}


def random_spec(rng: random.Random) -> SpaceSpec:
    """A space of at most some thousand assignments; not every one is sound."""
    knobs = rng.random() < 0.6
    block = {**BLOCK, "attention": {"choices": ["softmax", "separable"]}, "fusion": {"choices": [True, False]}}
    forms = {
        "out_channels": [{"choices": [16, 8]}, {"low": 8, "high": 24, "step": 8}, {"field": "stages.0.out_channels"}],
        "transformer_dim": [{"choices": [16, 32]}, {"field": "out_channels", "times": 2}, 32],
        "num_layers": [{"low": 1, "high": 2}, 1, {"choices": [3, 1]}],
        "ffn_ratio": [{"choices": [2, 0.5]}, 1.5],
        "patch_h": [{"choices": [2, 4]}, {"field": "patch_w"}],
    }
    if knobs:
        forms["num_layers"] += [{"knob": "a"}, {"knob": "b", "table": {"small": 2, "large": 1}}]
        forms["ffn_ratio"] += [{"knob": "a", "times": 0.5}, {"knob": "b", "table": {"small": 1, "large": 2}}]
        forms["out_channels"] += [{"knob": "a", "times": 8}, {"knob": "a", "times": 5, "divisor": 8}]
    for name, options in forms.items():
        form = rng.choice(options)
        if isinstance(form, dict) and rng.random() < 0.4:
            form = _conditional(
                rng, form, {"out_channels": 16, "transformer_dim": 16, "patch_h": 3}.get(name, 2), knobs
            )
        block[name] = form
    heads = rng.choice([{"choices": [1, 2, 4]}, {"choices": [2, 4]}])
    block["num_heads"] = {**heads, "when": {"attention": "softmax"}, "otherwise": 1}
    spec = {**BASE, "stages": [{**CONV, "num_blocks": {"low": 1, "high": 2}}, block]}
    spec["head_expansion"] = rng.choice([2, {"choices": [0, 0.5, 3]}, {"choices": [0, 1]}])
    if knobs:
        spec["knobs"] = {"a": {"low": 1, "high": 3}, "b": {"choices": ["small", "large"]}}
    return SpaceSpec.model_validate(spec)


def _space(rng: random.Random) -> SearchSpace:
    try:
        return SearchSpace("random", random_spec(rng))
    except InputError as error:
        # An unused knob, a circle, heads that do not divide: nothing to go through.
        assume(not error)
        raise


@given(st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_size_smallest_and_identity_agree_with_going_through_all(rng):
    space = _space(rng)
    assume(space.size() <= 500)
    wiring = wire(space.spec)
    free = {key: node.values for key, node in wiring.items() if node.source is None}
    assignments, configs = set(), {}
    for values in itertools.product(*free.values()):
        chosen = dict(zip(free, values, strict=True))
        flat = evaluated(dict(chosen), list(wiring.values()))
        assignments.add(tuple(v if wiring[key].active(flat) else free[key][0] for key, v in chosen.items()))
        params = {key: chosen[key] for key in space.dimensions}
        config = space.config(params)
        spelled = space.params(config)
        assert space.config(spelled) == config
        assert configs.setdefault(config, spelled) == spelled
    assert space.size() == len(assignments) >= len(configs)
    assert params_of(space.smallest()) == min(map(params_of, configs))


@given(st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_draws_are_canonical_and_scale_down_to_the_smallest(rng):
    space = _space(rng)
    for _ in range(5):
        params = space.draw(rng)
        assert space.params(space.config(params)) == params
        assert params.keys() == space.dimensions.keys()
        sizes = [params_of(space.config(space.scaled(params, share))) for share in (0, 0.2, 0.5, 0.7, 0.9, 1)]
        assert sizes == sorted(sizes)
        assert sizes[0] == params_of(space.smallest())
        assert space.scaled(params, 1.0) == params


def test_what_a_condition_leaves_out_is_no_part_of_the_size():
    block = {
        **BLOCK, "attention": {"choices": ["softmax", "separable"]},
        "num_heads": {"choices": [1, 2, 4], "when": {"attention": "softmax"}, "otherwise": 1},
    }  # fmt: skip
    space = SearchSpace("x", SpaceSpec.model_validate({**BASE, "stages": [block]}))
    assert space.size() == 3 + 1
    separable = {"stages.0.attention": "separable", "stages.0.num_heads": 4}
    assert space.params(space.config(separable)) == {**separable, "stages.0.num_heads": 1}
    assert set(space.distributions()) == set(separable)


def test_size_stays_quick_and_exact_where_many_conditions_meet():
    stages = [
        {
            **CONV,
            "stride": 1,
            "num_blocks": {"low": 1, "high": 64, "when": {"a": list(range(i, 481, 16))}, "otherwise": 2},
        }
        for i in range(1, 13)
    ]
    spec = {**BASE, "knobs": {"a": {"low": 1, "high": 480}}, "stages": stages}
    space = SearchSpace("x", SpaceSpec.model_validate(spec))
    # 16 values of `a` in a round: 12 of them open one dimension each, the other 4 none.
    assert space.size() == 30 * (12 * 64 + 4)


def test_what_costs_nothing_stays_at_every_share():
    block = {
        **BLOCK, "num_heads": {"choices": [1, 2, 4]}, "patch_h": {"choices": [2, 4]}, "patch_w": {"field": "patch_h"},
        "transformer_dim": {"knob": "a", "times": 16}, "conv_kernel_size": {"field": "stride", "table": {1: 3, 2: 5}},
        "stride": {"choices": [1, 2]},
    }  # fmt: skip
    spec = {**BASE, "image_size": {"choices": [64, 96]}, "knobs": {"a": {"low": 1, "high": 3}}, "stages": [block]}
    space = SearchSpace("x", SpaceSpec.model_validate(spec))
    free = {"image_size": 96, "stages.0.num_heads": 4, "stages.0.patch_h": 4}
    for share in (0, 0.3):
        assert space.scaled({**free, "a": 3, "stages.0.stride": 2}, share) == {**free, "a": 1, "stages.0.stride": 1}


def test_assignments_are_all_there_are_and_leave_out_what_decides_nothing():
    block = {
        **BLOCK, "attention": {"choices": ["softmax", "separable"]},
        "num_heads": {"choices": [2, 4], "when": {"attention": "softmax"}, "otherwise": 1},
    }  # fmt: skip
    space = SearchSpace("x", SpaceSpec.model_validate({**BASE, "stages": [block]}))
    listed = list(space.assignments())
    assert len({space.config(params).digest() for params in listed}) == len(listed) == space.size() == 3
    assert space.box_size == 4
    assert [len(space.taking_part(params)) for params in listed] == [2, 1, 2]


@pytest.mark.parametrize("rises", [True, False])
def test_a_knob_of_words_scales_only_if_it_rises(rises):
    table = {"s": 8, "m": 16, "l": 24} if rises else {"s": 16, "m": 8, "l": 24}
    stage = {**CONV, "out_channels": {"knob": "size", "table": table}}
    spec = {**BASE, "knobs": {"size": {"choices": ["s", "m", "l"]}}, "stages": [stage]}
    space = SearchSpace("x", SpaceSpec.model_validate(spec))
    assert space.smallest().stages[0].out_channels == 8
    assert space.scaled({"size": "l"}, 0.5) == {"size": "m" if rises else "l"}
