"""Convert every preset in both layouts; print operators, layout operators and seconds as a table for docs/coreml.md.

    python benchmarks/coreml_layouts.py            ten presets, two layouts, iOS 15 and iOS 18: some minutes
    python benchmarks/coreml_layouts.py --quick    MobileViT-XXS and MobileViTv2-0.5 for iOS 15

The last line is the ratio of layout operators, `paper` over `ane`, of the preset where it is smallest.
"""

import argparse

from mvit_search.architecture import PRESETS
from mvit_search.latency.coreml import ConversionSettings, Converted, DeploymentTarget, convert

QUICK = ("mobilevit-xxs", "mobilevitv2-0.5")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two presets, one deployment target")
    quick = parser.parse_args().quick
    convert(PRESETS[QUICK[0]].with_image_size(64))  # what comes after has coremltools loaded
    print("| preset | target | `paper`: layout / all operators | `ane`: layout / all operators | seconds |")
    print("|---|---|---|---|---|")
    targets: tuple[DeploymentTarget, ...] = ("iOS15",) if quick else ("iOS15", "iOS18")
    ratios = [row(name, target) for name in (QUICK if quick else PRESETS) for target in targets]
    print(f"ratio layout-operators: {min(ratios):.1f}")


def row(name: str, target: DeploymentTarget) -> float:
    """Print one line; the ratio of layout operators."""
    config = PRESETS[name]
    paper, ane = (convert(config, ConversionSettings(layout, target)) for layout in ("paper", "ane"))
    seconds = f"{paper.seconds:.1f}, {ane.seconds:.1f}"
    print(f"| `{name}` | {target} | {counts(paper)} | {counts(ane)} | {seconds} |", flush=True)
    return paper.layout_operators / ane.layout_operators


def counts(converted: Converted) -> str:
    return f"{converted.layout_operators} / {converted.operators}"


if __name__ == "__main__":
    main()
