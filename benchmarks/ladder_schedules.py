"""What should a rung of successive halving be? Three ways to the same epochs, one schedule or several.

    long        one schedule to the last rung's epochs, scored on its way: rungs at a high learning rate
    ladder-1    every rung a complete schedule of its own, from the weights that the rung below left
    ladder-0.5  the same, with that share of the peak learning rate in all rungs but the lowest

Candidates are drawn evenly over parameters and latency inside 6 M, presets first; the recipe is the data's default one.
Printed for each way: mean top-1 at the end and by how much it is above the long schedule's (paired over candidates and
seeds, 95 % bootstrap interval over candidates), the spread between seeds, and for each rung Kendall tau of its top-1
with the end of the same training, and with the mean end over all ways and seeds.

    python benchmarks/ladder_schedules.py [--data digits] [--rungs 1,3,9] [--peaks 1 0.5] [--candidates N] [--seeds N]
        [--images N] [--held-out N] [--out DIR] [--time 9m]

Rows go to OUT/table.csv, seed by seed and candidate by candidate; the same command again carries on. Ends with
`ratio top1-ladder-over-long`.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mvit_search._quantities import parse_seconds
from mvit_search.data import ImageSet, load_data
from mvit_search.errors import TrainingDiverged
from mvit_search.latency import load_target
from mvit_search.proxy import ProxyResult, Recipe, Rung, default_recipe, train
from mvit_search.ranking.candidates import Candidate, choose_candidates
from mvit_search.ranking.fidelity import subset
from mvit_search.ranking.statistics import agreement, resamples, spread
from mvit_search.records.table import TableRow, append_rows, read_table
from mvit_search.search.evaluator import rung_seed
from mvit_search.search.ladder import Ladder, parse_rungs
from mvit_search.space import load_space

BUDGET, SMALLEST = 6_000_000, 500_000

Values = dict[tuple[str, int], dict[int, float]]
"""(digest, seed) -> epochs -> top-1."""


class Way(NamedTuple):
    """How a candidate gets to the last rung's epochs; `peak` None is the one long schedule."""

    name: str
    peak: float | None


def main() -> None:
    arguments = parse_arguments()
    ladder = parse_rungs(arguments.rungs, 3)
    recipe = default_recipe(arguments.data).changed(epochs=ladder.rungs[-1].epochs)
    data = load_data(arguments.data, image_size=recipe.image_size)
    data = subset(data, arguments.images or len(data.train_images), arguments.held_out)
    ways = [Way("long", None), *(Way(f"ladder-{peak:g}", peak) for peak in arguments.peaks)]
    candidates = choose_candidates(
        load_space("mobilevit"), load_target("iphone12"), BUDGET, arguments.candidates, smallest=SMALLEST
    )
    print(f"{len(candidates)} candidates, {data.source}, rungs {arguments.rungs}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        table = (arguments.out or Path(temporary)) / "table.csv"
        table.parent.mkdir(parents=True, exist_ok=True)
        seconds = parse_seconds(arguments.time, "--time") if arguments.time else None
        fill(table, candidates, ways, range(arguments.seeds), Trainings(data, recipe, ladder, Path(temporary)), seconds)
        report(read_table(table), ways, [rung.epochs for rung in ladder.rungs])


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="4 candidates, rungs 1,2, one seed, 200 digits")
    parser.add_argument("--data", default="digits", help="as `mvit-search run --data` takes it (default: digits)")
    parser.add_argument("--rungs", default="1,3,9", help="epochs of the rungs (default 1,3,9)")
    parser.add_argument("--peaks", nargs="+", type=float, default=[1.0, 0.5], help="of later rungs (default 1 0.5)")
    parser.add_argument("--candidates", type=int, default=14)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--images", type=int, help="training images (default: all)")
    parser.add_argument("--held-out", type=int, help="images to score on (default: all)")
    parser.add_argument("--out", type=Path, help="folder of table.csv (default: a temporary one)")
    parser.add_argument("--time", help="begin no training after this, for example 9m")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.candidates, arguments.seeds, arguments.rungs, arguments.images = 4, 1, "1,2", 200
    return arguments


class Trainings:
    """Trains a candidate in any of the ways, on one thread."""

    def __init__(self, data: ImageSet, recipe: Recipe, ladder: Ladder, folder: Path) -> None:
        self.data, self.recipe, self.ladder, self._folder = data, recipe, ladder, folder

    def rungs(self, candidate: Candidate, seed: int, way: Way) -> Iterator[Rung]:
        """Scores with epochs, images and seconds counted from the start."""
        if way.peak is None:
            epochs = [rung.epochs for rung in self.ladder.rungs]
            yield from train(candidate.config, self.data, self.recipe, seed=seed, threads=1, rungs=epochs).rungs
            return
        first, spent = None, Rung(0, 0.0, 0.0, 0, 0.0, 0.0)
        for index in range(len(self.ladder.rungs)):
            keep = self._folder / f"{index}.weights"
            result = self._rung(candidate, seed, index, way.peak, first, keep)
            spent = added(spent, result.rungs[-1])
            first = keep
            yield spent

    def _rung(
        self, candidate: Candidate, seed: int, index: int, peak: float, first: Path | None, keep: Path
    ) -> ProxyResult:
        epochs = self.ladder.epochs_of(index)
        rate = self.recipe.learning_rate * (peak if index else 1)
        recipe = self.recipe.changed(epochs=epochs, learning_rate=rate)
        return train(
            candidate.config, self.data, recipe, seed=rung_seed(seed, index), threads=1, first_weights=first,
            keep_weights=keep,
        )  # fmt: skip


