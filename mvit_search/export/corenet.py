"""To CoreNet: a plugin module that registers the network, a training recipe, and the config file itself.

The plugin builds the network from CoreNet's own blocks with this config's values. CoreNet's stock MobileViT
knows three networks by name and has one kernel size and one activation option for the whole model, so
none of those options is used. The recipe is the paper's (arXiv 2110.02178, section 4.1 and appendix).
"""

import ast
import json
from pathlib import Path

import yaml

from mvit_search.architecture import ConvStage, MobileViTConfig, MobileViTStage, operators, parse_config
from mvit_search.architecture.config import Activation
from mvit_search.architecture.rows import make_divisible
from mvit_search.errors import InputError
from mvit_search.export._base import (
    ExportOptions,
    ExportResult,
    export_name,
    refuse_options,
    require_checks,
    write_files,
)
from mvit_search.export._corenet_plugin import PLUGIN

_LAYERS = 5
_ACTIVATIONS: dict[Activation, str] = {"silu": "swish", "relu": "relu", "hardswish": "hard_swish"}
_SCALE_STEP = 32  # image sizes of the variable batch sampler are multiples of this
_TRAIN_ROOT = "SET-ME/imagenet/training"
_VAL_ROOT = "SET-ME/imagenet/validation"


def export(config: MobileViTConfig, name: str, out: Path, num_classes: int, options: ExportOptions) -> ExportResult:
    """Write `<name>.py` (plugin), `<name>.yaml` (recipe) and `<name>.json` (config) into `out`.

    Checked before writing: the plugin compiles and its literals are this config's values; recipe and
    config read back as they were meant. CoreNet itself is not run here.

    Raises:
        InputError: CoreNet cannot say this network, an option was given, or `out` cannot be written.
        WorkError: a check failed.
    """
    refuse_options(options, "corenet")
    _check_expressible(config)
    registered = export_name(name, config)
    table = operators(config, num_classes)
    params, macs = sum(op.params for op in table), sum(op.macs for op in table)
    plugin = plugin_source(config, registered, num_classes, params, macs)
    recipe = recipe_text(config, registered, num_classes)
    document = json.dumps(config.model_dump(mode="json"), indent=2) + "\n"
    checks: dict[str, object] = {
        "registered_name": registered,
        "params": params,
        "macs": macs,
        "num_classes": num_classes,
        "plugin_compiles": _compiles(plugin),
        "plugin_values_match": _literals(plugin) == _plugin_values(config, registered),
        "recipe_names_plugin": yaml.safe_load(recipe)["model"]["classification"]["name"] == registered,
        "config_round_trip": parse_config(json.loads(document), source=f"{registered}.json") == config,
    }
    require_checks(checks)
    texts = {f"{registered}.py": plugin, f"{registered}.yaml": recipe, f"{registered}.json": document}
    return ExportResult(write_files(out, texts), checks)


def _check_expressible(config: MobileViTConfig) -> None:
    """CoreNet's image encoders have a stem, layer_1 to layer_5 and a head; no more layers and no fewer."""
    if len(config.stages) != _LAYERS:
        raise InputError(
            "stages", len(config.stages), f"CoreNet's image encoders have exactly {_LAYERS} layers",
            f"search a space with {_LAYERS} stages, or export to another destination",
        )  # fmt: skip
    if config.head_channels is None:
        raise InputError("head_expansion", 0, "CoreNet's MobileViT always has a last 1x1 convolution", "use 1 to 4")
    channels = config.stem_channels
    for index, stage in enumerate(config.stages):
        if isinstance(stage, MobileViTStage) and stage.attention == "separable":
            rule = "the plugin has no MobileViTv2 block yet"
            raise InputError(f"stages.{index}.attention", stage.attention, rule, "export a network with softmax")
        # CoreNet rounds the depthwise width at ratio 1 too, where no convolution brings the input to it.
        if stage.expand_ratio == 1 and make_divisible(channels) != channels:
            rule = f"CoreNet needs its {channels} input channels to be a multiple of 8"
            raise InputError(f"stages.{index}.expand_ratio", 1, rule, "choose another ratio or width")
        channels = stage.out_channels


def plugin_source(config: MobileViTConfig, registered: str, num_classes: int, params: int, macs: int) -> str:
    """The plugin module's text."""
    values = _plugin_values(config, registered)
    height, width = config.image_size
    return PLUGIN.substitute(
        name=registered, digest=config.digest(), num_classes=num_classes,
        params=f"{params:,}", macs=f"{macs:,}", height=height, width=width, activation=values["ACTIVATION"],
        stem_channels=values["STEM_CHANNELS"], head_channels=values["HEAD_CHANNELS"],
        stages="\n".join(map(_stage_literal, config.stages)),
    )  # fmt: skip


def _plugin_values(config: MobileViTConfig, registered: str) -> dict[str, object]:
    return {
        "NAME": registered,
        "ACTIVATION": _ACTIVATIONS[config.activation],
        "STEM_CHANNELS": config.stem_channels,
        "STAGES": [_stage_values(stage) for stage in config.stages],
        "HEAD_CHANNELS": config.head_channels,
    }


