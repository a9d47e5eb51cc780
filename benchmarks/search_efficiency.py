"""Search efficiency: what the found front is worth against the training spent, ours beside other ways to search.

Trainings are those of a surrogate fitted to 27 real ones on CIFAR-10 (search/surrogate.py; 12 epochs), a landscape and
a noise of its own for every seed. Rung by rung a candidate has the top-1 of a complete schedule of as many epochs, and
pays the epochs that it adds. Each way has its front by what it observed of fully trained candidates inside the budget;
the front is then worth the hypervolume of their top-1 without the noise, in the box of twice MobileViT-S's latency:
that is what a user gets.

    python benchmarks/search_efficiency.py [--seeds 20] [--write] [--syne-tune PYTHON]
    python benchmarks/search_efficiency.py --quick
    python benchmarks/search_efficiency.py --real [--seeds 2]

`optuna`: a plain multi-objective study with Optuna's default sampler; what breaks the budget is trained all the same,
and told with its constraint. `optuna, checked`: that is told as complete, worst, and not trained; the goal is measured
against this one. `random`: uniform draws inside the budget. `nsga2`: Optuna's with its default population, checked.
`--real` trains on the built-in digits instead, 9 epochs, rungs 1, 3, 9, and scores both final fronts with fresh seeds.

Ends with `ratio NAME-over-optuna-checked`: image steps of all of its trainings over those that NAME needed for its
final hypervolume; the median over seeds, a seed that did not get there counts 0. The goal is 5 for ours.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from html import escape
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.samplers import BaseSampler, NSGAIISampler

from mvit_search._files import write_atomically
from mvit_search.architecture import PRESETS, MobileViTConfig
from mvit_search.latency import load_target
from mvit_search.records import RunFolder, hypervolume
from mvit_search.records.table import read_table
from mvit_search.search import RunSettings, run_search
from mvit_search.search.ladder import parse_rungs
from mvit_search.search.limits import Limits
from mvit_search.search.surrogate import LONG, Surrogate, SurrogateEvaluator, fit_surrogate
from mvit_search.search.task import Evaluator
from mvit_search.space import load_space

REFERENCE = Path(__file__).resolve().parent.parent / "results" / "reference"
TABLE = REFERENCE / "cifar10_proxy" / "table.csv"
OUT = REFERENCE / "search"
PEER = Path(__file__).resolve().parent.parent / "tools" / "syne_tune_peer.py"
BUDGET, EPOCHS, RUNGS, ETA = 6_000_000, LONG.epochs, "1,4,12", 3
TRAININGS = 120
GRID = 61
BAND = (0.1, 0.9)
GOAL = 5.0


class Trained(NamedTuple):
    """A candidate trained to the end, when `spent` epochs had been trained in all; top-1 observed and expected."""

    spent: float
    latency_ms: float
    top1: float
    expected: float


class World:
    """One seed's landscape, and what every way of searching it may know."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.space, self.limits = load_space("mobilevit"), Limits(BUDGET, 1000)
        self.target = load_target("iphone12")
        self.surrogate = Surrogate(fit_surrogate(read_table(TABLE)), self.space, self.limits, seed)
        self.worst_ms = 2 * self.latency_ms(PRESETS["mobilevit-s"])

    def latency_ms(self, config: MobileViTConfig) -> float:
        return self.target.latency(config, 1000).ms

    def trained(self, config: MobileViTConfig, spent: float) -> Trained:
        observed = self.surrogate.top1(config, self.seed, EPOCHS)
        return Trained(spent, self.latency_ms(config), observed, self.surrogate.expected(config, EPOCHS))


# The ways to search. Each gives what it trained to the end.


def plain(world: World, sampler: BaseSampler, trainings: int, *, checked: bool) -> list[Trained]:
    """An Optuna study of so many trainings. Checked: only what fits is trained, and nothing twice."""
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    distributions, known, done = world.space.distributions(), {}, []
    spent = 0
    while spent < trainings * EPOCHS:
        trial = study.ask(distributions)
        config = world.space.config(trial.params)
        over = world.limits.excess(config).get("params", 0.0)
        trial.set_constraint("params", over)
        values = (0.0, world.worst_ms) if over and checked else known.get(config.digest()) if checked else None
        if values is None:
            spent += EPOCHS
            one = world.trained(config, spent)
            values = known[config.digest()] = (one.top1, one.latency_ms)
            done += [] if over else [one]
        study.tell(trial, values)
    return done


