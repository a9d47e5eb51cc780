"""What a search does best with proposals over the limit, and which sampler finds most; with accuracies by formula.

    python benchmarks/search_rejections.py [--quick] [--part rejections|samplers|asks] [--budget 2M] [--seeds N] ...

Space `mobilevit`, at most 6 M parameters (half of uniform draws fit; of 2 M one in 130), latencies predicted for the
iPhone 12, generations of 20. The accuracy is a ridge regression, fitted to the trainings in
results/reference/cifar10_proxy/table.csv, plus one point of noise by candidate and seed. What counts is what the
search's front is worth without the noise: hypervolume above the accuracy of the smallest network, in points of top-1
times the share of the latencies up to twice MobileViT-S's. The ways to treat a proposal that is over the limit:

    told      complete, with the worst of both objectives and the broken constraint; repeated ones with the known values
    away      sampled away: asked again until one fits and is new, and never told
    failed    told as failed; repeated ones as above

After 50 fruitless proposals in a row a candidate is drawn evenly over the budget, whichever way. Intervals are 95 %
over seeds (Student's t); ratios are of the same seeds.
"""

import argparse
import csv
import json
import math
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mvit_search._quantities import parse_count
from mvit_search.architecture import PRESETS, MobileViTConfig, parse_config
from mvit_search.latency import load_target
from mvit_search.profile import cost
from mvit_search.records import hypervolume
from mvit_search.search.limits import Limits
from mvit_search.search.proposals import draw_evenly, unseen
from mvit_search.search.samplers import Problem, Turn, make_sampler
from mvit_search.search.sampling import Draft, Sampling
from mvit_search.space import Params, load_space

TABLE = Path(__file__).resolve().parent.parent / "results" / "reference" / "cifar10_proxy" / "table.csv"
FIDELITY = "32px-5000img-12ep"
POPULATION, FRUITLESS, NOISE = 20, 50, 0.01
CHECKPOINTS = (24, 60, 120, 400)
WAYS = ("told", "away", "failed")
SPACE = load_space("mobilevit")
DISTRIBUTIONS = SPACE.distributions()
TARGET = load_target("iphone12")
WORST_MS = 2 * TARGET.latency(PRESETS["mobilevit-s"], 1000).ms


class Setup(NamedTuple):
    """What all searches share: values by formula, the limit, candidates to evaluate."""

    accuracy: "Accuracy"
    limits: Limits
    trials: int


class Outcome(NamedTuple):
    """Hypervolume at each checkpoint, proposals in all, processor seconds spent on proposing."""

    volumes: dict[int, float]
    proposals: int
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="3 seeds and 60 candidates; under 50 s on two cores")
    parser.add_argument("--part", choices=("rejections", "samplers", "asks"), help="default: all")
    parser.add_argument("--budget", default="6M", help="most parameters (default 6M)")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--trials", type=int, default=CHECKPOINTS[-1])
    parser.add_argument("--samplers", default="nsga2,nsga3,tpe,random", help="of the second part (gp: --trials 60)")
    arguments = parser.parse_args()
    seeds = range(3 if arguments.quick else arguments.seeds)
    trials = 60 if arguments.quick else arguments.trials
    ratios: dict[str, str] = {}
    setup = Setup(Accuracy(), Limits(parse_count(arguments.budget, "--budget"), 1000), trials)
    if arguments.part in (None, "rejections"):
        ratios |= compare_ways(setup, ("nsga2",) if arguments.quick else ("nsga2", "tpe"), seeds)
    if arguments.part in (None, "samplers"):
        names = "nsga2,nsga3,random" if arguments.quick else arguments.samplers
        ratios |= compare_samplers(setup, names.split(","), seeds)
    if arguments.part in (None, "asks"):
        measure_asks((1_000,) if arguments.quick else (1_000, 5_000, 10_000))
    for name, value in ratios.items():
        print(f"ratio {name}: {value}")


def compare_ways(setup: Setup, samplers: Sequence[str], seeds: range) -> dict[str, str]:
    print("\nproposals over the limit: hypervolume after so many evaluated candidates")
    print(header("sampler, way", setup.trials))
    ratios = {}
    for sampler in samplers:
        found = {way: [search(setup, sampler, way, seed) for seed in seeds] for way in WAYS}
        for way, outcomes in found.items():
            print(row(f"{sampler}, {way}", outcomes, setup.trials), flush=True)
        for at in checkpoints(setup.trials):
            for way in ("told", "failed"):
                name = f"away-over-{way}-{sampler}-{at}"
                ratios[name] = paired(found["away"], found[way], at)
    return ratios


