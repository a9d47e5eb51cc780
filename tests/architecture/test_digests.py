"""A digest is a candidate's identity in every record: it must outlive the code that made it."""

import json

import pytest

from mvit_search.architecture import PRESETS, MobileViTConfig, parse_config

DIGESTS = {
    "mobilevit-xxs": "f4ccf5e2d38aebcd",
    "mobilevit-xs": "dce6e7a6dca8f672",
    "mobilevit-s": "788b9e6594941a83",
    "mobilevitv2-0.5": "bfaa90b911db2a5e",
    "mobilevitv2-0.75": "6a4f78a97c674f61",
    "mobilevitv2-1.0": "9e37ce9b614ac585",
    "mobilevitv2-1.25": "b99e90c137accf9e",
    "mobilevitv2-1.5": "b43afd13f6a50edb",
    "mobilevitv2-1.75": "dd551db72981ecee",
    "mobilevitv2-2.0": "b3239bfa52571d6f",
}

WRITTEN_BEFORE_VERSION_2 = """{"activation":"silu","head_expansion":4.0,"image_size":[256,256],
"stages":[{"expand_ratio":2.0,
"kind":"conv","num_blocks":1,"out_channels":16,"stride":1},
{"attention":"softmax","conv_kernel_size":3,"expand_ratio":2.0,
"ffn_ratio":2.0,"fusion":true,
"kind":"mobilevit","num_heads":4,"num_layers":2,"out_channels":48,"patch_h":2,"patch_w":2,
"stride":2,"transformer_dim":64}],"stem_channels":16}"""


@pytest.mark.parametrize("name", PRESETS)
def test_a_presets_digest_never_changes(name: str) -> None:
    assert PRESETS[name].digest()[:16] == DIGESTS[name]


def test_a_config_written_before_version_2_is_the_same_candidate() -> None:
    config = parse_config(json.loads(WRITTEN_BEFORE_VERSION_2))
    assert config.digest()[:16] == "8e06e84cea9daf94"
    assert json.loads(config.canonical_json()) == json.loads(WRITTEN_BEFORE_VERSION_2)


def test_equal_configs_have_one_digest() -> None:
    data = PRESETS["mobilevitv2-0.5"].model_dump(mode="json")
    negative = parse_config({**data, "head_expansion": -0.0})
    assert negative == PRESETS["mobilevitv2-0.5"]
    assert negative.digest() == PRESETS["mobilevitv2-0.5"].digest()


def test_a_changed_copy_does_not_keep_the_digest() -> None:
    config: MobileViTConfig = PRESETS["mobilevit-s"]
    before = config.digest()
    copy = config.model_copy(update={"image_size": (64, 64)})
    assert copy.digest() != before
    assert copy.digest() == config.with_image_size(64).digest()
