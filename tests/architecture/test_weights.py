"""The network equals transformers' MobileViT and MobileViTV2, weight for weight; the key maps are strict."""

import random

import pytest
import torch
from random_weights import assert_same_logits, random_weights, two_images
from torch import Tensor, nn

from mvit_search.architecture import PRESETS, ConvStage, MobileViTConfig, MobileViTStage, preset
from mvit_search.architecture.network import MobileViT
from mvit_search.architecture.weight_names import LAYOUTS, Layout, layout_keys
from mvit_search.architecture.weights import (
    convert,
    from_corenet,
    from_timm,
    from_transformers,
    guess_layout,
    same_tensors,
    to_corenet,
    to_timm,
    to_transformers,
)
from mvit_search.errors import InputError, UnknownNameError
from tests.random_configs import random_config

V1 = {"mobilevit-xxs": 1_272_024, "mobilevit-xs": 2_317_848, "mobilevit-s": 5_578_632}
V2 = [name for name in PRESETS if name.startswith("mobilevitv2-")]


def small_config(**changes: object) -> MobileViTConfig:
    """Softmax stages without and with fusion; every ratio above 1, so that all libraries but transformers name it."""
    stages = (
        ConvStage(out_channels=8, stride=2),
        MobileViTStage(out_channels=16, transformer_dim=24, num_layers=1, fusion=False),
        MobileViTStage(out_channels=24, transformer_dim=32, num_layers=2),
    )
    return MobileViTConfig.model_validate({"stages": stages, **changes})


def mixed_config() -> MobileViTConfig:
    """Both kinds of attention, odd patches and kernels, and no last 1x1 convolution."""
    return MobileViTConfig(
        head_expansion=0,
        stages=(
            ConvStage(out_channels=8, num_blocks=2, stride=2),
            MobileViTStage(out_channels=16, transformer_dim=24, num_layers=1, patch_h=4, conv_kernel_size=5),
            MobileViTStage(out_channels=24, transformer_dim=8, attention="separable", fusion=False, patch_w=3),
        ),
    )


def with_stage(config: MobileViTConfig, index: int, **changes: object) -> MobileViTConfig:
    """The config with one stage changed."""
    stages = list(config.stages)
    stages[index] = stages[index].model_copy(update=changes)
    return config.model_copy(update={"stages": tuple(stages)})


def is_named(config: MobileViTConfig, layout: Layout) -> bool:
    """False where the layout refuses a stage or the head; any other error is a defect, which the caller meets."""
    try:
        layout_keys(config, layout)
    except InputError as error:
        return not error.field.startswith(("stages.", "head_expansion"))
    return True


def random_state(config: MobileViTConfig, num_classes: int = 7) -> dict[str, Tensor]:
    return dict(random_weights(MobileViT(config, num_classes), seed=2).state_dict())


def transformers_twin(config: MobileViTConfig) -> nn.Module:
    """transformers' network of the same shape, with random weights; nothing is downloaded."""
    transformers = pytest.importorskip("transformers")
    blocks = [stage for stage in config.stages if isinstance(stage, MobileViTStage)]
    if blocks[0].attention == "separable":
        settings = transformers.MobileViTV2Config(width_multiplier=blocks[-1].out_channels / 512, num_labels=1000)
        return random_weights(transformers.MobileViTV2ForImageClassification(settings), seed=1)
    settings = transformers.MobileViTConfig(
        hidden_sizes=[stage.transformer_dim for stage in blocks],
        neck_hidden_sizes=[
            config.stem_channels, *(stage.out_channels for stage in config.stages), config.head_channels,
        ],
        expand_ratio=blocks[0].expand_ratio,
        num_labels=1000,
    )  # fmt: skip
    return random_weights(transformers.MobileViTForImageClassification(settings), seed=1)


@pytest.mark.parametrize("name", PRESETS)
def test_logits_equal_those_of_transformers(name: str) -> None:
    config = preset(name)
    twin = transformers_twin(config)
    network = MobileViT(config).eval()
    assert sum(p.numel() for p in twin.parameters()) == sum(p.numel() for p in network.parameters())
    assert name in V2 or sum(p.numel() for p in network.parameters()) == V1[name]

    network.load_state_dict(from_transformers(twin.state_dict(), config), strict=True)

    # 200 px gives 25, 13 and 7 px maps: the 2 x 2 patch divides none of them, so all are resized. transformers'
    # MobileViTV2 does not resize but leaves the last row and column out, which the paper's code does not.
    for size in ((256, 256), (224, 200)) if name in V1 else ((256, 256), (192, 128)):
        images = two_images(*size)
        with torch.no_grad():
            assert_same_logits(network(images), twin(images).logits)
    assert same_tensors(to_transformers(network.state_dict(), config), twin.state_dict())


