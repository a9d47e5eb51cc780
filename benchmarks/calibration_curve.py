"""How the error of a predicted target falls with the number of own measurements, on simulated devices.

    python benchmarks/calibration_curve.py                  5, 10, 20, 40 candidates, chosen well, and at random
    python benchmarks/calibration_curve.py --target iphone14
    python benchmarks/calibration_curve.py --weights        what own rows should weigh, and whether published rows help

A simulated device has hidden coefficients around the target's, a cost that no feature counts, and noise; nothing here
is a phone, so the figures say what the method can do, and not what a phone will give. Errors are medians over
candidates that were not measured, of the predicted against the device's true latency, then medians over devices.
`--quick` takes fewer devices. The last lines are ratios of errors.
"""

import argparse
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mvit_search.analysis.space_survey import sample
from mvit_search.architecture import MobileViTConfig, operators
from mvit_search.architecture.ops import parts
from mvit_search.errors import MvitSearchError
from mvit_search.latency import PredictedTarget, load_target
from mvit_search.latency.calibrating.planning import d_optimal
from mvit_search.latency.calibrating.recalibration import OWN_WEIGHT, own_row
from mvit_search.latency.calibrating.results_table import Network, Result
from mvit_search.latency.calibrating.simulation import Hidden, SimulatedDevice, padded_work_gmacs
from mvit_search.latency.calibration import priors_of
from mvit_search.latency.features import features
from mvit_search.latency.fitting import Problem
from mvit_search.latency.target_file import MEASURED, Row, TargetFile
from mvit_search.space import load_space

Array = NDArray[np.float64]

SPACE, BUDGET = "mobilevit", 6_000_000
COUNTS = (5, 10, 20, 40)
HELD_OUT = 300
PAPER = f"{MEASURED}simulated"
TARGETS = ("iphone12", "iphone13", "iphone14")
WEIGHTS = (5, 15, 50, 100, 150, 500)
NEAR = Hidden()
SCATTERED = Hidden(noise=0.08)
FAR = Hidden(level=0.7, spread=0.6)


class Pool(NamedTuple):
    """Candidates, (P, F) features, the work of padded channels, and rows that lack a latency."""

    amounts: Array
    padding: Array
    rows: tuple[Row, ...]


class Sim(NamedTuple):
    """One device over a pool: true and measured milliseconds (P,), places at random and places held out."""

    true: Array
    measured: Array
    random: list[int]
    held_out: list[int]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--target", choices=TARGETS, help="one target instead of all")
    parser.add_argument("--devices", type=int, default=40, help="simulated devices a target (40)")
    parser.add_argument("--pool", type=int, default=2000, help="candidates to choose from (2000)")
    parser.add_argument("--weights", action="store_true", help="compare weights of own rows instead")
    parser.add_argument("--quick", action="store_true", help="8 devices, 500 candidates: under a minute")
    arguments = parser.parse_args()
    devices, size = (8, 500) if arguments.quick else (arguments.devices, arguments.pool)
    try:
        configs = drawn(size)
    except MvitSearchError as error:
        parser.error(str(error))
    ratios = []
    for name in [arguments.target] if arguments.target else TARGETS:
        target = load_target(name)
        assert isinstance(target, PredictedTarget)
        pool = pool_of(configs, target.file)
        if arguments.weights:
            print_weights(target.file, pool, devices)
        else:
            ratios += curve(target.file, pool, devices)
    print("\n".join(ratios))


def drawn(size: int) -> list[MobileViTConfig]:
    """Candidates of the default space inside the budget, spread evenly over it."""
    return [one.config for one in sample(load_space(SPACE), load_target("iphone12"), size, budget=BUDGET)]


def pool_of(configs: Sequence[MobileViTConfig], file: TargetFile) -> Pool:
    protocol = SimulatedDevice.near(file, 0).protocol
    weight = OWN_WEIGHT / file.settings.family_weight
    results = [
        Result(0, Network(f"{i}", config, 1000, "paper"), 1.0, 1.0, 1.0, protocol) for i, config in enumerate(configs)
    ]
    rows = tuple(own_row(result, PAPER, weight, result.network.name) for result in results)
    padding = np.array([padded_work_gmacs(operators(config, 1000)) for config in configs])
    return Pool(np.array([features(parts(config)) for config in configs]), padding, rows)


def simulated(file: TargetFile, pool: Pool, hidden: Hidden, seed: int, chosen: Sequence[int]) -> Sim:
    """A device over the pool; `chosen` is never held out."""
    device, random = SimulatedDevice.near(file, seed, hidden), np.random.default_rng(10_000 + seed)
    own = device.coefficients
    true = pool.amounts @ np.array(own) + hidden.padding * own.conv_work_gmacs * pool.padding
    measured = true * np.exp(random.normal(0, hidden.noise, len(true)))
    order = random.permutation(len(true)).tolist()
    taken, rest = order[: max(COUNTS)], [place for place in order[max(COUNTS) :] if place not in chosen]
    return Sim(true, measured, taken, rest[:HELD_OUT])


