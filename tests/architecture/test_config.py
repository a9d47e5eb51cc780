import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvit_search.architecture import PRESETS, ConvStage, MobileViTConfig, parse_config, preset
from mvit_search.errors import InputError, UnknownNameError
from tests.random_configs import random_config


def _data(name: str = "mobilevit-s") -> dict:
    return PRESETS[name].model_dump(mode="json")


@given(st.randoms(use_true_random=False))
def test_json_round_trip_is_the_identity(rng):
    config = random_config(rng)
    again = parse_config(json.loads(config.canonical_json()))
    assert again == config
    assert again.digest() == config.digest()


def test_an_integral_float_is_the_same_candidate():
    data = _data()
    data["stages"][2]["out_channels"] = 96.0
    data["stages"][2]["expand_ratio"] = 4
    assert parse_config(data).digest() == PRESETS["mobilevit-s"].digest()


def test_any_changed_field_changes_the_digest():
    base = PRESETS["mobilevit-xs"]
    digests = {base.digest()}
    for index, stage in enumerate(base.stages):
        for field, value in stage.model_dump().items():
            if field in ("kind", "attention"):
                continue
            other = not value if isinstance(value, bool) else {"stride": 3 - value}.get(field, 2 * value)
            if field == "conv_kernel_size":
                other = 5
            data = base.model_dump()
            data["stages"][index][field] = other
            digests.add(parse_config(data).digest())
    assert len(digests) == 1 + 2 * 4 + 3 * 11


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transformer_dim": 145}, "stages.2.num_heads: transformer_dim 145 must be divisible by num_heads 4"),
        ({"transformer_dimm": 144}, "stages.2.transformer_dimm: unknown key; did you mean 'transformer_dim'?"),
        ({"conv_kernel_size": 4}, "stages.2.conv_kernel_size: conv_kernel_size 4 must be odd"),
        ({"num_layers": 0}, "stages.2.num_layers 0: input should be greater than or equal to 1"),
        ({"out_channels": "96"}, "stages.2.out_channels '96': input should be a valid integer"),
        ({"out_channels": 96.5}, "stages.2.out_channels 96.5: input should be a valid integer"),
        ({"num_layers": 10**9}, "stages.2.num_layers 1000000000: input should be less than or equal to 64"),
        ({"ffn_ratio": float("nan")}, "stages.2.ffn_ratio nan"),
        ({"ffn_ratio": 0.001}, "leaves no channel"),
        ({"patch_h": -1}, "stages.2.patch_h -1"),
        ({"num_blocks": 2}, "stages.2.num_blocks: a mobilevit stage has no num_blocks; it has kind, out_channels,"),
        ({"kind": "resnet"}, "stages.2.kind 'resnet': must be 'conv' or 'mobilevit'"),
        ({"attention": "linear"}, "stages.2.attention 'linear'"),
    ],
)
def test_what_cannot_be_built_cannot_be_constructed(change, message):
    data = _data()
    data["stages"][2].update(change)
    with pytest.raises(InputError) as caught:
        parse_config(data, source="my.yaml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("my.yaml: stages.2")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [None, [], "text", 4, {}, {"stages": []}, {"stages": 3}, {"image_size": [8, 8]}])
def test_a_document_of_another_shape_is_one_line(data):
    with pytest.raises(InputError) as caught:
        parse_config(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", ["[1, 2, 3]", [224], [], {"height": 224}, [64, 64, 64], True])
def test_an_image_size_of_another_shape_is_told_in_words(size):
    with pytest.raises(InputError, match=r"image_size.*: must be height and width in pixels, as \[256, 256\]"):
        parse_config({**_data(), "image_size": size})


def test_a_side_stands_for_the_square():
    assert parse_config({**_data(), "image_size": 224}) == parse_config({**_data(), "image_size": [224, 224]})


def test_a_rule_blames_a_field_that_is_there():
    data = _data()
    del data["stages"][2]["num_heads"]
    data["stages"][2]["transformer_dim"] = 145
    with pytest.raises(InputError, match=r"stages\.2\.transformer_dim: transformer_dim 145 must be divisible"):
        parse_config(data)


def test_a_missing_field_is_named():
    data = _data()
    del data["stages"][3]["transformer_dim"]
    with pytest.raises(InputError, match=r"stages\.3\.transformer_dim: is required"):
        parse_config(data)


def test_a_config_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        PRESETS["mobilevit-s"].stem_channels = 8


def test_the_head_is_capped_as_corenet_caps_it():
    wide = MobileViTConfig(stages=(ConvStage(out_channels=512),))
    assert wide.head_channels == 960
    assert PRESETS["mobilevit-s"].head_channels == 640


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'mobilevit-xs'"):
        preset("mobilevit_xs")
