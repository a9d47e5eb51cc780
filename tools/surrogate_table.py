"""Write a table of surrogate trainings, for studying search itself: `mvit-search run --table FILE` replays it.

    python tools/surrogate_table.py --space mobilevit --budget 6M --candidates 4000 --seeds 3 --out table.csv
    mvit-search run --budget 6M --target iphone12 --fidelity halving \\
        --table 'table.csv#32px-5000img-1ep+32px-5000img-4ep+32px-5000img-12ep'

MobileViT-XXS, XS and S inside the budget, then draws spread evenly over it, each with complete schedules of 1, 4 and 12
epochs. `--way` adds the long schedule at 1, 2, 4, 6 and 8 epochs: `--table table.csv#32px-5000img-12ep` then has rungs
of one schedule.

The surrogate is fitted to the 27 real trainings of results/reference/cifar10_proxy by three features (log MACs, mean
kernel, mean expand ratio; ridge regression): leaving one candidate out it errs by 1.5 points after 12 epochs, where
candidates differ by 2.2 and seeds by 0.8. The rest is a random smooth function, another for each `--landscape`.
docs/search-efficiency.md has the fit, and how well its schedules rank each other. `--check` prints both.
"""

import argparse
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau

from mvit_search._quantities import parse_count
from mvit_search.architecture import PRESETS, MobileViTConfig
from mvit_search.profile import cost
from mvit_search.records.table import TableRow, read_table, write_table
from mvit_search.search.limits import Limits
from mvit_search.search.proposals import draw_evenly
from mvit_search.search.surrogate import LONG, POINTS, Fit, Surrogate, fit_surrogate
from mvit_search.space import SearchSpace, load_space

TABLE = Path(__file__).resolve().parent.parent / "results" / "reference" / "cifar10_proxy" / "table.csv"
WAY = tuple(point.epoch for point in POINTS if not point.complete)


def main() -> None:
    arguments = parse_arguments()
    space, limits = load_space(arguments.space), Limits(parse_count(arguments.budget, "--budget"), 1000)
    measured = read_table(TABLE)
    fit = fit_surrogate(measured)
    if arguments.check:
        print("\n".join(check(fit, measured, arguments.landscapes)))
        return
    surrogate = Surrogate(fit, space, limits, arguments.landscape)
    epochs = tuple(int(text) for text in arguments.epochs.split(","))
    candidates = chosen(space, limits, arguments.candidates, arguments.landscape)
    rows = [
        row
        for name, config in candidates
        for seed in range(arguments.seeds)
        for row in trained(surrogate, name, config, seed, epochs, WAY if arguments.way else ())
    ]
    write_table(arguments.out, rows)
    print(f"{len(candidates):,} candidates, {len(rows):,} rows in {arguments.out}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--space", default="mobilevit")
    parser.add_argument("--budget", default="6M", help="most parameters")
    parser.add_argument("--candidates", type=int, default=4000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", default="1,4,12", help=f"complete schedules, up to {LONG.epochs} (default 1,4,12)")
    parser.add_argument("--way", action="store_true", help="also the longest schedule on its way")
    parser.add_argument("--landscape", type=int, default=0, help="which random function (default 0)")
    parser.add_argument("--check", action="store_true", help="print the fit and its taus beside the measured ones")
    parser.add_argument("--landscapes", type=int, default=40, help="of --check (default 40)")
    parser.add_argument("--out", type=Path, default=Path("surrogate.csv"))
    return parser.parse_args()


def chosen(space: SearchSpace, limits: Limits, count: int, seed: int) -> list[tuple[str, MobileViTConfig]]:
    """Presets that are inside, then distinct draws; each with its name."""
    names = ("mobilevit-xxs", "mobilevit-xs", "mobilevit-s")
    found = {PRESETS[name]: name for name in names if PRESETS[name] in space and not limits.excess(PRESETS[name])}
    rng = random.Random(f"surrogate table {seed}")
    for _ in range(20 * count):
        if len(found) >= count:
            break
        found.setdefault(space.config(draw_evenly(space, limits, rng.random(), rng)), "")
    return [(name, config) for config, name in found.items()][:count]


def trained(
    surrogate: Surrogate, name: str, config: MobileViTConfig, seed: int, complete: Sequence[int], way: Sequence[int]
) -> Iterator[TableRow]:
    """A row a schedule, and for each epoch on the way of the longest."""
    costs = cost(config)
    for length, epoch in [*((epochs, epochs) for epochs in complete), *((LONG.epochs, epoch) for epoch in way)]:
        top1 = surrogate.top1(config, seed, epoch, way=length if epoch < length else None)
        yield TableRow(
            name=name, digest=config.digest(), seed=seed, recipe="surrogate", data="surrogate",
            fidelity=f"32px-5000img-{length}ep", epoch=epoch, epochs=length, top1=round(top1, 5), loss=None,
            image_steps=epoch * surrogate.fit.image_steps, cpu_seconds=round(surrogate.seconds(config, epoch), 2),
            params=costs.params, macs=costs.macs, latency_ms=None, error="", config=config,
        )  # fmt: skip


def check(fit: Fit, measured: Sequence[TableRow], landscapes: int) -> Iterator[str]:
    """A Markdown table: the fit, and the surrogate's own candidates beside the measured ones."""
    found = {(row.digest, row.fidelity, row.epoch): row for row in measured if row.seed == 0 and row.top1 is not None}
    rows = [row for row in found.values() if (row.fidelity, row.epoch) == (LONG.fidelity, LONG.epoch)]
    real = np.array([[100 * (found[row.digest, p.fidelity, p.epoch].top1 or 0) for p in POINTS] for row in rows])
    space, limits = load_space("mobilevit"), Limits(6_000_000, 1000)
    drawn = []
    for landscape in range(landscapes):
        surrogate = Surrogate(fit, space, limits, landscape)
        drawn.append([
            [100 * surrogate.top1(row.config, 0, p.epoch, way=None if p.complete else p.epochs) for p in POINTS]
            for row in rows
        ])  # fmt: skip
    errors = np.sqrt((fit.errors**2).mean(axis=0))
    left, noise = ((root @ root.T).diagonal() ** 0.5 for root in (fit.unexplained, fit.noise))
    yield "| schedule | error | unexplained | seeds | candidates: real, surrogate | tau: real, surrogate |"
    yield "|---|---|---|---|---|---|"
    for place, point in enumerate(POINTS):
        complete = f"{point.epochs} epoch{'s' * (point.epochs > 1)}"
        name = complete if point.complete else f"epoch {point.epoch} of {point.epochs}"
        spreads = [np.std(values, axis=0, ddof=1)[place] for values in drawn]
        taus = [_tau(np.array(values), place) for values in drawn]
        yield (
            f"| {name} | {errors[place]:.2f} | {left[place]:.2f} | {noise[place]:.2f} "
            f"| {real[:, place].std(ddof=1):.1f}, {_band(spreads, 1)} | {_tau(real, place):.2f}, {_band(taus, 2)} |"
        )


def _tau(values: np.ndarray, place: int) -> float:
    return float(kendalltau(values[:, place], values[:, -1]).statistic)


def _band(values: Sequence[float], digits: int) -> str:
    low, middle, high = np.quantile(values, (0.1, 0.5, 0.9))
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


if __name__ == "__main__":
    main()
