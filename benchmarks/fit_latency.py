"""Fit the predicted iPhone targets to published latencies; print how wrong they are, beside two baselines.

    python benchmarks/fit_latency.py                          refit every target from the rows in its file
    python benchmarks/fit_latency.py --target iphone13        one of them
    python benchmarks/fit_latency.py --rows                   also print every row with its left-out prediction
    python benchmarks/fit_latency.py --csv FILE --write       rebuild the rows from a published table, write the files

`--quick` refits the coefficients and takes the errors from the file. The last lines are ratios: the left-out error of
MACs alone, and of MACs and weights, over ours, with whole networks left out.
"""

import argparse
import csv
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np

import mvit_search.latency
from mvit_search._files import write_atomically
from mvit_search.architecture import PRESETS, MobileViTConfig, MobileViTStage, operators, parse_config
from mvit_search.errors import MvitSearchError
from mvit_search.latency.calibration import calibrate, priors_of, refit
from mvit_search.latency.features import FEATURE_NAMES, features_of_network
from mvit_search.latency.fitting import Prior, Problem
from mvit_search.latency.networks import PublishedNetwork, published_networks
from mvit_search.latency.target_file import (
    Errors,
    ExcludedRow,
    FitSettings,
    Group,
    Interval,
    Row,
    TargetFile,
    Words,
    read_target_file,
    text_of,
)

TARGETS = Path(mvit_search.latency.__file__).parent / "targets"
DIGITISED_WEIGHT = 0.25
_PRESETS = {"XXS": "mobilevit-xxs", "XS": "mobilevit-xs", "S": "mobilevit-s"}

# What data sheets and arithmetic suggest; the fit may go far, the ridge is weak. On an A14 several sequences at once
# are taken to run off the Neural Engine, through main memory and slower hands; on an A15 on it.
_COMMON = {
    "networks": Prior(0.3, 0.3),  # what the fastest published networks take in all is 0.5 ms
    "operators": Prior(0.002, 0.002),  # a few microseconds to dispatch an operator
    "conv_work_gmacs": Prior(0.3, 0.15),  # 5.5e12 MACs/s at best, somewhat over half of it reached
    "product_work_gmacs": Prior(0.3, 0.3),  # the same arithmetic
    "score_mib": Prior(0.05, 0.1),
    "weight_mib": Prior(0.005, 0.01),  # below the 0.03 of main memory at 34 GB/s: weights may stay on the chip
}
A14_PRIORS = {
    **_COMMON,
    "silu_mib": Prior(0.01, 0.01),  # a pass over on-chip memory
    "batched_token_mib": Prior(0.1, 0.1),
    "batched_score_mib": Prior(0.1, 0.1),
    "transpose_mib": Prior(0.05, 0.1),
    "copy_mib": Prior(0.02, 0.05),
    "reduction_mib": Prior(0.02, 0.05),
    "arithmetic_mib": Prior(0.01, 0.02),
    "gather_mib": Prior(0.05, 0.1),
    # A hand-over to another unit and back: between 0.2 and 1 ms by the rows that are named as fallbacks.
    "uneven_resizes": Prior(0.4, 0.4),
}
A15_PRIORS = {
    **_COMMON,
    "weight_mib": Prior(0.01, 0.01),
    "silu_mib": Prior(0.003, 0.005),
    "batched_token_mib": Prior(0.01, 0.02),
    "batched_score_mib": Prior(0.01, 0.02),
    "transpose_mib": Prior(0.02, 0.03),
    "copy_mib": Prior(0.01, 0.02),
    "reduction_mib": Prior(0.01, 0.02),
    "arithmetic_mib": Prior(0.005, 0.01),
    "gather_mib": Prior(0.02, 0.05),
    "uneven_resizes": Prior(0.1, 0.2),
}  # fmt: skip
PRIORS = {"iphone12": A14_PRIORS, "iphone13": A15_PRIORS, "iphone14": A15_PRIORS}


def _settings(family_weight: float, *reference_papers: str) -> FitSettings:
    return FitSettings(
        ridge=0.01, tail=0.15, family_weight=family_weight, paper_spread=0.05, reference_papers=reference_papers
    )


