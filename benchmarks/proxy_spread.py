"""Does the default proxy tell candidates apart? Spread of top-1 between candidates against between seeds.

Trains presets and candidates drawn from the default space, several seeds each, under the data's default recipe, or
under one of a YAML file. Own = standard deviation of the candidates' mean top-1; peer = standard deviation between
seeds of one candidate, pooled. A ratio of 1 would mean that the ranking is noise.

    python benchmarks/proxy_spread.py [--quick] [--data digits|shapes|PATH] [--images N] [--recipe FILE] [--threads N]
"""

import argparse
import math
import random
import statistics
import time
from pathlib import Path

from mvit_search._quantities import format_count
from mvit_search.architecture import MobileViTConfig, preset
from mvit_search.data import load_data
from mvit_search.profile.cost import params_of
from mvit_search.proxy import default_recipe, load_recipe, train
from mvit_search.search.proposals import draw_scaled
from mvit_search.space import load_space

SMALLEST, LARGEST = 0.6e6, 6e6


def main() -> None:
    arguments = parse_arguments()
    presets = ("mobilevit-xxs", "mobilevit-xs") if arguments.quick else ("mobilevit-xxs", "mobilevit-xs", "mobilevit-s")
    candidates = {name: preset(name) for name in presets} | drawn(2 if arguments.quick else 5)
    seeds = range(2 if arguments.quick else 3)
    recipe = load_recipe(arguments.recipe) if arguments.recipe else default_recipe(arguments.data)
    data = load_data(arguments.data, image_size=recipe.image_size, max_images=arguments.images)
    print(f"{data.source}; {recipe.image_size} px, {recipe.epochs} epochs, batch {recipe.batch_size}, recipe "
          f"{recipe.digest()[:12]}, threads {arguments.threads}")  # fmt: skip
    print(f"{'candidate':<15}{'params':>8}  {'top-1 by seed (%)':<{7 * len(seeds)}}{'mean':>7}{'std':>6}{'CPU s':>8}")
    rows: list[tuple[float, list[float]]] = []
    for name, config in candidates.items():
        start = time.process_time()
        top1 = [100 * train(config, data, recipe, seed=seed, threads=arguments.threads).top1 for seed in seeds]
        seconds = (time.process_time() - start) / len(seeds)
        rows.append((params_of(config), top1))
        shown = "".join(f"{value:7.1f}" for value in top1)
        mean, std = statistics.mean(top1), statistics.stdev(top1)
        print(f"{name:<15}{format_count(params_of(config)):>8}  {shown}{mean:7.1f}{std:6.1f}{seconds:8.1f}", flush=True)
    report([top1 for _, top1 in rows], [count for count, _ in rows])


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="4 candidates and 2 seeds: under 50 s on two idle cores")
    parser.add_argument("--data", default="digits", help="as `mvit-search run --data` takes it (default: digits)")
    parser.add_argument("--images", type=int, help="most training images (default: all)")
    parser.add_argument("--recipe", type=Path, help="YAML file (default: the data's default recipe)")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default 1: see docs/proxies.md)")
    return parser.parse_args()


def drawn(count: int) -> dict[str, MobileViTConfig]:
    """Candidates as a run's first generation draws them, with limits spread over 0.6 M to 6 M parameters."""
    space, rng = load_space("mobilevit"), random.Random(0)
    step = math.log(LARGEST / SMALLEST) / count
    limits = [SMALLEST * math.exp(step * (index + 1)) for index in range(count)]
    configs = [space.config(draw_scaled(space, lambda c, most=limit: params_of(c) <= most, rng)) for limit in limits]  # type: ignore[misc]
    return {f"drawn<{limit / 1e6:.1f}M": config for limit, config in zip(limits, configs, strict=True)}


def report(top1: list[list[float]], sizes: list[float]) -> None:
    means = [statistics.mean(row) for row in top1]
    between = statistics.stdev(means)
    within = math.sqrt(statistics.mean(statistics.variance(row) for row in top1))
    print(f"spread between candidates (std of means): {between:.2f} points")
    print(f"lowest and highest mean: {min(means):.1f} and {max(means):.1f} %")
    print(f"spread between seeds of one candidate (pooled std): {within:.2f} points")
    pairs = [[row[seed] for row in top1] for seed in range(2)]
    print(f"rank correlation: seed 0 with seed 1 {rank_correlation(*pairs):.2f}", end=", ")
    print(f"mean top-1 with parameters {rank_correlation(means, sizes):.2f}")
    print(f"ratio candidate-spread-over-seed-spread: {between / within:.2f}")


def rank_correlation(a: list[float], b: list[float]) -> float:
    """Spearman's, without ties."""
    ranks = [[float(sorted(values).index(value)) for value in values] for values in (a, b)]
    return statistics.correlation(*ranks)


if __name__ == "__main__":
    main()