def default_sampler(seed: int) -> BaseSampler:
    """Optuna's own choice for two objectives, with a seed."""
    chosen: Callable[..., BaseSampler] = type(optuna.create_study(directions=["maximize", "minimize"]).sampler)
    return chosen(seed=seed)


def uniform(world: World, trainings: int) -> list[Trained]:
    rng, done = Random(f"uniform {world.seed}"), []
    while len(done) < trainings:
        config = world.space.config(world.space.draw(rng))
        if not world.limits.excess(config):
            done.append(world.trained(config, (len(done) + 1) * EPOCHS))
    return done


def ours(world: World, trials: int, **changes: Any) -> list[Trained]:
    """A run of this project's engine; without finals, whose trainings none of the others has."""
    chosen = {"fidelity": "halving", "rungs": RUNGS, "eta": ETA, **changes}
    ladder = parse_rungs(RUNGS, ETA)
    if chosen["fidelity"] == "full":
        chosen, ladder = {"fidelity": "full", **changes}, ladder._replace(rungs=ladder.rungs[-1:])
    records = run(world.seed, EPOCHS, trials, SurrogateEvaluator(world.surrogate, ladder), data="digits", **chosen)[1]
    epoch = world.surrogate.fit.image_steps
    valued = sorted(((e.ended, e, record) for record in records for e in record.evaluations), key=lambda one: one[0])
    done, spent = [], 0.0
    for _, one, record in valued:
        spent += one.image_steps / epoch
        if one.rung == ladder.top and one.value is not None:
            done.append(world.trained(record.config, spent))
    return done


