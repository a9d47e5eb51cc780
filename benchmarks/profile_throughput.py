"""Candidates per second that the op table profiles, against fvcore, ptflops and torch's counter on the same configs.

    python benchmarks/profile_throughput.py [--quick]

Ours goes from a config to parameters, MACs, memory and latency features; theirs ends with parameters and MACs, and
needs the built network and one forward pass (torch's counter on the meta device, where that is cheapest). Steady state:
parts met before are not worked out again, so thousands of random configs are profiled first; each config that is timed
is new and timed once. The first ratio a peer counts building its network, the second leaves that out. ptflops is a peer
where it is installed.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable
from typing import TypeVar

import torch

from mvit_search.architecture import MobileViTConfig
from mvit_search.architecture.network import MobileViT
from mvit_search.architecture.ops import parts
from mvit_search.latency import PredictedTarget, Target, load_target
from mvit_search.latency.features import features
from mvit_search.profile import cost
from mvit_search.profile.cost import cost_of_parts, params_of
from mvit_search.profile.verify import fvcore_macs, torch_macs
from mvit_search.search.proposals import draw_fitting
from mvit_search.space import load_space

_T = TypeVar("_T")
BUDGETS = (2_000_000, 6_000_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="4 configs instead of 20; under 50 s on two cores")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    space, rng = load_space("mobilevit"), random.Random(0)

    first = [seconds(lambda config=config: profile(config)) for config in configs(space, rng, 100)]
    for config in configs(space, rng, 5_000 if quick else 20_000):
        profile(config)
    own = [seconds(lambda config=config: profile(config)) for config in configs(space, rng, 1_000)]
    target = load_target("iphone12")
    for config in configs(space, rng, 5_000):
        target.latency(config)
    predicting = [predicting_seconds(target, config) for config in configs(space, rng, 1_000)]

    print(f"space mobilevit, 256 px, 1000 classes, one thread; torch {torch.__version__}; medians over configs")
    print(f"{'what':<66}{'ms':>10}{'per second':>14}")
    print(row("op table and latency features, nothing remembered", statistics.median(first)))
    print(row("op table and latency features, steady state", statistics.median(own)))
    print(row("iPhone latency and interval beyond that, steady state", statistics.median(predicting)))
    for budget in BUDGETS:
        print(row(f"a config drawn inside {budget / 1e6:g} M parameters", drawing_seconds(space, budget, rng)))

    compared = configs(space, rng, 4 if quick else 20)
    built = [seconds(lambda config=config: MobileViT(config)) for config in compared]
    models = [MobileViT(config).eval() for config in compared]
    ratios = [("op-table-over-the-prediction-on-top-of-it", statistics.median(own) / statistics.median(predicting))]
    for peer, count in peers().items():
        pairs = [timed(lambda pair=pair, count=count: count(*pair)) for pair in zip(models, compared, strict=True)]
        counted = [taken for taken, _ in pairs]
        off = max(abs(macs / cost(config).macs - 1) for (_, macs), config in zip(pairs, compared, strict=True))
        # A fast wrong answer is worth nothing. ptflops leaves out the products inside fused attention.
        assert off == 0 or peer == "ptflops", (peer, off)
        whole = [build + taken for build, taken in zip(built, counted, strict=True)]
        print(row(f"{peer} on a built network (MACs differ by {100 * off:.0f} % at most)", statistics.median(counted)))
        print(row(f"{peer}, building the network included", statistics.median(whole)))
        ratios += [
            (f"op-table-vs-{peer}-from-config", statistics.median(whole) / statistics.median(own)),
            (f"op-table-vs-{peer}-on-built-network", statistics.median(counted) / statistics.median(own)),
        ]
    for name, value in ratios:
        print(f"ratio {name}: {value:.3g}")


def profile(config: MobileViTConfig) -> object:
    """What a search asks of the table."""
    placed = parts(config)
    return cost_of_parts(placed), features(placed)


def predicting_seconds(target: Target, config: MobileViTConfig) -> float:
    """What a prediction takes once a search has the operator table and the costs."""
    placed = parts(config)
    cost_of_parts(placed)
    assert isinstance(target, PredictedTarget)
    return seconds(lambda: target.latency_of_parts(placed, config.image_size))


def configs(space: object, rng: random.Random, count: int) -> list[MobileViTConfig]:
    return [space.config(space.draw(rng)) for _ in range(count)]  # type: ignore[attr-defined]


def drawing_seconds(space: object, budget: int, rng: random.Random) -> float:
    """Median time to draw a config of at most so many parameters, uniform and scaled down if it must be."""

    def fits(config: MobileViTConfig) -> bool:
        return params_of(config) <= budget

    return statistics.median(seconds(lambda: draw_fitting(space, fits, rng)) for _ in range(500))  # type: ignore[arg-type]


Counter = Callable[[torch.nn.Module, MobileViTConfig], float]


def peers() -> dict[str, Counter]:
    """Name -> function that counts a built network's MACs."""
    found: dict[str, Counter] = {
        "fvcore": lambda model, config: fvcore_macs(model, config.image_size),
        "torch-counter": lambda model, config: torch_macs(model.to("meta"), config.image_size),
    }
    try:
        import ptflops  # noqa: F401
    except (ImportError, RuntimeError) as error:  # RuntimeError: beside a torchvision that cannot load its operators
        print(f"ptflops is no peer in this run: it cannot be imported ({error})")
        return found
    # Before torch's counter, which leaves the network on the meta device.
    return {"ptflops": ptflops_macs, **found}


def ptflops_macs(model: torch.nn.Module, config: MobileViTConfig) -> float:
    from ptflops import get_model_complexity_info

    macs, _ = get_model_complexity_info(
        model, (3, *config.image_size), as_strings=False, print_per_layer_stat=False, backend="aten"
    )
    return float(macs)


def seconds(work: Callable[[], object]) -> float:
    return timed(work)[0]


def timed(work: Callable[[], _T]) -> tuple[float, _T]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def row(what: str, taken: float) -> str:
    return f"{what:<66}{1000 * taken:>10.3f}{1 / taken:>14.1f}"


if __name__ == "__main__":
    main()