def refitted(file: TargetFile, pool: Pool, sim: Sim, places: Sequence[int], weight: float, *, published: bool) -> Array:
    """Coefficients of the refit that `recalibration` makes, at another weight if asked."""
    factor = weight / OWN_WEIGHT
    own = [
        pool.rows[p].model_copy(update={"latency_ms": float(sim.measured[p]), "weight": factor * pool.rows[p].weight})
        for p in places
    ]
    settings = file.settings.model_copy(update={"reference_papers": (PAPER,)})
    problem = Problem([*(file.rows if published else ()), *own], priors_of(file), settings)
    return problem.fit(problem.everything).coefficients


def error_percent(pool: Pool, sim: Sim, coefficients: Array) -> float:
    predicted = pool.amounts[sim.held_out] @ coefficients
    return 100 * float(np.median(np.abs(predicted / sim.true[sim.held_out] - 1)))


def scaled(file: TargetFile, pool: Pool, sim: Sim, places: Sequence[int]) -> Array:
    """The target's coefficients times one factor: the calibration that needs no refit."""
    own = np.array(file.values)
    logs = np.log(sim.measured[list(places)] / (pool.amounts[list(places)] @ own))
    return np.asarray(own * np.exp(np.median(logs)))


def curve(file: TargetFile, pool: Pool, devices: int) -> list[str]:
    """Print the errors by number of measured candidates; the ratios between them."""
    design = d_optimal([row.amounts for row in pool.rows], file, max(COUNTS)).chosen
    kinds = ("refit, D-optimal", "refit, random", "one factor, random")
    errors: dict[tuple[str, int], list[float]] = {(kind, count): [] for kind in kinds for count in COUNTS}
    before = []
    for seed in range(devices):
        sim = simulated(file, pool, NEAR, seed, design)
        before.append(error_percent(pool, sim, np.array(file.values)))
        for count in COUNTS:
            random = sim.random[:count]
            fits = (
                refitted(file, pool, sim, design[:count], OWN_WEIGHT, published=True),
                refitted(file, pool, sim, random, OWN_WEIGHT, published=True),
                scaled(file, pool, sim, random),
            )
            for kind, coefficients in zip(kinds, fits, strict=True):
                errors[kind, count].append(error_percent(pool, sim, coefficients))
    print(f"{file.name}: {devices} simulated devices, {len(pool.rows)} candidates; error in %: median (worst tenth)\n")
    print(f"{'measured':<10}" + "".join(f"{kind:>22}" for kind in kinds))
    print(f"{'none':<10}{_cell(before):>22}" + f"{_cell(before):>22}" * 2)
    for count in COUNTS:
        print(f"{count:<10}" + "".join(f"{_cell(errors[kind, count]):>22}" for kind in kinds))
    print()
    middle, uncalibrated = {key: median(values) for key, values in errors.items()}, median(before)
    first, last, optimal = COUNTS[0], COUNTS[-1], kinds[0]
    ratios = {f"uncalibrated-vs-{count}-d-optimal": uncalibrated / middle[optimal, count] for count in COUNTS}
    ratios[f"{first}-vs-{last}-d-optimal"] = middle[optimal, first] / middle[optimal, last]
    ratios |= {f"random-vs-d-optimal-{count}": middle[kinds[1], count] / middle[optimal, count] for count in COUNTS}
    return [f"ratio {file.name}-{name}: {ratio:.2f}" for name, ratio in ratios.items()]


def print_weights(file: TargetFile, pool: Pool, devices: int) -> None:
    """What an own row should weigh, beside published rows and without them."""
    design = d_optimal([row.amounts for row in pool.rows], file, max(COUNTS)).chosen
    for label, hidden in (("near", NEAR), ("near, 8 % scatter", SCATTERED), ("factor of two apart", FAR)):
        sims = [simulated(file, pool, hidden, seed, design) for seed in range(devices)]
        print(f"{file.name}, devices {label}: median error in %, D-optimal\n")
        print(f"{'own row weighs':<26}" + "".join(f"{count:>8}" for count in COUNTS))
        for weight, published in (*((weight, True) for weight in WEIGHTS), (OWN_WEIGHT, False)):
            cells = []
            for count in COUNTS:
                fits = [refitted(file, pool, sim, design[:count], weight, published=published) for sim in sims]
                found = [error_percent(pool, sim, fit) for sim, fit in zip(sims, fits, strict=True)]
                cells.append(f"{np.median(found):>8.2f}")
            print(f"{f'{weight:g}' if published else 'no published rows':<26}" + "".join(cells))
        print()


def _cell(errors: Sequence[float]) -> str:
    return f"{np.median(errors):.1f} ({np.quantile(errors, 0.9):.1f})"


if __name__ == "__main__":
    main()
