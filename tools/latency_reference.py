"""Write results/reference/latency: for every predicted iPhone its fit as tables and a plot, all from the target's file.

python tools/latency_reference.py            print the summary
python tools/latency_reference.py --write    write the files; a test keeps them up to date
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from mvit_search._files import write_atomically
from mvit_search.architecture import PRESETS, MobileViTConfig, parse_config
from mvit_search.architecture.tasks import task_named, task_parts
from mvit_search.latency import PredictedTarget, load_target
from mvit_search.latency.calibration import priors_of
from mvit_search.latency.fitting import Problem
from mvit_search.latency.target_file import Errors, FittedRow, Group, Interval, TargetFile

FOLDER = Path(__file__).resolve().parent.parent / "results" / "reference" / "latency"
TARGETS = ("iphone12", "iphone13", "iphone14")
KEPT_ASIDE = (
    ("MobileViT-XS + SSDLite, 320 px", (2, 2, 2), "detection", 12.6),
    ("MobileViT-XS + DeepLabv3, 512 px", (8, 4, 2), "segmentation", 25.1),
    ("MobileViT-XS + DeepLabv3, 512 px", (2, 2, 2), "segmentation", 32.3),
)
"""arXiv 2110.02178v2, Tables 10b and 10c: measured on an iPhone 12 and never part of a fit."""


_HEAD = """\
# How wrong the predicted latencies are

Written by `python tools/latency_reference.py --write` from `mvit_search/latency/targets/*.json`, which
`python benchmarks/fit_latency.py --csv FILE --write` makes of a table of published Core ML latencies. Errors are of
predictions by fits that did not see the row: nor any other of the same network, model (whatever its resolution and
patches), series (all variants of the model) or paper. Mean / median over networks, percent; tau ranks networks by what
was predicted without them. Baselines: a line through logs, fitted as robustly to the same rows or to the group alone,
whichever is less wrong. A fallback is a row that took over twice its left-out prediction: as converted there, the
network left the Neural Engine.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="write the files")
    texts = files()
    if not parser.parse_args().write:
        print(texts["README.md"], end="")
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_atomically(FOLDER / name, text)
        print(f"wrote {name}")


def files() -> dict[str, str]:
    """Every file of the folder, by name."""
    targets = {name: _predicted(name) for name in TARGETS}
    texts = {"README.md": "\n".join(_summary(targets)) + "\n"}
    for name, target in targets.items():
        texts[f"{name}.md"] = "\n".join(_page(target.file)) + "\n"
        texts[f"{name}.svg"] = _plot(target.file)
    return texts


def _predicted(name: str) -> PredictedTarget:
    target = load_target(name)
    assert isinstance(target, PredictedTarget)
    return target


def _summary(targets: dict[str, PredictedTarget]) -> Iterator[str]:
    yield _HEAD
    yield from _errors_table([(name, target.file) for name, target in targets.items()])
    yield "\n80 % intervals, and which share of the left-out rows they hold:\n"
    yield "| target | for | up and down by a factor of | networks | holds | with fallbacks |\n|---|---|--:|--:|--:|--:|"
    for name, target in targets.items():
        yield from _interval_lines(name, target.file)
    yield "\n## MobileViTs predicted by other families alone\n"
    yield "Fits that saw no MobileViT of either version: what the quantities are worth on a new kind of network.\n"
    yield "| target | MobileViTs | error, mean / median |\n|---|--:|--:|"
    for name, target in targets.items():
        yield _others_alone(name, target.file)
    yield "\n## Rows that no fit sees\n"
    yield "Heads of other tasks (arXiv 2110.02178v2, Tables 10b and 10c), on an iPhone 12:\n"
    yield "| network | patches | published ms | predicted ms | error |\n|---|---|--:|--:|--:|"
    for label, patches, task, published_ms in KEPT_ASIDE:
        ms = _with_head(targets["iphone12"], patches, task)
        shown = ",".join(map(str, patches))
        yield f"| {label} | {shown} | {published_ms} | {ms:.1f} | {100 * (ms / published_ms - 1):+.0f} % |"
    yield "\nAt 512 px a patch of 2 x 2 leaves 1024 tokens, sixteen times the scores of any fitted row: there the"
    yield "prediction is far too high."


def _errors_table(files: Sequence[tuple[str, TargetFile]]) -> Iterator[str]:
    yield "| target | rows | what predicts | network | model | series | paper | tau |"
    yield "|---|---|---|--:|--:|--:|--:|--:|"
    for name, file in files:
        for label, group in (("MobileViTs", file.family), ("all networks", file.all)):
            if group:
                yield from _group_lines(name, label, group)


