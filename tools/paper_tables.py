"""Regenerate the tables of the MobileViT papers that can be computed, published and own values side by side.

    python tools/paper_tables.py            print them as Markdown
    python tools/paper_tables.py --write    write results/reference/paper_tables.md

Everything is closed-form arithmetic on the operator table: it takes a second, and a test keeps the file up to date.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path

from mvit_search._files import write_atomically
from mvit_search.architecture import PRESETS, MobileViTConfig, parse_config
from mvit_search.architecture.ops import expand
from mvit_search.architecture.published import PUBLISHED, difference, macs_of_authors
from mvit_search.architecture.tasks import TASKS, Task, task_parts
from mvit_search.latency import PredictedTarget, load_target
from mvit_search.profile import cost
from mvit_search.profile.cost import cost_of_parts

FILE = Path(__file__).resolve().parent.parent / "results" / "reference" / "paper_tables.md"
TABLE_8_KIB = {2: 784, 4: 294, 8: 98, 16: 31, 32: 37}
"""arXiv 2110.02178v2, appendix Table 8: MobileViT-XS at 224 px, fp16."""
TASK_MS = (
    ("mobilevit-xs", (2, 2, 2), "detection", 12.6),
    ("mobilevit-xs", (8, 4, 2), "segmentation", 25.1),
    ("mobilevit-xs", (2, 2, 2), "segmentation", 32.3),
)
"""arXiv 2110.02178v2, Tables 10b and 10c: iPhone 12, Neural Engine, milliseconds."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="write results/reference/paper_tables.md")
    text = document()
    if parser.parse_args().write:
        write_atomically(FILE, text)
        print(f"wrote {FILE.name}")
    else:
        print(text, end="")


def document() -> str:
    """The whole file."""
    sections = [
        "# Tables of the MobileViT papers, published and own\n\n"
        "Written by `python tools/paper_tables.py --write`; do not edit. Own values are closed-form, from the\n"
        "operator table that the tests hold to the built networks, to fvcore, to torch's counter and to Core ML's\n"
        'programs. One multiply-add is one MAC (the papers print "FLOPs"); convolutions and matrix products count.\n'
        '"As the authors count" is their profiler\'s convention, in which both products of softmax attention are\n'
        "linear in the number of patches: it explains why the paper prints fewer MACs.",
        _memory(),
        *(_task(task) for task in TASKS.values()),
        _task_latency(),
    ]
    return "\n\n".join(sections) + "\n"


def _memory() -> str:
    own = cost(PRESETS["mobilevit-xs"].with_image_size(224)).memory_by_stride_kib
    rows = [
        (str(stride), str(kib), f"{own[stride]:g}", "yes" if round(own[stride]) == kib else "no")
        for stride, kib in TABLE_8_KIB.items()
    ]
    return (
        "## Memory that must be materialised (arXiv 2110.02178, appendix Table 8)\n\n"
        "MobileViT-XS, 224 px, fp16, KiB: the largest block output at each output stride.\n\n"
        + _table(("output stride", "published", "own", "equal when rounded"), rows)
    )


def _task(task: Task) -> str:
    rows = []
    for name, config in PRESETS.items():
        printed = PUBLISHED.get((task.name, name))
        side = printed.image_size if printed else task.image_size
        placed = task_parts(config.with_image_size(side), task.name)
        own, authors = cost_of_parts(placed), macs_of_authors(expand(placed))
        cells = [
            name,
            str(side),
            f"{own.params:,}",
            "–",
            "–",
            f"{own.macs / 1e9:.3f}",
            f"{authors / 1e9:.3f}",
            "–",
            "–",
        ]
        if printed:
            gap = difference(printed, own.params, own.macs)
            cells[3:5] = [f"{printed.params_m:g}", _gap(gap.params_m, gap.params_agree)]
            if printed.macs_g is not None and gap.macs_g is not None:
                cells[7:9] = [f"{printed.macs_g:g}", f"{gap.macs_g:+.2f}; {authors / 1e9 - printed.macs_g:+.2f}"]
        rows.append((*cells, printed.source if printed else "none"))
    columns = (
        "network", "px", "params", "published, M", "difference, M", "MACs, G", "as the authors count, G",
        "published, G", "differences, G (own; authors' way)", "source",
    )  # fmt: skip
    return (
        f"## {task.name.capitalize()}\n\n{task.description[0].upper()}{task.description[1:]}. {task.source}.\n\n"
        + _table(columns, rows)
    )


def _gap(gap: float, agrees: bool) -> str:
    return f"{gap:+.3f}" + ("" if agrees else " (not the printed digit)")


def _task_latency() -> str:
    target = load_target("iphone12")
    assert isinstance(target, PredictedTarget)
    rows = []
    for name, patches, task_name, printed in TASK_MS:
        task = TASKS[task_name]
        config = _with_patches(PRESETS[name], patches).with_image_size(task.image_size)
        found = target.latency_of_parts(task_parts(config, task_name), config.image_size)
        rows.append((
            f"{name} {','.join(map(str, patches))}", task_name, str(task.image_size), f"{printed:g}", f"{found.ms:.1f}",
            f"{100 * (found.ms / printed - 1):+.0f} %",
        ))  # fmt: skip
    return (
        "## Latency with a task's head, iPhone 12 (Tables 10b and 10c)\n\n"
        f"Predicted, not measured: {target.calibration}. No row of the fit has such a head or such a size: these\n"
        "three measurements were kept aside, and say what an extrapolation is worth.\n\n"
        + _table(("network", "task", "px", "published, ms", "predicted, ms", "difference"), rows)
    )


def _with_patches(config: MobileViTConfig, patches: Iterable[int]) -> MobileViTConfig:
    data = config.model_dump()
    blocks = [stage for stage in data["stages"] if stage["kind"] == "mobilevit"]
    for stage, side in zip(blocks, patches, strict=True):
        stage["patch_h"] = stage["patch_w"] = side
    return parse_config(data)


def _table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [columns, tuple("---" for _ in columns), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    main()