# A weight of five lets the fifteen rows of the family speak as loudly as the other networks' two hundred.
SETTINGS = {
    "iphone12": _settings(5.0, "MobileViT", "MobileViTv2"),
    "iphone13": _settings(1.0, "iFormer"),
    "iphone14": _settings(1.0, "SwiftFormer"),
}
_METHOD = (
    "Robust non-negative least squares on relative errors over fifteen quantities of the operator table (a roofline "
    "for convolutions and products), ridge to priors from data sheets and arithmetic, a factor for every paper drawn "
    "to 1; digitised rows weigh a quarter. Quantities, priors and settings were chosen with the left-out errors in "
    "sight, which flatters those errors somewhat."
)
_NO_SIZES = (
    "Depths, kernels, heads, ratios and image sizes other than the published networks' are extrapolation, and so is a "
    "network that falls off the Neural Engine."
)
WORDS = {
    "iphone12": Words(
        name="iphone12",
        device="iPhone 12 (A14)",
        regime="A14, Neural Engine or all units, iOS 15 and 16, batch 1",
        protocol="as the MobileViT papers: Core ML full-precision model, batch 1, mean of 100 runs, Neural Engine or "
        "units not stated",
        method=_METHOD,
        limits="Eleven MobileViTs; softmax and separable attention never in one of them, and a single one (S with "
        "patches 3,3,3) resizes. " + _NO_SIZES,
    ),
    "iphone13": Words(
        name="iphone13",
        device="iPhone 13 (A15)",
        regime="A15, all units, iOS 16 and later, batch 1",
        protocol="as the iFormer paper: Core ML Tools, batch 1, units not stated",
        method=_METHOD,
        limits="Two MobileViTs that ran on the Neural Engine (XXS and S, of one paper), a third that did not. "
        + _NO_SIZES,
    ),
    "iphone14": Words(
        name="iphone14",
        device="iPhone 14 (A15)",
        regime="A15, Neural Engine or all units, iOS 16, batch 1",
        protocol="as the SwiftFormer paper: performance report of Xcode 14, Neural Engine, iOS 16, batch 1",
        method=_METHOD,
        limits="Four MobileViTs of one paper, three of them of version 2. " + _NO_SIZES,
    ),
}
DEVICES = {"iphone12": "iPhone 12", "iphone13": "iPhone 13", "iphone14": "iPhone 14"}