def compare_samplers(setup: Setup, samplers: Sequence[str], seeds: range) -> dict[str, str]:
    print("\nsamplers, proposals over the limit sampled away: hypervolume after so many evaluated candidates")
    print(header("sampler", setup.trials))
    found = {}
    for sampler in samplers:
        found[sampler] = [search(setup, sampler, "away", seed) for seed in seeds]
        print(row(sampler, found[sampler], setup.trials), flush=True)
    first, *others = samplers
    return {
        f"{other}-over-{first}-{at}": paired(found[other], found[first], at)
        for other in others
        for at in checkpoints(setup.trials)
    }


def search(setup: Setup, sampler: str, way: str, seed: int) -> Outcome:
    """One search."""
    accuracy, limits, trials = setup
    sampling = Sampling(["maximize", "minimize"], DISTRIBUTIONS, lambda key, value: None)
    problem = Problem(DISTRIBUTIONS, 2, trials, POPULATION)
    known: dict[str, tuple[float, float]] = {}  # digest -> top-1 as measured, latency
    true: dict[str, float] = {}
    volumes: dict[int, float] = {}
    waiting, rng = first_generation(limits, seed), random.Random(f"unseen {seed}")
    proposals = fruitless = attempt = 0
    seconds = 0.0
    while len(known) < trials:
        if waiting:
            draft = Draft(waiting.pop(0), {})
        elif fruitless >= FRUITLESS:
            drawn = unseen(SPACE, limits, set(known), rng)
            assert drawn is not None
            draft = Draft(drawn, {})
        else:
            start = time.process_time()
            draft = sampling.propose(make_sampler(sampler, Turn(seed, sampling.admitted, attempt), problem))
            seconds += time.process_time() - start
            proposals += 1
        config = SPACE.config(draft.params)
        digest, excess = config.digest(), limits.excess(config)
        if excess or digest in known:
            fruitless, attempt = fruitless + 1, attempt + 1
            if way != "away":
                tell_fruitless(sampling, way, draft, excess, known.get(digest))
            continue
        fruitless = attempt = 0
        true[digest] = accuracy.of(config)
        measured = true[digest] + random.Random(f"{digest} {seed}").gauss(0, NOISE)
        known[digest] = measured, TARGET.latency(config, 1000).ms
        sampling.set_values(sampling.admit(draft, {}).number, known[digest])
        if len(known) in CHECKPOINTS or len(known) == trials:
            volumes[len(known)] = 100 * worth(known, true, accuracy.floor)
    return Outcome(volumes, proposals, seconds)


def tell_fruitless(
    sampling: Sampling, way: str, draft: Draft, excess: Mapping[str, float], values: tuple[float, float] | None
) -> None:
    number = sampling.admit(draft, {}).number
    if values is not None:
        sampling.set_values(number, values)
    elif way == "failed":
        sampling.fail(number)
    else:
        sampling.set_violation(number, excess)
        sampling.set_values(number, (0.0, WORST_MS))


def first_generation(limits: Limits, seed: int) -> list[Params]:
    """As a run's: the presets inside that fit, then draws, every other spread over the budget."""
    rng = random.Random(f"first generation {seed}")
    inside = [config for config in PRESETS.values() if config in SPACE and not limits.excess(config)]
    first = [SPACE.params(config) for config in inside]
    free = POPULATION - len(first)
    shares = ((i + rng.random()) / free if i % 2 else 1.0 for i in range(free))
    return first + [draw_evenly(SPACE, limits, share, rng) for share in shares]


def worth(known: Mapping[str, tuple[float, float]], true: Mapping[str, float], floor: float) -> float:
    """Hypervolume of the front, which is chosen by what was measured, valued without noise."""
    front, best = [], 0.0
    for digest, (measured, latency_ms) in sorted(known.items(), key=lambda item: (item[1][1], -item[1][0])):
        if measured > best:
            front.append((latency_ms, true[digest] - floor))
            best = measured
    return hypervolume(front, WORST_MS)


class Accuracy:
    """top-1 (0..1) of a config by regression on the logarithms of its costs and dimensions."""

    def __init__(self) -> None:
        configs, targets = recorded()
        points = np.array([features(config) for config in configs])
        self._model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 3, 26)))
        guessed = cross_val_predict(self._model, points, targets, cv=10)
        self._model.fit(points, targets)
        correlation = stats.spearmanr(guessed, targets).statistic
        off, spread = 100 * float(np.std(guessed - np.array(targets))), 100 * statistics.stdev(targets)
        print(f"accuracy by formula, from {len(configs)} candidates; left out in tenfolds: rank correlation "
              f"{correlation:.2f}, {off:.2f} points off, where candidates spread {spread:.2f}")  # fmt: skip
        scaler, ridge = self._model[0], self._model[1]
        self._weights = ridge.coef_ / scaler.scale_
        self._base = float(ridge.intercept_ - self._weights @ scaler.mean_)
        self.floor = self.of(SPACE.smallest())

    def of(self, config: MobileViTConfig) -> float:
        return min(max(self._base + float(self._weights @ np.array(features(config))), 0.05), 0.95)


