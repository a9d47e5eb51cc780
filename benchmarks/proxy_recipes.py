"""What makes a cheap training rank rightly? Variants of the default recipe, each held to one long schedule.

Candidates are drawn evenly over parameters and latency inside 6 M, presets first. The long schedule is the default
recipe's with eight times the epochs, several seeds. Every variant changes one thing of the short recipe. Printed for
each: processor seconds a candidate, Kendall tau with the long schedule's end (95 % bootstrap interval over candidates),
by how much it beats the unchanged recipe on the same resamples, and its own spread between candidates over that between
seeds. Rows go to OUT/table.csv; the same command again carries on.

    python benchmarks/proxy_recipes.py --out DIR [--data digits] [--candidates 24] [--images N] [--long N] [--time 9m]

Ends with `ratio tau-best-variant-over-default`. The best of many is flattered by its choice: trust the differences
whose whole interval lies on one side.
"""

import argparse
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from torch import nn

from mvit_search._quantities import parse_seconds
from mvit_search.architecture import network
from mvit_search.data import load_data
from mvit_search.latency import load_target
from mvit_search.proxy import Recipe, default_recipe, train
from mvit_search.ranking.candidates import Candidate, choose_candidates
from mvit_search.ranking.fidelity import Fidelity, fidelity, subset
from mvit_search.ranking.runner import jobs, run_jobs
from mvit_search.ranking.statistics import Agreement, advantage, agreement, spread
from mvit_search.ranking.worker import WorkerSettings
from mvit_search.records.table import TableRow, read_table
from mvit_search.space import load_space

LONG = 8
"""Times the default recipe's epochs."""