def _stage_values(stage: ConvStage | MobileViTStage) -> dict[str, object]:
    """The stage's fields under our names; the feed-forward width in channels, as CoreNet takes it."""
    if isinstance(stage, ConvStage):
        return stage.model_dump()
    values = stage.model_dump(exclude={"ffn_ratio", "attention"})
    return {**values, "ffn_dim": stage.ffn_dim}


def _stage_literal(stage: ConvStage | MobileViTStage) -> str:
    lines = [f"        {key!r}: {value!r}," for key, value in _stage_values(stage).items()]
    return "\n".join(["    {", *lines, "    },"]).replace("'", '"')


def _compiles(source: str) -> bool:
    try:
        compile(source, "plugin", "exec")
    except SyntaxError:
        return False
    return True


def _literals(source: str) -> dict[str, object]:
    """The module-level constants of the plugin, read without running it."""
    return {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }


def recipe_text(config: MobileViTConfig, registered: str, num_classes: int) -> str:
    """The training recipe as YAML, under CoreNet's option names."""
    heading = (
        f"# The MobileViT paper's ImageNet recipe for {registered}.\n"
        f"# Set the two dataset roots. {registered}.py says where to put the plugin and how to start.\n"
        "# The batch is 128 images at the base size on each of 8 GPUs: with fewer, lower the learning rate.\n"
    )
    return heading + yaml.safe_dump(_recipe(config, registered, num_classes), sort_keys=False)


def _recipe(config: MobileViTConfig, registered: str, num_classes: int) -> dict[str, object]:
    height, width = config.image_size
    min_height, max_height = _crop_range(height)
    min_width, max_width = _crop_range(width)
    activation = {"name": _ACTIVATIONS[config.activation]}
    return {
        "taskname": registered,
        "common": {"run_label": "train", "log_freq": 500, "auto_resume": True, "mixed_precision": True},
        "dataset": {
            "root_train": _TRAIN_ROOT, "root_val": _VAL_ROOT,
            "name": "imagenet", "category": "classification",
            "train_batch_size0": 128, "val_batch_size0": 100, "eval_batch_size0": 100,
            "workers": 8, "persistent_workers": True, "pin_memory": True,
        },
        "image_augmentation": {
            "random_resized_crop": {"enable": True, "interpolation": "bilinear"},
            "random_horizontal_flip": {"enable": True},
            "resize": {"enable": True, "size": _resized(height, width), "interpolation": "bilinear"},
            "center_crop": {"enable": True, "size": height if height == width else [height, width]},
        },
        "sampler": {
            "name": "variable_batch_sampler",
            "vbs": {
                "crop_size_width": width, "crop_size_height": height, "max_n_scales": 5,
                "min_crop_size_width": min_width, "max_crop_size_width": max_width,
                "min_crop_size_height": min_height, "max_crop_size_height": max_height,
                "check_scale": _SCALE_STEP,
            },
        },
        "loss": {
            "category": "classification",
            "classification": {"name": "cross_entropy", "cross_entropy": {"label_smoothing": 0.1}},
        },
        "optim": {
            "name": "adamw", "weight_decay": 0.01, "no_decay_bn_filter_bias": False,
            "adamw": {"beta1": 0.9, "beta2": 0.999},
        },
        "scheduler": {
            "name": "cosine", "is_iteration_based": False, "max_epochs": 300,
            "warmup_iterations": 20000, "warmup_init_lr": 2e-4, "cosine": {"max_lr": 2e-3, "min_lr": 2e-4},
        },
        "model": {
            "classification": {
                "name": registered, "n_classes": num_classes, "classifier_dropout": 0.1,
                "mit": {"dropout": 0.1, "attn_dropout": 0.0, "ffn_dropout": 0.0},
                "activation": activation,
            },
            "normalization": {"name": "batch_norm", "momentum": 0.1},
            "activation": dict(activation),
            "layer": {
                "global_pool": "mean", "conv_init": "kaiming_normal",
                "linear_init": "trunc_normal", "linear_init_std_dev": 0.02,
            },
        },
        "ema": {"enable": True, "momentum": 5e-4},
        "stats": {
            "train": ["loss"], "val": ["loss", "top1", "top5"],
            "checkpoint_metric": "top1", "checkpoint_metric_max": True,
        },
    }  # fmt: skip


def _resized(height: int, width: int) -> int | list[int]:
    """Validation images before the centre crop: 288 to a crop of 256; one number is the shorter side."""
    larger = [round(side * 288 / 256) for side in (height, width)]
    return larger[0] if height == width else larger


def _crop_range(size: int) -> tuple[int, int]:
    """Smallest and largest side of the variable batch sampler, in proportion to 160 .. 320 around 256 px."""
    smallest = max(_SCALE_STEP, round(size * 160 / 256 / _SCALE_STEP) * _SCALE_STEP)
    largest = max(_SCALE_STEP, round(size * 320 / 256 / _SCALE_STEP) * _SCALE_STEP)
    return smallest, largest
