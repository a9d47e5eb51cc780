"""The network equals transformers' MobileViT, weight for weight, and the key maps are strict."""

import pytest
import torch
from torch import Tensor, nn

from mvit_search.architecture import PRESETS, ConvStage, MobileViTConfig, MobileViTStage
from mvit_search.architecture.network import MobileViT
from mvit_search.architecture.weights import from_corenet, from_transformers, to_corenet, to_transformers
from mvit_search.errors import InputError

PARAMS = {"mobilevit-xxs": 1_272_024, "mobilevit-xs": 2_317_848, "mobilevit-s": 5_578_632}


def small_config() -> MobileViTConfig:
    return MobileViTConfig(
        stages=(
            ConvStage(out_channels=8, expand_ratio=1.0, stride=2),
            MobileViTStage(out_channels=16, transformer_dim=24, num_layers=1, fusion=False),
            MobileViTStage(out_channels=24, transformer_dim=32, num_layers=2),
        )
    )


def random_weights(network: nn.Module, seed: int) -> None:
    """Other values than a fresh network's, running statistics included: no two parts may pass for each other."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 2)
            if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
            elif isinstance(module, nn.Linear):
                module.weight.normal_(0, module.in_features**-0.5)
                module.bias.normal_(0, 0.1)
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)


def transformers_twin(config: MobileViTConfig) -> nn.Module:
    """transformers' network of the same shape, with random weights; nothing is downloaded."""
    transformers = pytest.importorskip("transformers")
    blocks = [stage for stage in config.stages if isinstance(stage, MobileViTStage)]
    settings = transformers.MobileViTConfig(
        hidden_sizes=[stage.transformer_dim for stage in blocks],
        neck_hidden_sizes=[
            config.stem_channels, *(stage.out_channels for stage in config.stages), config.head_channels,
        ],
        expand_ratio=blocks[0].expand_ratio,
        num_labels=1000,
    )  # fmt: skip
    network: nn.Module = transformers.MobileViTForImageClassification(settings).eval()
    random_weights(network, seed=1)
    return network


@pytest.mark.parametrize("name", PARAMS)
def test_logits_equal_those_of_transformers(name: str) -> None:
    config = PRESETS[name]
    twin = transformers_twin(config)
    network = MobileViT(config).eval()
    assert sum(p.numel() for p in network.parameters()) == PARAMS[name]
    assert sum(p.numel() for p in twin.parameters()) == PARAMS[name]

    network.load_state_dict(from_transformers(twin.state_dict(), config), strict=True)

    # 200 px gives 25, 13 and 7 px maps: the 2 x 2 patch divides none of them, so all are resized.
    for size in (256, 224, 200):
        images = torch.randn(1, 3, size, size)
        with torch.no_grad():
            ours, theirs = network(images), twin(images).logits
        assert theirs.std() > 0.05
        assert (ours - theirs).abs().max() < 1e-4, size


@pytest.mark.parametrize(("there", "back"), [(to_corenet, from_corenet), (to_transformers, from_transformers)])
def test_renaming_there_and_back_changes_nothing(there, back) -> None:
    config = small_config()
    network = MobileViT(config, num_classes=7)
    random_weights(network, seed=2)
    state = network.state_dict()

    returned = back(there(state, config), config)

    assert returned.keys() == state.keys()
    assert all(torch.equal(returned[key], value) for key, value in state.items())


def test_corenet_names_count_layers_from_one_and_the_last_norm_as_a_layer() -> None:
    renamed = to_corenet(MobileViT(small_config()).state_dict(), small_config())

    assert "layer_1.0.block.conv_3x3.block.conv.weight" in renamed
    assert "layer_1.0.block.exp_1x1.block.conv.weight" not in renamed  # ratio 1
    assert renamed["layer_3.1.global_rep.2.weight"].shape == (32,)
    assert not any(key.startswith("layer_2.1.fusion") for key in renamed)  # fusion off


def test_transformers_gets_query_key_and_value_apart() -> None:
    state = MobileViT(small_config()).state_dict()
    renamed = to_transformers(state, small_config())
    place = "mobilevit.encoder.layer.1.transformer.layer.0.attention.attention"
    parts: list[Tensor] = [renamed[f"{place}.{part}.weight"] for part in ("query", "key", "value")]

    assert torch.equal(torch.cat(parts), state["stages.1.1.transformer.0.attention.qkv.weight"])


def test_missing_and_surplus_keys_are_named() -> None:
    config = small_config()
    state = to_corenet(MobileViT(config).state_dict(), config)
    state["classifier.extra"] = state.pop("classifier.fc.bias")

    with pytest.raises(InputError, match=r"lacks classifier\.fc\.bias and has the unknown classifier\.extra"):
        from_corenet(state, config)


def test_another_networks_weights_name_a_few_keys_and_count_the_rest() -> None:
    with pytest.raises(InputError, match=r"lacks .*, .* and \d+ more"):
        from_corenet({}, small_config())
