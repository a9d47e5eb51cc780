"""The part of CoreNet that an exported plugin touches, with CoreNet's own signatures, recording what it is told."""

import argparse
from types import ModuleType
from typing import Any

from torch import nn


class Registry:
    """CoreNet's model registry: a decorator that files a class under `type:name`."""

    def __init__(self) -> None:
        self.registered: dict[str, type] = {}

    def register(self, name: str, type: str = "") -> Any:
        def file(item: type) -> type:
            self.registered[f"{type}:{name}"] = item
            return item

        return file


class ConvLayer2d(nn.Module):
    def __init__(
        self, opts: argparse.Namespace, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1,
        dilation: int = 1, padding: int | None = None, groups: int = 1, bias: bool = False,
        padding_mode: str = "zeros", use_norm: bool = True, use_act: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.activation = getattr(opts, "model.activation.name")
        self.told = (in_channels, out_channels, kernel_size, stride, use_norm, use_act)


class InvertedResidual(nn.Module):
    def __init__(
        self, opts: argparse.Namespace, in_channels: int, out_channels: int, stride: int, expand_ratio: float,
        dilation: int = 1, skip_connection: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.activation = getattr(opts, "model.activation.name")
        self.told = (in_channels, out_channels, stride, expand_ratio, dilation)


class MobileViTBlock(nn.Module):
    def __init__(
        self, opts: argparse.Namespace, in_channels: int, transformer_dim: int, ffn_dim: int,
        n_transformer_blocks: int = 2, head_dim: int = 32, attn_dropout: float = 0.0, dropout: float = 0.0,
        ffn_dropout: float = 0.0, patch_h: int = 8, patch_w: int = 8, transformer_norm_layer: str = "layer_norm",
        conv_ksize: int = 3, dilation: int = 1, no_fusion: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.activation = getattr(opts, "model.activation.name")
        self.norm_name = transformer_norm_layer
        self.told = {
            "in_channels": in_channels, "transformer_dim": transformer_dim, "ffn_dim": ffn_dim,
            "layers": n_transformer_blocks, "head_dim": head_dim, "patch": (patch_h, patch_w),
            "kernel": conv_ksize, "no_fusion": no_fusion, "dropouts": (attn_dropout, dropout, ffn_dropout),
        }  # fmt: skip


class GlobalPool(nn.Module):
    def __init__(self, pool_type: str = "mean", keep_dim: bool = False) -> None:
        super().__init__()


class Dropout(nn.Dropout):
    pass


class LinearLayer(nn.Module):
    def __init__(self, in_features: int, out_features: int, bias: bool = True, channel_first: bool = False) -> None:
        super().__init__()
        self.told = (in_features, out_features, bias)


class LayerNorm(nn.LayerNorm):
    pass


class BaseImageEncoder(nn.Module):
    def __init__(self, opts: argparse.Namespace, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.opts = opts
        self.conv_1 = self.layer_1 = self.layer_2 = self.layer_3 = self.layer_4 = self.layer_5 = None
        self.conv_1x1_exp = self.classifier = None
        self.dilation = 1
        output_stride = kwargs.get("output_stride")
        self.dilate_l4 = output_stride == 8
        self.dilate_l5 = output_stride in (8, 16)
        self.model_conf_dict: dict[str, Any] = {}
        self.was_reset = False

    @property
    def n_classes(self) -> int:
        classes: int = getattr(self.opts, "model.classification.n_classes")
        return classes

    def check_model(self) -> None:
        assert self.model_conf_dict
        assert all(getattr(self, f"layer_{number}") is not None for number in range(1, 6))

    def reset_parameters(self, opts: argparse.Namespace) -> None:
        self.was_reset = True


class MobileViT(BaseImageEncoder):
    def __init__(self, opts: argparse.Namespace, *args: Any, **kwargs: Any) -> None:
        raise AssertionError("would build one of CoreNet's three networks")

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
        parser.add_argument("--model.classification.mit.dropout")
        return parser


def modules() -> tuple[dict[str, ModuleType], Registry, dict[str, type]]:
    """Modules for `sys.modules`, the model registry and the registered norm layers."""
    registry, norms = Registry(), {}

    def register_norm_fn(name: str) -> Any:
        return lambda item: norms.setdefault(name, item)

    contents: dict[str, dict[str, Any]] = {
        "": {},
        ".modeling": {},
        ".modeling.layers": {
            "ConvLayer2d": ConvLayer2d, "Dropout": Dropout, "GlobalPool": GlobalPool, "LinearLayer": LinearLayer,
        },
        ".modeling.layers.normalization": {"register_norm_fn": register_norm_fn},
        ".modeling.layers.normalization.layer_norm": {"LayerNorm": LayerNorm},
        ".modeling.models": {"MODEL_REGISTRY": registry},
        ".modeling.models.classification": {},
        ".modeling.models.classification.mobilevit": {"MobileViT": MobileViT},
        ".modeling.modules": {"InvertedResidual": InvertedResidual, "MobileViTBlock": MobileViTBlock},
    }  # fmt: skip
    made = {f"corenet{name}": ModuleType(f"corenet{name}") for name in contents}
    for name, values in contents.items():
        vars(made[f"corenet{name}"]).update(values, __path__=[])
    return made, registry, norms