def run(seed: int, epochs: int, trials: int, evaluator: Evaluator | None, **settings: Any) -> tuple[Any, Sequence[Any]]:
    """A run in a folder that is thrown away: its front document and records."""
    whole = RunSettings(
        target="iphone12", trials=trials, time_s=1e9, seed=seed, epochs=epochs, cache=False,
        **{"final_seeds": 1, "budget": BUDGET, **settings},
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        folder = RunFolder(Path(temporary) / "run")
        return run_search(whole, folder, evaluator=evaluator), folder.records()


def mo_asha(world: World, epochs: int, python: str) -> list[Trained]:
    """Syne Tune's scheduler, uniform draws and all; what breaks the budget is drawn again for nothing."""
    told = {"space": world.space.dimensions, "seed": world.seed, "epochs": EPOCHS, "eta": ETA}
    done: list[Trained] = []
    config, spent = PRESETS["mobilevit-s"], 0
    with subprocess.Popen(
        [python, PEER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as peer:
        assert peer.stdin is not None
        assert peer.stdout is not None
        answer: Any = told
        while spent < epochs:
            peer.stdin.write(json.dumps(answer) + "\n")
            peer.stdin.flush()
            asked = json.loads(peer.stdout.readline())
            if "config" in asked:
                config = world.space.config(asked["config"])
                answer = None if world.limits.excess(config) else {}
                continue
            spent += 1
            top1 = world.surrogate.top1(config, world.seed, asked["epoch"])
            answer = {"error": 1 - top1, "latency_ms": world.latency_ms(config)}
            if asked["epoch"] == EPOCHS:
                done.append(world.trained(config, spent))
        peer.kill()
    return done


WAYS: dict[str, Callable[[World, int], list[Trained]]] = {
    "ours, halving": lambda world, n: ours(world, round(1.1 * n), sampler="assisted"),
    "ours, halving, nsga2": lambda world, n: ours(world, round(1.1 * n), sampler="nsga2"),
    "ours, full": lambda world, n: ours(world, n, fidelity="full", sampler="assisted"),
    "optuna": lambda world, n: plain(world, default_sampler(world.seed), n, checked=False),
    "optuna, checked": lambda world, n: plain(world, default_sampler(world.seed), n, checked=True),
    "random": uniform,
    "nsga2": lambda world, n: plain(world, NSGAIISampler(seed=world.seed), n, checked=True),
}
AGAINST = "optuna, checked"


# What they are worth.


def worth(done: Sequence[Trained], worst_ms: float, spent: float = float("inf")) -> float:
    """Of the front that was observed when so much was spent: the hypervolume of what is expected of it."""
    front: list[Trained] = []
    for one in sorted((one for one in done if one.spent <= spent), key=lambda one: (one.latency_ms, -one.top1)):
        if not front or one.top1 > front[-1].top1:
            front.append(one)
    return hypervolume([(one.latency_ms, one.expected) for one in front], worst_ms)


class Curve(NamedTuple):
    """Of one way and seed: worth at every share of the full training (GRID), and (epochs, worth) when it changed."""

    way: str
    seed: int
    values: tuple[float, ...]
    steps: tuple[tuple[float, float], ...]

    def reached(self, wanted: float) -> float | None:
        """Epochs after which it was worth so much."""
        return next((spent for spent, value in self.steps if value >= wanted), None)


def curves_of(job: tuple[int, int, str | None]) -> list[Curve]:
    """Every way with one seed."""
    seed, trainings, python = job
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    world = World(seed)
    ways = dict(WAYS)
    if python:
        ways["syne tune mo-asha"] = lambda world, n: mo_asha(world, n * EPOCHS, python)
    grid = np.linspace(0, trainings * EPOCHS, GRID)
    found = []
    for way, search in ways.items():
        done = search(world, trainings)
        steps = tuple((one.spent, worth(done, world.worst_ms, one.spent)) for one in done)
        found.append(Curve(way, seed, tuple(worth(done, world.worst_ms, at) for at in grid), steps))
    return found


class Summary(NamedTuple):
    """Of one way over all seeds. `ratio`: see the module; `reach`: share of seeds that got there within a fifth."""

    way: str
    low: np.ndarray
    median: np.ndarray
    high: np.ndarray
    ratio: tuple[float, float, float]
    reach: float


def summaries(curves: Sequence[Curve], trainings: int) -> list[Summary]:
    goals = {curve.seed: curve.values[-1] for curve in curves if curve.way == AGAINST}
    whole = trainings * EPOCHS
    found = []
    for way in dict.fromkeys(curve.way for curve in curves):
        own = [curve for curve in curves if curve.way == way]
        needed = [curve.reached(goals[curve.seed]) for curve in own]
        ratios = [whole / epochs if epochs else 0.0 for epochs in needed]
        low, median, high = np.quantile([curve.values for curve in own], (BAND[0], 0.5, BAND[1]), axis=0)
        bounds = (statistics.median(ratios), *np.quantile(ratios, BAND).tolist())
        reach = sum(ratio >= GOAL for ratio in ratios) / len(ratios)
        found.append(Summary(way, low, median, high, bounds, reach))
    return found


def table(found: Sequence[Summary], trainings: int, seeds: int) -> Iterator[str]:
    shares = {"5 %": 3, "10 %": 6, "20 %": 12, "50 %": 30, "100 %": 60}
    yield f"Hypervolume (%) at shares of {trainings} full trainings: median [80 % band] over {seeds} seeds\n"
    yield f"{'':<20}" + "".join(f"{share:>20}" for share in shares)
    for one in found:
        cells = (
            f"{100 * one.median[at]:.2f} [{100 * one.low[at]:.1f}, {100 * one.high[at]:.1f}]" for at in shares.values()
        )
        yield f"{one.way:<20}" + "".join(f"{cell:>20}" for cell in cells)
    yield f"\n{'':<20}{'times fewer image steps to the end of ' + AGAINST:>54}{'within a fifth':>18}"
    for one in found:
        middle, low, high = one.ratio
        yield f"{one.way:<20}{f'{middle:.1f} [{low:.1f}, {high:.1f}]':>54}{f'{100 * one.reach:.0f} %':>18}"
    yield ""
    yield from (
        f"ratio {one.way.replace(', ', '-').replace(' ', '-')}-over-optuna-checked: {one.ratio[0]:.2f}"
        for one in found
        if one.way != AGAINST
    )


def main() -> None:
    arguments = parse_arguments()
    if arguments.real:
        from search_efficiency_real import real

        real(arguments.seeds or 2)
        return
    seeds, trainings = arguments.seeds or 20, arguments.trainings
    if arguments.quick:
        seeds, trainings = 2, 30
    jobs = [(seed, trainings, arguments.syne_tune) for seed in range(seeds)]
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the seeds are what runs at once
    curves: list[Curve] = []
    with ProcessPoolExecutor(arguments.workers, mp_context=get_context("spawn")) as pool:
        for seed, found in enumerate(pool.map(curves_of, jobs)):
            curves += found
            print(f"seed {seed}: " + ", ".join(f"{one.way} {100 * one.values[-1]:.2f}" for one in found), flush=True)
    summed = summaries(curves, trainings)
    print("\n".join(["", *table(summed, trainings, seeds)]))
    if arguments.write:
        OUT.mkdir(parents=True, exist_ok=True)
        write_atomically(OUT / "efficiency.csv", csv_of(summed, trainings))
        write_atomically(OUT / "efficiency.svg", svg_of(summed, trainings, seeds))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="2 seeds, 30 trainings: under 50 s")
    parser.add_argument("--seeds", type=int, help="landscapes, each with its own noise (default 20; real 2)")
    parser.add_argument("--trainings", type=int, default=TRAININGS, help="full trainings of the others (default 120)")
    parser.add_argument("--workers", type=int, default=2, help="seeds at once (default 2)")
    parser.add_argument("--syne-tune", metavar="PYTHON", help="interpreter of an environment that has syne-tune")
    parser.add_argument("--real", action="store_true", help="train for real on the built-in digits, two ways alone")
    parser.add_argument("--write", action="store_true", help=f"write efficiency.csv and .svg to {OUT.name}/")
    return parser.parse_args()


def csv_of(found: Sequence[Summary], trainings: int) -> str:
    lines = ["way,full_trainings,low,median,high"]
    for one in found:
        for place in range(GRID):
            at = trainings * place / (GRID - 1)
            lines.append(
                f"{one.way.replace(',', '')},{at:g},{one.low[place]:.4f},{one.median[place]:.4f},{one.high[place]:.4f}"
            )
    return "\n".join(lines) + "\n"


_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 820, 460, 56, 40, 170, 48
_COLOURS = ("#D55E00", "#E69F00", "#56B4E9", "#0072B2", "#7A5C00", "#009E73", "#CC79A7", "#8A63D2")
_STYLE = """
svg{background:#fff}text{font:12px system-ui,sans-serif;fill:#333}.grid{stroke:#ddd}
.goal{stroke:#333;stroke-dasharray:5 4}
@media (prefers-color-scheme:dark){svg{background:#16181d}text{fill:#ddd}.grid{stroke:#333}.goal{stroke:#ccc}}
"""


def svg_of(found: Sequence[Summary], trainings: int, seeds: int) -> str:
    """Median and band of every way, by hand so that it stays small."""
    across, down = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    first = 3  # before that nobody has a front
    low = np.floor(50 * min(float(one.low[first:].min()) for one in found)) / 50
    high = np.ceil(50 * max(float(one.high.max()) for one in found)) / 50

    def x(place: float) -> float:
        return _LEFT + across * place / (GRID - 1)

    def y(value: float) -> float:
        return _TOP + down * (1 - (max(value, low) - low) / (high - low))

    def path(values: Sequence[float], places: Sequence[int]) -> str:
        return "L".join(f"{x(place):.1f} {y(values[place]):.1f}" for place in places)

    title = f"What the front is worth against training spent: median and 80 % band over {seeds} seeds"
    places, fifth = range(1, GRID), (GRID - 1) / 5
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'role="img" aria-label="{escape(title)}">',
        f"<style>{_STYLE}</style>",
        f'<text x="{_LEFT}" y="18">{escape(title)}</text>',
    ]
    for tick in np.arange(low, high + 0.001, 0.02):
        parts.append(
            f'<path class="grid" d="M{_LEFT} {y(tick):.1f}H{_WIDTH - _RIGHT}"/>'
            f'<text x="{_LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{100 * tick:.0f}</text>'
        )
    for place in range(0, GRID, 10):
        spent = f"{trainings * place / (GRID - 1):g}"
        parts.append(f'<text x="{x(place):.1f}" y="{_TOP + down + 16}" text-anchor="middle">{spent}</text>')
    parts.append(f'<path class="goal" d="M{x(fifth):.1f} {_TOP}V{_TOP + down}"/>')
    parts.append(f'<text x="{x(fifth) + 4:.1f}" y="{_TOP + down - 6}">a fifth</text>')
    for row, (one, colour) in enumerate(zip(found, _COLOURS, strict=False)):
        band = f"M{path(one.low.tolist(), places)}L{path(one.high.tolist(), places[::-1])}Z"
        parts += [
            f'<path d="{band}" fill="{colour}" opacity=".1"/>',
            f'<path d="M{path(one.median.tolist(), places)}" fill="none" stroke="{colour}" stroke-width="2"/>',
            f'<path d="M{_WIDTH - _RIGHT + 10} {_TOP + 20 * row + 8}h16" stroke="{colour}" stroke-width="3"/>'
            f'<text x="{_WIDTH - _RIGHT + 32}" y="{_TOP + 20 * row + 12}">{escape(one.way)}</text>',
        ]
    parts += [
        f'<text x="{_LEFT + across / 2}" y="{_HEIGHT - 10}" text-anchor="middle">spent, in full trainings</text>',
        f'<text transform="translate(14 {_TOP + down / 2}) rotate(-90)" text-anchor="middle">hypervolume (%)</text>',
    ]
    return "\n".join([*parts, "</svg>\n"])


if __name__ == "__main__":
    main()