@pytest.mark.parametrize(("there", "back"), [(to_corenet, from_corenet), (to_timm, from_timm)])
@pytest.mark.parametrize("config", [small_config(), mixed_config()], ids=["small", "mixed"])
def test_renaming_there_and_back_changes_nothing(there, back, config) -> None:
    state = random_state(config)

    assert same_tensors(back(there(state, config), config), state)


def test_whatever_a_layout_can_name_comes_back_the_same() -> None:
    """Random networks of every field: a layout gives them all back, or says which stage it cannot name."""
    rng = random.Random(5)
    named = dict.fromkeys(LAYOUTS, 0)
    for _ in range(40):
        config = random_config(rng)
        state = random_state(config, num_classes=rng.randint(1, 9))
        for layout in filter(lambda layout: is_named(config, layout), LAYOUTS):
            named[layout] += 1
            there = convert(state, config, "ours", layout).state_dict
            assert there.keys() == {key for keys in layout_keys(config, layout) for key in keys}
            assert same_tensors(convert(there, config, layout, "ours").state_dict, state)
    assert named["ours"] == 40
    assert min(named.values()) > 1, named


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["mobilevit-xxs", "mobilevitv2-0.5"])
def test_the_layout_is_told_by_the_keys(layout, name) -> None:
    config = preset(name)
    state = convert(random_state(config), config, "ours", layout).state_dict
    del state[next(key for key in state if key.endswith("num_batches_tracked"))]

    guess = guess_layout(state, config)

    assert guess.layout == layout
    assert guess.matched == guess.expected


def test_keys_of_no_layout_are_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"none of the known layouts \(ours, .*transformers\) of this config; is it"):
        guess_layout({"features.0.weight": torch.ones(3)}, small_config())
    state = to_timm(random_state(small_config()), small_config())
    with pytest.raises(InputError, match=r"timm comes nearest with \d+ of \d+ keys"):
        guess_layout(state, preset("mobilevit-s"))


def test_corenet_names_count_layers_from_one_and_the_last_norm_as_a_layer() -> None:
    config = with_stage(small_config(), 0, expand_ratio=1.0)
    renamed = to_corenet(random_state(config), config)

    assert "layer_1.0.block.conv_3x3.block.conv.weight" in renamed
    assert "layer_1.0.block.exp_1x1.block.conv.weight" not in renamed  # ratio 1
    assert renamed["layer_3.1.global_rep.2.weight"].shape == (32,)
    assert not any(key.startswith("layer_2.1.fusion") for key in renamed)  # fusion off
    assert renamed["classifier.fc.weight"].shape == (7, 96)


def test_corenet_names_of_the_second_version() -> None:
    config = mixed_config()
    renamed = to_corenet(random_state(config), config)

    assert renamed["layer_3.1.global_rep.0.pre_norm_attn.1.qkv_proj.block.conv.weight"].shape == (17, 8, 1, 1)
    assert renamed["layer_3.1.local_rep.0.block.conv.weight"].shape == (24, 1, 3, 3)
    assert renamed["layer_2.1.local_rep.conv_3x3.block.conv.weight"].shape == (16, 16, 5, 5)
    assert renamed["classifier.1.weight"].shape == (7, 24)


def test_transformers_gets_query_key_and_value_apart() -> None:
    config = preset("mobilevit-xxs")
    state = random_state(config)
    renamed = to_transformers(state, config)
    place = "mobilevit.encoder.layer.2.transformer.layer.0.attention.attention"
    parts = [renamed[f"{place}.{part}.weight"] for part in ("query", "key", "value")]

    assert torch.equal(torch.cat(parts), state["stages.2.1.transformer.0.attention.qkv.weight"])
    assert len({part.untyped_storage().data_ptr() for part in parts}) == 3


S, V2_HALF = preset("mobilevit-s"), preset("mobilevitv2-0.5")


