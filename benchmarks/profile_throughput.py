"""Candidates per second that the op table profiles, against fvcore on the same configs.

    python benchmarks/profile_throughput.py [--quick]

Both sides end with parameters and MACs; ours also gives memory. fvcore needs the built network and one traced
forward pass; a search has a config, so the first ratio counts building, and the second leaves it out.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable

import torch

from mvit_search.architecture import MobileViTConfig
from mvit_search.architecture.network import MobileViT
from mvit_search.profile import cost
from mvit_search.profile.verify import fvcore_macs
from mvit_search.space import load_space


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="4 configs instead of 20; under 50 s on two cores")
    count = 4 if parser.parse_args().quick else 20
    torch.set_num_threads(1)
    space, rng = load_space("mobilevit"), random.Random(0)
    configs = [space.config(space.draw(rng)) for _ in range(count)]

    for config in configs:
        cost(config)
    own = [median_seconds(lambda config=config: cost(config), repeats=30) for config in configs]
    models = [MobileViT(config).eval() for config in configs]
    built = [median_seconds(lambda config=config: MobileViT(config), repeats=1) for config in configs]
    traced = [
        median_seconds(lambda pair=pair: fvcore_macs(pair[0], pair[1].image_size), repeats=1)
        for pair in zip(models, configs, strict=True)
    ]
    for config, model in zip(configs, models, strict=True):
        check_equal(config, model)

    both = [build + trace for build, trace in zip(built, traced, strict=True)]
    print(f"{count} configs drawn from the space mobilevit (seed 0), 256 px, one thread; medians over configs")
    print(f"{'what':<42}{'ms per candidate':>18}{'candidates / s':>16}")
    for what, seconds in (("op table (params, MACs, memory)", own), ("fvcore on a built network", traced)):
        print(row(what, statistics.median(seconds)))
    print(row("fvcore, building the network included", statistics.median(both)))
    print("parameters and MACs of both sides are equal on every config")
    print(f"ratio op-table-vs-fvcore-from-config: {ratio(both, own):.0f}")
    print(f"ratio op-table-vs-fvcore-on-built-network: {ratio(traced, own):.0f}")


def ratio(peer: list[float], own: list[float]) -> float:
    """Median over configs of peer time over own time."""
    return statistics.median(theirs / ours for theirs, ours in zip(peer, own, strict=True))


def median_seconds(work: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def check_equal(config: MobileViTConfig, model: torch.nn.Module) -> None:
    """A fast wrong answer is worth nothing."""
    found = cost(config)
    assert found.params == sum(p.numel() for p in model.parameters()), config
    assert found.macs == fvcore_macs(model, config.image_size), config


def row(what: str, seconds: float) -> str:
    return f"{what:<42}{1000 * seconds:>18.3f}{1 / seconds:>16.1f}"


if __name__ == "__main__":
    main()
