"""Write results/reference/cifar10_proxy and digits_proxy: what their tables of trainings say, as tables and a plot.

python tools/proxy_reference.py            print the recommendations
python tools/proxy_reference.py --write    write README.md and tau.svg of each; a test keeps them up to date
"""

import argparse
import math
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import NamedTuple

from mvit_search._files import write_atomically
from mvit_search.analysis.ranking_tables import PAGE_COLUMNS, SPREAD_COLUMNS, noise_sentences, page_rows, spread_rows
from mvit_search.ranking.proxies import LATENCY, SIZE
from mvit_search.ranking.recommendation import Judged
from mvit_search.ranking.summary import Findings, analyse
from mvit_search.records.table import read_table

Height = Callable[[float], float]
"""From a tau to pixels from the top."""

REFERENCE = Path(__file__).resolve().parent.parent / "results" / "reference"


class Subject(NamedTuple):
    """A folder with a `table.csv`: the reference schedule, what it is, and the commands that made it."""

    title: str
    schedule: str
    about: str
    commands: tuple[str, ...]


SUBJECTS = {
    "cifar10_proxy": Subject(
        "How cheap trainings rank MobileViTs on CIFAR-10",
        "32px-5000img-12ep",
        "27 candidates of the space `mobilevit` inside 6 M parameters, presets first, at 32 px, on 5,000 training and"
        " 4,000 test images of CIFAR-10. The reduced CPU setting of the tabular benchmark: its long schedule is far"
        " shorter than a full training, and at 32 px attention sees four patches in one stage and one in the others."
        " Processor seconds are of a machine shared with other work, the first half of the long schedules before"
        " training was made a fifth faster: image steps compare better.",
        (
            "python benchmarks/cifar10_table.py --setting cpu --data CIFAR10 --out DIR",
            "python benchmarks/proxy_recipes.py --data CIFAR10 --images 5000 --held-out 4000 --candidates 27 --long 12"
            " --seeds 1 --out DIR --only batch-half batch-double no-recalibration ema",
        ),
    ),
    "digits_proxy": Subject(
        "How cheap trainings rank MobileViTs on the built-in digits",
        "17px-899img-8ep",
        "24 candidates of the space `mobilevit` inside 6 M parameters, presets first, at 17 px, on 899 training digits"
        " and 898 held-out ones.",
        (
            "mvit-search proxy-check --data digits --candidates 24 --epochs 8 --out DIR",
            "python benchmarks/proxy_recipes.py --data digits --candidates 24 --long 8 --seeds 1 --out DIR",
        ),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="write the files")
    write = parser.parse_args().write
    for name in SUBJECTS:
        if not (REFERENCE / name / "table.csv").exists():
            print(f"{name}: has no table.csv")
            continue
        for file, text in files(name).items():
            if write:
                write_atomically(REFERENCE / name / file, text)
                print(f"wrote {name}/{file}")
        if not write:
            print(f"{name}: " + " ".join(_found(name).recommendation.sentences))


def files(name: str) -> dict[str, str]:
    """Every file that is written for a subject, by name."""
    found = _found(name)
    return {"README.md": "\n".join(_page(SUBJECTS[name], found)) + "\n", "tau.svg": _plot(SUBJECTS[name], found)}


def _found(name: str) -> Findings:
    return analyse(read_table(REFERENCE / name / "table.csv"), reference=SUBJECTS[name].schedule)


def _page(subject: Subject, found: Findings) -> Iterator[str]:
    yield f"# {subject.title}\n"
    yield f"{subject.about}\n"
    yield "`table.csv` has a row a candidate, seed, schedule and rung; these commands made it, on two CPU cores:\n"
    yield from (f"    {command}" for command in subject.commands)
    yield "\nThis page is written from it by `python tools/proxy_reference.py --write`. docs/proxy-check.md says what"
    yield "the columns mean; `mvit-search proxy-check --analyse table.csv --html page.html` draws more.\n"
    yield from (f"- {sentence}" for sentence in found.recommendation.sentences)
    yield from (f"- {sentence}" for sentence in noise_sentences(found))
    yield "\n![Kendall's tau against processor seconds a candidate](tau.svg)\n"
    yield "## Every proxy\n"
    yield from _table(PAGE_COLUMNS, page_rows(found))
    yield "\n## Signal and noise\n"
    yield "Standard deviations of top-1, in points; the ratio is candidates over seeds.\n"
    yield from _table(SPREAD_COLUMNS, spread_rows(found))


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    yield "| " + " | ".join(columns) + " |"
    yield "|" + "---|" * len(columns)
    yield from ("| " + " | ".join(cells) + " |" for cells in rows)


# The plot: processor seconds (logarithmic) against tau with its interval, by hand so that it stays small.

_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 760, 420, 56, 40, 170, 48
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#7A5C00", "#E69F00", "#56B4E9", "#8A63D2")
_STYLE = """
svg{background:#fff}text{font:12px system-ui,sans-serif;fill:#333}.grid{stroke:#ddd}.zero{stroke:#888}
.size{stroke:#333;stroke-dasharray:5 4}
@media (prefers-color-scheme:dark){svg{background:#16181d}text{fill:#ddd}.grid{stroke:#333}.size{stroke:#ccc}}
"""


def _plot(subject: Subject, found: Findings) -> str:
    drawn = [one for one in found.judged if one.agreement and one.proxy.family not in (SIZE, LATENCY)]
    families = list(dict.fromkeys(one.proxy.family for one in drawn))
    colours = dict(zip(families, _COLOURS, strict=False))
    seconds = [max(0.05, one.proxy.cpu_seconds) for one in drawn]
    low, high = math.log(min(seconds) / 1.5), math.log(max(seconds) * 1.5)
    across, down = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def x(value: float) -> float:
        return _LEFT + across * (math.log(value) - low) / (high - low)

    def y(tau: float) -> float:
        return _TOP + down * (1 - tau) / 1.5

    title = f"{subject.title}: tau with 95 % interval against cost"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'role="img" aria-label="{escape(title)}">',
        f"<style>{_STYLE}</style>",
        f'<text x="{_LEFT}" y="18">{escape(title)}</text>',
        *(_horizontal(tau, y(tau)) for tau in (-0.5, -0.25, 0, 0.25, 0.5, 0.75, 1)),
        *(
            f'<path class="grid" d="M{x(tick):.1f} {_TOP}V{_TOP + down}"/>'
            f'<text x="{x(tick):.1f}" y="{_TOP + down + 16}" text-anchor="middle">{tick:g}</text>'
            for tick in (0.1, 0.3, 1, 3, 10, 30, 100, 300)
            if low <= math.log(tick) <= high
        ),
        *_baselines(found, y),
        *(_mark(one, x(max(0.05, one.proxy.cpu_seconds)), y, colours[one.proxy.family], found) for one in drawn),
        *(
            f'<circle cx="{_WIDTH - _RIGHT + 18}" cy="{_TOP + 20 * row + 8}" r="4" fill="{colours[family]}"/>'
            f'<text x="{_WIDTH - _RIGHT + 28}" y="{_TOP + 20 * row + 12}">{escape(family)}</text>'
            for row, family in enumerate(families)
        ),
        f'<text x="{_LEFT + across / 2}" y="{_HEIGHT - 10}" text-anchor="middle">processor seconds a candidate</text>',
        f'<text transform="translate(14 {_TOP + down / 2}) rotate(-90)" text-anchor="middle">Kendall\'s tau</text>',
    ]
    return "\n".join([*parts, "</svg>\n"])