@pytest.mark.parametrize(
    ("config", "layout", "message"),
    [
        (with_stage(S, 1, expand_ratio=1.0), "timm",
         r"stages\.1\.expand_ratio 1\.0: timm's inverted residual always has its first 1x1"),
        (with_stage(S, 1, expand_ratio=1.0), "transformers", r"stages\.1\.expand_ratio 1\.0: transf"),
        (with_stage(V2_HALF, 3, fusion=True), "timm", r"stages\.3\.fusion True: timm's block with sep"),
        (with_stage(V2_HALF, 3, fusion=True), "corenet", r"stages\.3\.fusion True: CoreNet's block"),
        (with_stage(S, 4, fusion=False), "transformers", r"stages\.4\.fusion False: .* always has"),
        (with_stage(S, 3, attention="separable", num_heads=1), "transformers",
         r"stages\.3\.attention 'separable': transformers has no network with both kinds, and stages\.2 is softmax"),
        (S.model_copy(update={"head_expansion": 0.0}), "transformers", r"head_expansion 0\.0: .* always has"),
        (V2_HALF.model_copy(update={"head_expansion": 2.0}), "transformers", r"head_expansion 2\.0: .*V2 has no"),
    ],
)  # fmt: skip
def test_what_a_library_has_no_block_for_is_refused_with_the_stage_and_the_rule(config, layout, message) -> None:
    with pytest.raises(InputError, match=message):
        convert({}, config, "ours", layout)


def test_unknown_layout() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'timm'"):
        convert({}, small_config(), "tim", "ours")  # type: ignore[arg-type]


def test_missing_and_surplus_keys_are_named() -> None:
    config = small_config()
    state = to_corenet(random_state(config), config)
    state["classifier.extra"] = state.pop("classifier.fc.bias")

    with pytest.raises(InputError, match=r"lacks classifier\.fc\.bias and has the unknown classifier\.extra"):
        from_corenet(state, config)


def test_another_networks_weights_name_a_few_keys_and_count_the_rest() -> None:
    with pytest.raises(InputError, match=r"lacks .*, .* and \d+ more"):
        from_corenet({}, small_config())


def test_another_shape_names_the_key_and_both_shapes() -> None:
    state = to_timm(random_state(small_config()), small_config())
    wider = with_stage(small_config(), 1, ffn_ratio=3.0)

    with pytest.raises(InputError, match=r"'stages\.1\.1\.[^']*mlp.fc1.weight': has the shape \(48, 24\), .* \(72, 24"):
        from_timm(state, wider)


def test_a_third_of_a_split_matrix_of_another_shape_is_named() -> None:
    config = preset("mobilevit-xxs")
    state = to_transformers(random_state(config), config)
    key = "mobilevit.encoder.layer.2.transformer.layer.0.attention.attention.key.weight"

    with pytest.raises(InputError, match=r"attention\.key\.weight': has the shape \(64, 32\), .* \(64, 64\)"):
        from_transformers({**state, key: torch.ones(64, 32)}, config)
    with pytest.raises(InputError, match=r"query\.weight': and the tensors it is joined with hold torch\.float16 and"):
        from_transformers({**state, key: state[key].half()}, config)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.ones(7), r"shape \(7,\), which is not \(classes, channels\)"),
        (torch.ones(0, 96), r"shape \(0, 96\), which is not"),
        (torch.ones(7, 96, dtype=torch.int8), r"holds torch\.int8 and not floating-point"),
        (torch.ones(7, 96).to_sparse(), "is not a plain tensor"),
        (torch.ones(7, 96, device="meta"), "is not a plain tensor"),
    ],
    ids=["vector", "no classes", "integers", "sparse", "meta"],
)
def test_tensors_that_are_no_weights_are_refused(tensor, message) -> None:
    with pytest.raises(InputError, match=message):
        convert({**random_state(small_config()), "head.classifier.weight": tensor}, small_config(), "ours", "corenet")


def test_missing_counters_become_zero_and_are_reported() -> None:
    config = small_config()
    state = to_timm(random_state(config), config)
    bare = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}

    result = convert(bare, config, "timm", "ours")

    assert len(result.filled) == len(state) - len(bare)
    assert all(result.state_dict[key].item() == 0 for key in result.filled)
    MobileViT(config, result.num_classes).load_state_dict(result.state_dict, strict=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype_and_random_state_stay(dtype) -> None:
    config = preset("mobilevit-xxs").with_image_size(64)
    state = {key: value.to(dtype) if value.is_floating_point() else value
             for key, value in random_state(config, num_classes=3).items()}  # fmt: skip
    before = torch.get_rng_state()

    there = convert(state, config, "ours", "transformers").state_dict

    assert torch.equal(torch.get_rng_state(), before)
    assert {value.dtype for value in there.values()} == {dtype, torch.int64}
    assert same_tensors(convert(there, config, "transformers", "ours").state_dict, state)


def test_a_nan_is_the_same_as_itself_and_other_bits_are_not() -> None:
    nan = {"a": torch.tensor([float("nan"), 1.0])}

    assert same_tensors(nan, {"a": nan["a"].clone()})
    assert not same_tensors(nan, {"a": torch.zeros(2)})
    assert not same_tensors(nan, {"a": nan["a"].half()})
    assert not same_tensors(nan, {"b": nan["a"]})