# The paper or repository behind a row, by how its source begins; the first that fits.
PAPERS = {
    "MobileViTv2 paper": "MobileViTv2", "MobileViT paper": "MobileViT", "apple/ml-mobileone": "MobileOne",
    "apple/ml-fastvit": "FastViT", "apple/ml-mobileclip": "MobileCLIP", "apple/ml-cvnets": "CVNets users",
    "snap-research/EfficientFormer README (model zoo V2)": "EfficientFormerV2",
    "EfficientFormer images/eformerv2.png": "EfficientFormerV2", "EfficientFormer images/dot.png": "EfficientFormer",
    "EfficientFormer abstract": "EfficientFormer", "snap-research/EfficientFormer README": "EfficientFormer",
    "snap-research/EfficientFormer issue": "EfficientFormer users", "RepViT": "RepViT", "SHViT": "SHViT",
    "StarNet": "StarNet", "SwiftFormer": "SwiftFormer", "RepNeXt": "RepNeXt", "suous/RepNeXt": "RepNeXt",
    "iFormer": "iFormer", "MobileNetV4": "MobileNetV4", "bytedance/Next-ViT": "Next-ViT",
    "altair199797/LowFormer": "LowFormer", "MobileViGv2": "MobileViGv2",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--target", choices=sorted(DEVICES), help="one target instead of all")
    parser.add_argument("--csv", type=Path, help="rebuild the rows from the published table")
    parser.add_argument("--rows", action="store_true", help="also print every row")
    parser.add_argument("--write", action="store_true", help="write the targets' files")
    parser.add_argument("--quick", action="store_true", help="take the errors from the file: seconds")
    arguments = parser.parse_args()
    ratios = []
    for name in [arguments.target] if arguments.target else sorted(DEVICES):
        path = TARGETS / f"{name}.json"
        try:
            fitted = _fitted(name, path, arguments.csv, quick=arguments.quick)
        except (MvitSearchError, OSError) as error:
            parser.error(str(error))
        print(table(fitted, with_rows=arguments.rows) + "\n")
        if arguments.write:
            write_atomically(path, text_of(fitted))
            print(f"wrote {path.name}\n")
        ratios += list(_ratios(fitted))
    print("\n".join(ratios))


def _fitted(name: str, path: Path, table_path: Path | None, *, quick: bool) -> TargetFile:
    if table_path:
        return from_csv(name, table_path)
    file = read_target_file(path)
    if not quick:
        return refit(file)
    problem = Problem([row.bare() for row in file.rows], priors_of(file), file.settings)
    again = problem.fit(problem.everything).coefficients
    if not np.allclose(again, list(file.values), rtol=1e-3, atol=1e-6):
        raise SystemExit(f"{name}: the file's coefficients are not what its rows give")
    return file


def _ratios(file: TargetFile) -> Iterator[str]:
    """Means for the family; medians for all networks, where fallbacks make up most of any mean."""
    for label, statistic, group in (("mobilevit", "mape", file.family), ("all", "median", file.all)):
        if group is None:
            continue
        ours = getattr(group.errors.network, f"{statistic}_percent")
        for baseline, errors in (("macs", group.macs_only), ("macs-and-weights", group.macs_and_weights)):
            ratio = getattr(errors.network, f"{statistic}_percent") / ours
            yield f"ratio {file.name}-{label}-left-out-{statistic}-vs-{baseline}: {ratio:.2f}"


def table(file: TargetFile, *, with_rows: bool = False) -> str:
    """Coefficients, errors and, if asked, rows as text."""
    lines = [f"{file.calibration}: {file.all.rows} rows, {file.all.networks} networks, {file.all.papers} papers", ""]
    if with_rows:
        lines.append(f"{'network':<34}{'measured':>9}{'fitted':>8}{'left out':>9}{'error':>8}  paper")
        for row in sorted(file.rows, key=lambda row: (row.series, row.network)):
            marks = ("digitised " if row.digitised else "") + ("fallback" if row.fallback else "")
            lines.append(
                f"{row.network[:33]:<34}{row.latency_ms:>9.2f}{row.fitted_ms:>8.2f}{row.network_left_out_ms:>9.2f}"
                f"{row.left_out_error_percent:>+7.1f}%  {row.paper} {marks}".rstrip()
            )
        lines.append("")
    for name, coefficient in file.coefficients.items():
        lines.append(f"{name:<20}{coefficient.value:>10.5f} {coefficient.unit:<22} (prior {coefficient.prior:g})")
    lines += ["", "papers: " + ", ".join(f"{e.paper} {e.percent:+.1f} % ({e.rows})" for e in file.papers)]
    lines += [f"excluded: {len(file.excluded)} rows, each with its reason in the file", ""]
    lines.append(f"{'error of what was left out: mean / median':<44}{'network':>14}{'model':>14}{'series':>14}"
                 f"{'paper':>14}{'tau':>7}")  # fmt: skip
    if file.family:
        lines += _group_lines("MobileViTs", file.family, file.family_interval)
    lines += _group_lines("all networks", file.all, file.interval)
    return "\n".join(lines)


def _group_lines(label: str, group: Group, interval: Interval | None) -> Iterator[str]:
    yield f"{label}: {group.rows} rows, {group.networks} networks, {group.fallbacks} fallbacks among the rows"
    yield _error_line("this predictor", group.errors)
    if group.fallbacks:
        yield _error_line("this predictor, fallbacks apart", group.regular)
    yield _error_line("MACs alone, log-log", group.macs_only)
    yield _error_line("MACs and weights, log-log", group.macs_and_weights)
    if interval:
        yield (
            f"  {100 * interval.level:.0f} % interval: a ratio of {interval.ratio:.2f}; holds "
            f"{interval.coverage_percent:.0f} % of left-out rows, "
            f"{interval.coverage_with_fallbacks_percent:.0f} % with fallbacks"
        )


def _error_line(label: str, errors: Errors) -> str:
    parts = (errors.network, errors.model, errors.series, errors.paper)
    cells = "".join(f"{f'{part.mape_percent:.1f} / {part.median_percent:.1f}':>14}" for part in parts)
    return f"  {label:<42}{cells}{errors.kendall_tau:>7.2f}"


def from_csv(name: str, path: Path) -> TargetFile:
    """The target fitted to the rows of the published table that belong to it."""
    with path.open(encoding="utf-8", newline="") as stream:
        published = [row for row in csv.DictReader(stream) if row["device"].startswith("iPhone")]
    rows, excluded = [], []
    for row in published:
        reason = _exclusion_reason(row, DEVICES[name])
        found = None if reason else _row(row)
        if found:
            rows.append(found)
        elif row["device"].startswith(DEVICES[name]):
            excluded.append(_excluded(row, reason or "no public definition in timm or torchvision gave its operators"))
    today = date.today().isoformat()
    return calibrate(rows, excluded, PRIORS[name], SETTINGS[name], WORDS[name], date=today)


def _exclusion_reason(row: dict[str, str], device: str) -> str:
    """Why a row must stay out of the fit; empty if it may belong."""
    if not row["latency_ms"]:
        return "no latency reported"
    if not row["device"].startswith(device):
        return "another device"
    if row["compute_units"] == "CPU":
        return "another compute unit"
    if "fell off" in row["compute_units"]:
        return "the source says that it fell off the Neural Engine"
    if "+" in row["model"]:
        return "detection or segmentation head: kept aside to check predictions with"
    if row["model"] == "MobileViT" and "attention" in row["variant"] and "MHA" not in row["variant"]:
        return f"{row['variant'].rpartition(' ')[2]} attention: the source does not say what else changed"
    return ""


def _row(row: dict[str, str]) -> Row | None:
    """The row with its network's operators; None if they are not known."""
    if row["model"] in ("MobileViT", "MobileViTv2"):
        config = _config(row)
        version = row["model"].removeprefix("MobileViT")
        model = f"MobileViT{version}-{_variant(row)}"
        patches = ",".join(str(stage.patch_h) for stage in config.stages if isinstance(stage, MobileViTStage))
        network, ops = f"{model} {patches}@{config.image_size[0]}", operators(config)
        return _with_source(row, network, model, f"MobileViT{version}", config, config.image_size, ops)
    found = _published(row)
    if found is None:
        return None
    # Two papers may call one network by two names; its definition has one.
    model = found.name.partition("@")[0].removesuffix("+features")
    series = row["model"].removeprefix("RSB-")
    return _with_source(row, found.name, model, series, None, found.image_size, found.ops)


def _with_source(row, network, model, series, config, image_size, ops) -> Row:  # type: ignore[no-untyped-def]
    digitised = "DIGITISED" in row["note"]
    return Row(
        network=network, model=model, series=series, config=config, image_size=image_size,
        gmacs=float(f"{sum(op.macs for op in ops) / 1e9:.6g}"), mweights=sum(op.weights for op in ops) / 1e6,
        amounts=tuple(float(f"{amount:.6g}") for amount in features_of_network(ops)),
        device=row["device"], compute_units=row["compute_units"], latency_ms=float(row["latency_ms"]),
        paper=_paper(row["source"]), source=row["source"], url=row["url_or_path"], note=row["note"],
        digitised=digitised, weight=DIGITISED_WEIGHT if digitised else 1.0,
    )  # fmt: skip


def _config(row: dict[str, str]) -> MobileViTConfig:
    """The MobileViT of a row: which preset, and which patches: 2,2,2 where the source names none."""
    name, patches = _variant(row), row["variant"].partition(" (")[2]
    preset = PRESETS[f"mobilevitv2-{name}" if row["model"] == "MobileViTv2" else _PRESETS[name]]
    sides = iter([int(side) for side in patches.rstrip(")").split(",")] if patches else (2, 2, 2))
    document = preset.model_dump()
    for stage in document["stages"]:
        if stage["kind"] == "mobilevit":
            stage["patch_h"] = stage["patch_w"] = next(sides)
    side = int(row["resolution"] or 256)
    return parse_config({**document, "image_size": (side, side)}, source=f"row {row['model']} {row['variant']}")


def _variant(row: dict[str, str]) -> str:
    return "S" if "attention" in row["variant"] else row["variant"].partition(" (")[0]


def _published(row: dict[str, str]) -> PublishedNetwork | None:
    """The network of another family; at its usual resolution where the source names none."""
    known = (row["model"], row["variant"])
    found = [network for network in published_networks().values() if known in network.published_as]
    if row["resolution"]:
        found = [network for network in found if network.image_size[0] == int(row["resolution"])]
    elif row["model"] == "Next-ViT":
        return None  # its detection and segmentation tables do not state a size
    return found[0] if found else None


def _paper(source: str) -> str:
    return next((paper for start, paper in PAPERS.items() if source.startswith(start)), source)


def _excluded(row: dict[str, str], reason: str) -> ExcludedRow:
    return ExcludedRow(
        model=f"{row['model']} {row['variant']}", device=row["device"], compute_units=row["compute_units"],
        latency_ms=float(row["latency_ms"]) if row["latency_ms"] else None,
        source=row["source"], url=row["url_or_path"], reason=reason,
    )  # fmt: skip


if __name__ == "__main__":
    assert set(A14_PRIORS) == set(A15_PRIORS) == set(FEATURE_NAMES)
    main()