def _horizontal(tau: float, at: float) -> str:
    return (
        f'<path class="{"zero" if tau == 0 else "grid"}" d="M{_LEFT} {at:.1f}H{_WIDTH - _RIGHT}"/>'
        f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{tau:g}</text>'
    )


def _baselines(found: Findings, y: Height) -> Iterator[str]:
    """A dashed line for what counting parameters does."""
    for one in found.judged:
        if one.proxy.name == "params" and one.agreement:
            at = y(one.agreement.tau.value)
            yield f'<path class="size" d="M{_LEFT} {at:.1f}H{_WIDTH - _RIGHT}"/>'
            yield f'<text x="{_WIDTH - _RIGHT + 4}" y="{at + 4:.1f}">params</text>'


def _mark(one: Judged, at: float, y: Height, colour: str, found: Findings) -> str:
    assert one.agreement is not None
    tau = one.agreement.tau
    chosen = found.recommendation.chosen is one
    told = f"{one.proxy.name}: tau {tau.value:.2f} [{tau.low:.2f}, {tau.high:.2f}], {one.proxy.cpu_seconds:.1f} CPU s"
    ring = f'<circle cx="{at:.1f}" cy="{y(tau.value):.1f}" r="9" fill="none" stroke="{colour}"/>' if chosen else ""
    return (
        f'<path d="M{at:.1f} {y(tau.low):.1f}V{y(tau.high):.1f}" stroke="{colour}" opacity=".35"/>{ring}'
        f'<circle cx="{at:.1f}" cy="{y(tau.value):.1f}" r="4" fill="{colour}"><title>{escape(told)}</title></circle>'
    )


if __name__ == "__main__":
    main()