def recorded() -> tuple[list[MobileViTConfig], list[float]]:
    """The candidates that lie in the space and were trained to the end, and their mean top-1 over seeds."""
    top1: dict[str, list[float]] = {}
    configs: dict[str, MobileViTConfig] = {}
    with TABLE.open(newline="") as stream:
        for each in csv.DictReader(stream):
            if each["config"]:
                config = parse_config(json.loads(each["config"]), source="table")
                if config in SPACE:
                    configs[each["digest"]] = config
            if each["top1"] and each["fidelity"] == FIDELITY and each["epoch"] == each["epochs"]:
                top1.setdefault(each["digest"], []).append(float(each["top1"]))
    shared = sorted(configs.keys() & top1.keys())
    return [configs[digest] for digest in shared], [statistics.mean(top1[digest]) for digest in shared]


def features(config: MobileViTConfig) -> list[float]:
    costs = cost(config)
    found = [math.log(costs.params), math.log(costs.macs), config.head_expansion]
    for stage in config.stages:
        values: dict[str, Any] = dict(stage)
        for name in ("out_channels", "num_blocks", "expand_ratio", "transformer_dim", "num_layers", "num_heads",
                     "ffn_ratio", "patch_h", "patch_w", "conv_kernel_size"):  # fmt: skip
            if name in values:
                found.append(math.log(values[name]))
    return found


def measure_asks(counts: Sequence[int]) -> None:
    """Median processor milliseconds of a proposal, sampler made anew, with so many finished trials and 8 in flight."""
    print(f"\nprocessor milliseconds a proposal ({len(DISTRIBUTIONS)} parameters), after so many finished trials")
    print(f"{'sampler':<22}" + "".join(f"{count:>10,}" for count in counts))
    for name in ("nsga2", "nsga3", "tpe", "random"):
        cells = "".join(f"{1000 * asking_seconds(name, count):>10.2f}" for count in counts)
        print(f"{name:<22}{cells}", flush=True)


def asking_seconds(name: str, count: int) -> float:
    sampling, rng = Sampling(["maximize", "minimize"], DISTRIBUTIONS, lambda key, value: None), random.Random(0)
    problem = Problem(DISTRIBUTIONS, 2, count, POPULATION)
    for index in range(count + 8):
        params = SPACE.draw(rng)
        attrs: dict[str, Any] = {}
        if name.startswith("nsga") and index >= POPULATION:
            attrs = sampling.propose(make_sampler(name, Turn(0, index), problem)).system_attrs
        sampling.admit(Draft(params, attrs), {})
        if index < count:
            width = sum(float(params[key]) for key in params if key.endswith("transformer_dim"))
            sampling.set_values(index, (1 - 1 / width**0.5 + rng.gauss(0, NOISE), width / 100 + rng.random()))
    taken = []
    for attempt in range(30):
        start = time.process_time()
        sampling.propose(make_sampler(name, Turn(0, count, attempt), problem))
        taken.append(time.process_time() - start)
    return statistics.median(taken)


def checkpoints(trials: int) -> list[int]:
    return [at for at in CHECKPOINTS if at <= trials]


def header(what: str, trials: int) -> str:
    columns = "".join(f"{at:>14}" for at in checkpoints(trials))
    return f"{what:<16}{columns}{'proposals':>12}{'CPU ms':>10}"


def row(what: str, outcomes: Sequence[Outcome], trials: int) -> str:
    cells = "".join(f"{interval([each.volumes[at] for each in outcomes]):>14}" for at in checkpoints(trials))
    own = trials - POPULATION
    spent = statistics.mean(each.proposals for each in outcomes) / own
    each_ms = 1000 * sum(each.seconds for each in outcomes) / sum(each.proposals for each in outcomes)
    return f"{what:<16}{cells}{spent:>12.1f}{each_ms:>10.1f}"


def paired(own: Sequence[Outcome], other: Sequence[Outcome], at: int) -> str:
    """The mean ratio over the same seeds, with its interval."""
    return interval([a.volumes[at] / b.volumes[at] for a, b in zip(own, other, strict=True)], digits=4)


def interval(values: Sequence[float], digits: int = 2) -> str:
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.mean(values):.{digits}f}±{half:.{digits}f}"


if __name__ == "__main__":
    main()