def added(before: Rung, now: Rung) -> Rung:
    return Rung(
        before.epoch + now.epoch, now.top1, now.loss, before.image_steps + now.image_steps,
        before.seconds + now.seconds, before.cpu_seconds + now.cpu_seconds,
    )  # fmt: skip


def fill(
    table: Path, candidates: Sequence[Candidate], ways: Sequence[Way], seeds: range, trainings: Trainings,
    seconds: float | None,
) -> None:  # fmt: skip
    """Train what the table lacks, until the time is up."""
    done = {(row.digest, row.seed, row.fidelity) for row in read_table(table)} if table.exists() else set()
    end = time.monotonic() + (seconds or 1e9)
    for seed in seeds:
        for candidate in candidates:
            for way in ways:
                if (candidate.config.digest(), seed, way.name) in done:
                    continue
                if time.monotonic() > end:
                    return
                try:
                    rungs = list(trainings.rungs(candidate, seed, way))
                except TrainingDiverged as error:
                    print(f"{way.name}, seed {seed}, {candidate.config.digest()[:12]}: {error}", flush=True)
                    continue
                append_rows(table, [row(candidate, seed, way, rung, trainings) for rung in rungs])
                print(f"seed {seed} {candidate.name or candidate.config.digest()[:12]:<15}{way.name:<12}"
                      + "".join(f"{100 * rung.top1:6.1f}" for rung in rungs), flush=True)  # fmt: skip


def row(candidate: Candidate, seed: int, way: Way, rung: Rung, trainings: Trainings) -> TableRow:
    return TableRow(
        name=candidate.name, digest=candidate.config.digest(), seed=seed, recipe=trainings.recipe.digest()[:12],
        data=trainings.data.digest[:12], fidelity=way.name, epoch=rung.epoch, epochs=trainings.recipe.epochs,
        top1=rung.top1, loss=round(rung.loss, 6), image_steps=rung.image_steps,
        cpu_seconds=round(rung.cpu_seconds, 3), params=candidate.params, macs=candidate.macs,
        latency_ms=round(candidate.latency_ms, 4), error="", config=candidate.config,
    )  # fmt: skip


def report(rows: Sequence[TableRow], ways: Sequence[Way], rungs: Sequence[int]) -> None:
    """Of the trainings that every way has."""
    found: dict[str, Values] = {way.name: {} for way in ways}
    for one in rows:
        if one.top1 is not None and one.fidelity in found:
            found[one.fidelity].setdefault((one.digest, one.seed), {})[one.epoch] = one.top1
    shared = set.intersection(*(set(values) for values in found.values()))
    digests = list(dict.fromkeys(one.digest for one in rows if (one.digest, 0) in shared))
    seeds = [seed for seed in sorted({s for _, s in shared}) if all((digest, seed) in shared for digest in digests)]
    end = rungs[-1]
    print(f"\n{len(digests)} candidates with seeds {', '.join(map(str, seeds))} in every way")
    tops = {name: {rung: tops_of(values, digests, seeds, rung) for rung in rungs} for name, values in found.items()}
    common = np.mean([top[end].mean(axis=0) for top in tops.values()], axis=0)
    print(f"{'way':<12}{'end, %':>7}{'over long':>11}  {'interval':<16}{'seeds':>6}   tau of each rung with its end, "
          f"and with the mean end of all")  # fmt: skip
    for name, top in tops.items():
        print_way(name, top, tops["long"][end], common, found[name], rungs)
    best = max(top[end].mean() for name, top in tops.items() if name != "long")
    print(f"ratio top1-ladder-over-long: {best / tops['long'][end].mean():.3f}")


def tops_of(values: Values, digests: Sequence[str], seeds: Sequence[int], rung: int) -> NDArray[np.float64]:
    """(seeds, candidates), 0..1."""
    return np.array([[values[digest, seed][rung] for digest in digests] for seed in seeds])


def print_way(
    name: str, top: Mapping[int, NDArray[np.float64]], long: NDArray[np.float64], common: NDArray[np.float64],
    values: Values, rungs: Sequence[int],
) -> None:  # fmt: skip
    end = top[rungs[-1]]
    gains = 100 * (end - long).mean(axis=0)
    drawn = resamples(len(gains), 2000, 0) @ gains / len(gains)
    low, high = np.quantile(drawn, [0.025, 0.975])
    repeated: dict[str, list[float]] = {}
    for (digest, _), by_epoch in values.items():
        repeated.setdefault(digest, []).append(100 * by_epoch[rungs[-1]])
    rows = [row for row in repeated.values() if len(row) > 1]
    within = spread(rows).within if len(rows) > 1 else None
    taus = "; ".join(f"{rung}: {tau(top[rung], end)}, {tau(top[rung], common)}" for rung in rungs)
    shown = f"{within:6.2f}" if within is not None else f"{'-':>6}"
    print(
        f"{name:<12}{100 * end.mean():>7.2f}{gains.mean():>+11.2f}  {f'{low:+.2f} to {high:+.2f}':<16}{shown}   {taus}"
    )


def tau(scores: NDArray[np.float64], reference: NDArray[np.float64]) -> str:
    """Mean over seeds of the tau of one row of scores with the reference (of its own seed, where it has several)."""
    references = reference if reference.ndim == 2 else [reference] * len(scores)
    pairs = [agreement(score[None], own) for score, own in zip(scores, references, strict=True)]
    known = [pair.tau for pair in pairs if pair is not None]
    if not known:
        return "-"
    value, low, high = (statistics.mean(getattr(one, field) for one in known) for field in ("value", "low", "high"))
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    main()
