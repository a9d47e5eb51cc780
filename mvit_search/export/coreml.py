"""To Core ML: a package for Xcode, coremltools and the measuring of this project."""

import json
from pathlib import Path

from mvit_search.architecture import MobileViTConfig, operators, parse_config
from mvit_search.export._base import ExportOptions, ExportResult, export_name, make_folder, require_checks
from mvit_search.latency.coreml import METADATA_PREFIX, SUFFIX, ConversionSettings, Converted, convert, save_package


def export(config: MobileViTConfig, name: str, out: Path, num_classes: int, options: ExportOptions) -> ExportResult:
    """Write `<name>.mlpackage`, a folder, into `out`. Its weights are random: a candidate has none of its own.

    Checked before writing: what is converted gives the network's logits in torch, and the program's metadata say
    this config. The program itself runs on Apple's systems alone, so that it is not run here.

    Raises:
        InputError: an unknown layout, deployment target or input, coremltools is missing, or `out` cannot be written.
        WorkError: the conversion or a check failed.
    """
    settings = ConversionSettings(num_classes=num_classes, **options.given)  # type: ignore[arg-type]
    make_folder(out)
    converted = convert(config, settings)
    checks = _checks(converted, config)
    require_checks(checks)
    path = out / f"{export_name(name, config)}{SUFFIX}"
    save_package(converted, path)
    return ExportResult((path,), checks)


def _checks(converted: Converted, config: MobileViTConfig) -> dict[str, object]:
    settings, metadata = converted.settings, converted.model.user_defined_metadata
    said = parse_config(json.loads(metadata[f"{METADATA_PREFIX}config"]), source="metadata")
    return {
        "params": sum(op.params for op in operators(config, settings.num_classes)),
        "num_classes": settings.num_classes,
        "layout": settings.layout,
        "deployment_target": settings.deployment_target,
        "input": settings.input,
        "weights": metadata[f"{METADATA_PREFIX}weights"],
        "operators": converted.operators,
        "layout_operators": converted.layout_operators,
        "max_difference": converted.max_difference,
        "config_round_trip": said == config,
    }