def variants(base: Recipe) -> dict[str, Recipe]:
    """One change each; steps of other batch sizes get the learning rate scaled by the root of the ratio."""
    batch, rate, side = base.batch_size, base.learning_rate, base.image_size
    found = {
        "batch-half": {"batch_size": batch // 2, "learning_rate": rate / 2**0.5},
        "batch-double": {"batch_size": batch * 2, "learning_rate": rate * 2**0.5},
        "rate-half": {"learning_rate": rate / 2},
        "rate-double": {"learning_rate": rate * 2},
        "rate-by-width": {"width_power": 1.0},
        "no-recalibration": {"recalibration_images": 0},
        "ema": {"ema_decay": 0.95},
        "no-smoothing": {"label_smoothing": 0.0},
        "no-views": {"area_low": 1.0, "area_high": 1.0, "max_shift": 0.0, "max_rotation_degrees": 0.0, "flip": False,
                     "max_aspect": 1.0},
        "multi-scale": {"scales": [max(16, round(side * share)) for share in (0.8, 1.0, 1.25)]},
        "larger-images": {"image_size": round(1.5 * side)},
        "half-the-epochs": {"epochs": max(1, base.epochs // 2), "warmup_epochs": base.warmup_epochs / 2},
        "twice-the-epochs": {"epochs": 2 * base.epochs},
    }  # fmt: skip
    return {name: base.changed(**changes) for name, changes in found.items()}


def main() -> None:
    arguments = parse_arguments()
    base = default_recipe(arguments.data)
    images = arguments.images or len(load_data(arguments.data, image_size=base.image_size).train_images)
    rungs = [base.epochs * k for k in (1, 2, 4)]
    long = fidelity(base.changed(epochs=arguments.long or LONG * base.epochs), images, rungs)
    chosen = {name: recipe for name, recipe in variants(base).items() if name in (arguments.only or variants(base))}
    ways = {"default": fidelity(base, images)}
    ways |= {name: fidelity(recipe, images, label=name) for name, recipe in chosen.items()}
    candidates = choose_candidates(
        load_space("mobilevit"), load_target("iphone12"), 6_000_000, arguments.candidates, smallest=500_000
    )
    print(f"{len(candidates)} candidates, long schedule {long.name}, {arguments.data}", flush=True)
    wanted = jobs(candidates, [long], arguments.seeds) + jobs(candidates, ways.values(), arguments.seeds)
    settings = WorkerSettings(arguments.data, held_out=arguments.held_out)
    with tempfile.TemporaryDirectory() as temporary:
        seconds = parse_seconds(arguments.time, "--time") if arguments.time else None
        out = arguments.out or Path(temporary)
        rows = read_table(run_jobs(wanted, settings, out, workers=arguments.workers, seconds=seconds))
    if arguments.initialisation:
        report_initialisation(rows, long, ways["default"], candidates, settings)
    report(rows, long, ways)


def report_initialisation(
    rows: tuple[TableRow, ...], long: Fidelity, way: Fidelity, candidates: tuple[Candidate, ...],
    settings: WorkerSettings,
) -> None:  # fmt: skip
    """The default recipe from first weights as transformers draws them; trained in this process."""
    loaded = load_data(settings.data, image_size=way.recipe.image_size, max_images=settings.images)
    data = subset(loaded, way.images, settings.held_out)
    final = by_digest(rows, long.name, long.recipe.epochs)
    usual = by_digest(rows, way.name, way.recipe.epochs)
    with small_weights():
        found = {
            c.config.digest(): train(c.config, data, way.recipe, seed=0, threads=1).top1
            for c in candidates
            if c.config.digest() in final and 0 in usual.get(c.config.digest(), {})
        }
    target = np.array([statistics.mean(final[digest].values()) for digest in found])
    own = agreement(np.array([list(found.values())]), target)
    peer = agreement(np.array([[usual[digest][0] for digest in found]]), target)
    assert own is not None
    assert peer is not None
    over = advantage(own, peer)
    print(f"first weights of 0.02, {len(found)} candidates: tau {own.tau.value:.2f} ({own.tau.low:.2f} to "
          f"{own.tau.high:.2f}), over default {over.value:+.2f} ({over.low:+.2f} to {over.high:+.2f}), mean top-1 "
          f"{100 * statistics.mean(found.values()):.1f} % against "
          f"{100 * statistics.mean(usual[digest][0] for digest in found):.1f} %")  # fmt: skip


@contextmanager
def small_weights() -> Iterator[None]:
    """Networks built within the block start as transformers' MobileViT does."""

    def small(module: nn.Module) -> None:
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    usual, network.initialise = network.initialise, small
    try:
        yield
    finally:
        network.initialise = usual


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="5 candidates, two variants, one seed: under 50 s")
    parser.add_argument("--data", default="digits", help="as `mvit-search run --data` takes it (default: digits)")
    parser.add_argument("--images", type=int, help="training images (default: all)")
    parser.add_argument("--held-out", type=int, help="images to score on (default: all)")
    parser.add_argument("--candidates", type=int, default=24)
    parser.add_argument("--long", type=int, help="epochs of the long schedule (default: 8 times the recipe's)")
    parser.add_argument("--seeds", type=int, default=2, help="of every training (default 2)")
    parser.add_argument("--initialisation", action="store_true", help="also from weights of 0.02, as transformers'")
    parser.add_argument("--only", nargs="*", help="variants to train (default: all)")
    parser.add_argument("--workers", type=int, default=2, help="trainings at once (default 2)")
    parser.add_argument("--out", type=Path, help="folder of table.csv (default: a temporary one)")
    parser.add_argument("--time", help="end of this chunk, for example 9m")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.candidates, arguments.images, arguments.seeds = 5, arguments.images or 200, 1
        arguments.only = ["batch-half", "ema"]
    return arguments


def report(rows: tuple[TableRow, ...], long: Fidelity, ways: dict[str, Fidelity]) -> None:
    final = by_digest(rows, long.name, long.recipe.epochs)
    reference = {digest: statistics.mean(values.values()) for digest, values in final.items()}
    ends = {name: by_digest(rows, way.name, way.recipe.epochs) for name, way in ways.items()}
    ends["rung of the long one"] = by_digest(rows, long.name, long.rungs[0])
    shared = [d for d in reference if all(d in found for found in ends.values())]
    print(f"\n{len(shared)} candidates have every variant; reference: {long.name}, mean of its seeds")
    if len(shared) < 4:
        return
    heads = ("CPU s", "tau", "95 % interval", "over default", "interval", "ratio")
    print("{:<22}{:>7}{:>7}  {:<16}{:>13}  {:<16}{:>6}".format("variant", *heads))
    target = np.array([reference[digest] for digest in shared])
    judged: dict[str, Agreement] = {}
    for name, found in ends.items():
        seeds = sorted(set.intersection(*(set(found[digest]) for digest in shared)))
        scores = np.array([[found[digest][seed] for digest in shared] for seed in seeds])
        own = agreement(scores, target)
        if own is None:
            continue
        judged[name] = own
        over = advantage(own, judged["default"])
        told = spread([list(found[digest].values()) for digest in shared]).ratio if len(seeds) > 1 else None
        way = ways.get(name)
        label, epoch = (way.name, way.recipe.epochs) if way else (long.name, long.rungs[0])
        seconds = statistics.median(row.cpu_seconds for row in rows if (row.fidelity, row.epoch) == (label, epoch))
        print(
            f"{name:<22}{seconds:>7.1f}{own.tau.value:>7.2f}  {f'{own.tau.low:.2f} to {own.tau.high:.2f}':<16}"
            f"{over.value:>+13.2f}  {f'{over.low:+.2f} to {over.high:+.2f}':<16}"
            + (f"{told:>6.2f}" if told else f"{'-':>6}")
        )
    best = max((own for name, own in judged.items() if name != "default"), key=lambda own: own.tau.value)
    print(
        f"ratio tau-best-variant-over-default: {max(0.0, best.tau.value) / max(1e-9, judged['default'].tau.value):.2f}"
    )


def by_digest(rows: tuple[TableRow, ...], label: str, epoch: int) -> dict[str, dict[int, float]]:
    """Top-1 by candidate and seed."""
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        if (row.fidelity, row.epoch) == (label, epoch) and row.top1 is not None:
            found.setdefault(row.digest, {})[row.seed] = row.top1
    return found


if __name__ == "__main__":
    main()
