"""Search efficiency for real: halving on the built-in digits against plain Optuna with full training of every trial.

    python benchmarks/search_efficiency_real.py [--seeds 2] [--trainings 60]      or search_efficiency.py --real
    python benchmarks/search_efficiency_real.py --quick

9 epochs are a full training, rungs 1, 3, 9; ours may train a fifth of the image steps of Optuna's study, whose
proposals over the budget cost it nothing. Both final fronts are then trained with two fresh seeds, and are worth the
hypervolume of those means: what a user gets. Takes some 20 minutes a seed on one quiet core.

Ends with `ratio real-front-worth-over-optuna-checked`: ours over Optuna's, median over seeds; above 1 ours is better.
"""

import argparse
import itertools
import statistics
import warnings

import optuna
from search_efficiency import AGAINST, BUDGET, ETA, Trained, default_sampler, run

from mvit_search.architecture import PRESETS, MobileViTConfig
from mvit_search.data import ImageSet, load_data
from mvit_search.latency import load_target
from mvit_search.proxy import Recipe, default_recipe, train
from mvit_search.records import hypervolume
from mvit_search.search.limits import Limits
from mvit_search.space import load_space

RUNGS, EPOCHS = "1,3,9", 9
FRESH = (1000, 1001)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, 3 small trainings: under 50 s")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--trainings", type=int, default=60, help="of Optuna's study (default 60)")
    arguments = parser.parse_args()
    if arguments.quick:
        real(1, 3, rungs="1,2", budget=1_000_000)
    else:
        real(arguments.seeds, arguments.trainings)


def real(seeds: int, trainings: int = 60, rungs: str = RUNGS, budget: int = BUDGET) -> None:
    """Both ways with each seed, then the ratio."""
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    recipe = default_recipe("digits").changed(epochs=int(rungs.split(",")[-1]))
    data = load_data("digits", image_size=recipe.image_size)
    target = load_target("iphone12")
    worst_ms = 2 * target.latency(PRESETS["mobilevit-s"], 1000).ms
    images, ratios = len(data.train_images), []
    for seed in range(seeds):
        theirs, steps = full(seed, trainings, data, recipe, budget)
        own, own_steps = halving(seed, steps // 5, images, rungs, budget)
        worths = [worth(front, data, recipe, worst_ms) for front in (own, theirs)]
        ratios.append(worths[0] / worths[1])
        print(
            f"seed {seed}: ours {100 * worths[0]:.2f} % with {own_steps:,} image steps,"
            f" {AGAINST} {100 * worths[1]:.2f} % with {steps:,}",
            flush=True,
        )
    print(f"ratio real-front-worth-over-optuna-checked: {statistics.median(ratios):.3f}")


def full(seed: int, trainings: int, data: ImageSet, recipe: Recipe, budget: int) -> tuple[list[MobileViTConfig], int]:
    """Optuna's study: its front by what it observed, and its image steps."""
    space, limits, target = load_space("mobilevit"), Limits(budget, 1000), load_target("iphone12")
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=default_sampler(seed))
    done: dict[MobileViTConfig, Trained] = {}
    worst_ms = 2 * target.latency(PRESETS["mobilevit-s"], 1000).ms
    while len(done) < trainings:
        trial = study.ask(space.distributions())
        config = space.config(trial.params)
        over = limits.excess(config).get("params", 0.0)
        trial.set_constraint("params", over)
        if over:
            study.tell(trial, (0.0, worst_ms))
            continue
        if config not in done:
            top1 = train(config, data, recipe, seed=seed, share=1.0).top1
            done[config] = Trained(len(done), target.latency(config, 1000).ms, top1, 0.0)
        study.tell(trial, (done[config].top1, done[config].latency_ms))
    front: list[MobileViTConfig] = []
    for config, one in sorted(done.items(), key=lambda item: (item[1].latency_ms, -item[1].top1)):
        if not front or one.top1 > done[front[-1]].top1:
            front.append(config)
    return front, trainings * len(data.train_images) * recipe.epochs


def halving(seed: int, steps: int, images: int, rungs: str, budget: int) -> tuple[list[MobileViTConfig], int]:
    """A run of ours that trains about so many image steps, presets included."""
    lengths = [int(text) for text in rungs.split(",")]
    # Of eta candidates one goes on from rung to rung; the three presets all go to the top.
    mean = lengths[0] + sum((high - low) / ETA ** (k + 1) for k, (low, high) in enumerate(itertools.pairwise(lengths)))
    trials = max(4, 3 + int((steps / images - 3 * lengths[-1]) / mean))
    document, records = run(
        seed,
        lengths[-1],
        trials,
        None,
        data="digits",
        fidelity="halving",
        rungs=rungs,
        eta=ETA,
        sampler="assisted",
        budget=budget,
    )
    front = {point["digest"] for point in document["front"]}
    spent = sum(one.image_steps for record in records for one in record.evaluations)
    return [record.config for record in records if record.digest in front], spent


def worth(front: list[MobileViTConfig], data: ImageSet, recipe: Recipe, worst_ms: float) -> float:
    target = load_target("iphone12")
    points = []
    for config in front:
        top1 = statistics.fmean(train(config, data, recipe, seed=seed, share=1.0).top1 for seed in FRESH)
        points.append((target.latency(config, 1000).ms, top1))
    return hypervolume(points, worst_ms)


if __name__ == "__main__":
    main()