def _group_lines(name: str, label: str, group: Group) -> Iterator[str]:
    counted = (
        f"{label}: {group.rows} rows, {group.networks} networks, {group.papers} papers, {group.fallbacks} fallbacks"
    )
    yield f"| {name} | {counted} | **this predictor** | {_cells(group.errors)} |"
    if group.fallbacks:
        yield f"| | | this predictor, fallbacks apart | {_cells(group.regular)} |"
    yield f"| | | MACs alone, log-log | {_cells(group.macs_only)} |"
    yield f"| | | MACs and weights, log-log | {_cells(group.macs_and_weights)} |"


def _cells(errors: Errors) -> str:
    parts = (errors.network, errors.model, errors.series, errors.paper)
    shown = [f"{part.mape_percent:.1f} / {part.median_percent:.1f}" for part in parts]
    return " | ".join([*shown, f"{errors.kendall_tau:.2f}"])


def _interval_lines(name: str, file: TargetFile) -> Iterator[str]:
    intervals: list[tuple[str, Interval | None]] = [
        ("MobileViTs", file.family_interval),
        ("any network", file.interval),
    ]
    for label, interval in intervals:
        if interval:
            yield (
                f"| {name} | {label} | {interval.ratio:.2f} | {interval.networks} | {interval.coverage_percent:.0f} % "
                f"| {interval.coverage_with_fallbacks_percent:.0f} % |"
            )


def _others_alone(name: str, file: TargetFile) -> str:
    problem = Problem([row.bare() for row in file.rows], priors_of(file), file.settings)
    ms = problem.amounts @ problem.fit(~problem.in_family).coefficients
    errors = problem.errors(dict.fromkeys(problem.keys, ms), problem.in_family).network
    return f"| {name} | {problem.in_family.sum()} rows | {errors.mape_percent:.1f} / {errors.median_percent:.1f} |"


def _with_head(target: PredictedTarget, patches: tuple[int, ...], task: str) -> float:
    side = task_named(task).image_size
    document = PRESETS["mobilevit-xs"].with_image_size(side).model_dump()
    sides = iter(patches)
    for stage in document["stages"]:
        if stage["kind"] == "mobilevit":
            stage["patch_h"] = stage["patch_w"] = next(sides)
    config: MobileViTConfig = parse_config(document, source="a row that is kept aside")
    return target.latency_of_parts(task_parts(config, task), config.image_size).ms


def _page(file: TargetFile) -> Iterator[str]:
    words = file.words
    yield f"# {file.name}: {words.device}\n"
    yield f"Calibration `{file.calibration}`. Regime: {words.regime}. Predicts latencies {words.protocol}.\n"
    yield f"![left-out predictions against published latencies]({file.name}.svg)\n"
    yield f"{words.method}\n\n{words.limits}\n"
    yield from _errors_table([(file.name, file)])
    yield "\n## Coefficients\n"
    yield "| quantity | value | unit | prior | one step from it |\n|---|--:|---|--:|--:|"
    for name, c in file.coefficients.items():
        yield f"| {name} | {c.value:.5g} | {c.unit} | {c.prior:g} | {c.prior_scale:g} |"
    yield "\n## Papers\n"
    yield "By how much a paper's latencies lie above the reference papers', drawn to zero where it has few rows.\n"
    yield "| paper | rows | factor |\n|---|--:|--:|"
    for effect in file.papers:
        reference = effect.paper in file.settings.reference_papers
        yield f"| {effect.paper} | {effect.rows} | {'reference' if reference else f'{effect.percent:+.1f} %'} |"
    yield "\n## Rows\n"
    yield "| network | published ms | fitted | network left out | error | paper left out | paper | notes |"
    yield "|---|--:|--:|--:|--:|--:|---|---|"
    for row in sorted(file.rows, key=lambda row: (not row.in_family, row.series, row.network, row.latency_ms)):
        yield _row_line(row)
    yield "\n## Published, and not in the fit\n"
    yield "| network | device | units | published ms | why |\n|---|---|---|--:|---|"
    for out in file.excluded:
        ms = "–" if out.latency_ms is None else f"{out.latency_ms:g}"
        yield f"| {out.model} | {out.device} | {out.compute_units} | {ms} | {out.reason} |"


def _row_line(row: FittedRow) -> str:
    notes = ", ".join(word for word, said in (("digitised", row.digitised), ("fallback", row.fallback)) if said)
    return (
        f"| {row.network} | {row.latency_ms:g} | {row.fitted_ms:.2f} | {row.network_left_out_ms:.2f} | "
        f"{row.left_out_error_percent:+.1f} % | {row.paper_left_out_ms:.2f} | {row.paper} | {notes} |"
    )


# The plot: published against left-out milliseconds, both axes logarithmic, drawn by hand so that it stays small.

_SIZE, _LEFT, _TOP, _RIGHT, _BOTTOM = 560, 56, 40, 16, 48
_STYLE = """
svg{background:#fff}text{font:12px system-ui,sans-serif;fill:#333}.grid{stroke:#ddd}.ideal{stroke:#333}
.band{fill:#3b6fb6;opacity:.10}.family{fill:#c4442c}.other{fill:#3b6fb6;opacity:.65}.fallback{fill:none;stroke:#888}
@media (prefers-color-scheme:dark){svg{background:#16181d}text{fill:#ddd}.grid{stroke:#333}.ideal{stroke:#ccc}
.band{fill:#7aa7e6;opacity:.14}.family{fill:#ff8a70}.other{fill:#7aa7e6}.fallback{stroke:#888}}
"""


def _plot(file: TargetFile) -> str:
    lowest, highest = 0.3, 30.0
    span = _SIZE - _LEFT - _RIGHT

    def x(ms: float) -> float:
        return _LEFT + span * math.log(ms / lowest) / math.log(highest / lowest)

    def y(ms: float) -> float:
        return _TOP + span - span * math.log(ms / lowest) / math.log(highest / lowest)

    height = _TOP + span + _BOTTOM
    title = f"{file.words.device}: predicted by fits that did not see the network, against published"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_SIZE} {height}" width="{_SIZE}" height="{height}" '
        f'role="img" aria-label="{escape(title)}">',
        f"<style>{_STYLE}</style>",
        f'<clipPath id="inside"><rect x="{_LEFT}" y="{_TOP}" width="{span}" height="{span}"/></clipPath>',
        f'<text x="{_LEFT}" y="16">{escape(title)}</text>',
    ]
    for tick in (0.3, 0.5, 1, 2, 3, 5, 10, 20, 30):
        parts.append(
            f'<path class="grid" d="M{x(tick):.1f} {_TOP}V{_TOP + span}M{_LEFT} {y(tick):.1f}H{_LEFT + span}"/>'
            f'<text x="{x(tick):.1f}" y="{_TOP + span + 16}" text-anchor="middle">{tick:g}</text>'
            f'<text x="{_LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    ratio = file.interval.ratio
    corners = (
        (lowest, lowest / ratio),
        (highest, highest / ratio),
        (highest, highest * ratio),
        (lowest, lowest * ratio),
    )
    band = " ".join(f"{x(measured):.1f},{y(predicted):.1f}" for measured, predicted in corners)
    parts.append(f'<g clip-path="url(#inside)"><polygon class="band" points="{band}"/>')
    parts.append(f'<path class="ideal" d="M{x(lowest):.1f} {y(lowest):.1f}L{x(highest):.1f} {y(highest):.1f}"/></g>')
    for row in sorted(file.rows, key=lambda row: row.in_family):
        kind = "fallback" if row.fallback else "family" if row.in_family else "other"
        told = (
            f"{row.network}: published {row.latency_ms:g} ms, predicted {row.network_left_out_ms:.2f} ms ({row.paper})"
        )
        parts.append(
            f'<circle class="{kind}" cx="{x(row.latency_ms):.1f}" cy="{y(row.network_left_out_ms):.1f}" '
            f'r="{4 if row.in_family else 3}"><title>{escape(told)}</title></circle>'
        )
    parts.append(_legend(file))
    parts.append(
        f'<text x="{_LEFT + span / 2}" y="{height - 10}" text-anchor="middle">published, ms</text>'
        f'<text transform="translate(14 {_TOP + span / 2}) rotate(-90)" text-anchor="middle">predicted, ms</text>'
    )
    return "\n".join([*parts, "</svg>\n"])


def _legend(file: TargetFile) -> str:
    """What the marks mean, in the corner that predictions above the published leave free."""
    lines = [("family", "MobileViT"), ("other", "other networks"), ("fallback", "fallback off the Neural Engine")]
    shown = [
        f'<circle class="{kind}" cx="{_LEFT + 14}" cy="{_TOP + 16 + 18 * place}" r="4"/>'
        f'<text x="{_LEFT + 24}" y="{_TOP + 20 + 18 * place}">{label}</text>'
        for place, (kind, label) in enumerate(lines)
    ]
    ratio = file.interval.ratio
    shown.append(
        f'<rect class="band" x="{_LEFT + 9}" y="{_TOP + 64}" width="10" height="10"/>'
        f'<text x="{_LEFT + 24}" y="{_TOP + 74}">80 % interval, up and down by {ratio:.2f}</text>'
    )
    return "".join(shown)


if __name__ == "__main__":
    main()
