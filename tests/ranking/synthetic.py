"""Tables of trainings that never happened: accuracies of known signal and noise, for candidates that exist."""

import random
from collections.abc import Sequence
from functools import cache

import numpy as np

from mvit_search.architecture import MobileViTConfig
from mvit_search.profile import cost
from mvit_search.records.table import TableRow
from mvit_search.space import load_space

RUNGS = (1, 2, 4, 8, 12)
IMAGES = 5000


@cache
def configs(count: int) -> tuple[MobileViTConfig, ...]:
    """Different candidates of a small space, always the same."""
    space, rng = load_space("mobilevit-mini"), random.Random(0)
    found: dict[str, MobileViTConfig] = {}
    while len(found) < count:
        config = space.config(space.draw(rng))
        found.setdefault(config.digest(), config)
    return tuple(found.values())


def row(config: MobileViTConfig, fidelity: str, epoch: int, epochs: int, top1: float | None, **changes) -> TableRow:
    costs = cost(config)
    steps = epoch * IMAGES
    known = {
        "name": "", "digest": config.digest(), "seed": 0, "recipe": "ab12", "data": "cd34", "fidelity": fidelity,
        "epoch": epoch, "epochs": epochs, "top1": top1, "loss": None if top1 is None else round(3 * (1 - top1), 6),
        "image_steps": steps, "cpu_seconds": steps / 200, "params": costs.params, "macs": costs.macs,
        "latency_ms": 5.0 + costs.macs / 1e8, "error": "", "config": config,
    }  # fmt: skip
    return TableRow(**{**known, **changes})


def table(
    count: int = 24, *, seeds: Sequence[int] = (0,), noise: float = 0.0, rung_noise: float = 0.02, spread: float = 0.05,
    short_noise: float = 0.06, score_noise: float = 2.0, seed: int = 0,
) -> list[TableRow]:  # fmt: skip
    """A long schedule with rungs, a short one, one at a lower resolution, and two zero-cost scores.

    Args:
        spread: standard deviation of what the candidates are worth; it has nothing to do with their size.
        noise: between seeds, of a finished long training; `rung_noise` on top of it at epoch 1, less later.
        short_noise: of short trainings, on top of the worth. `score_noise`: of `naswot`, in spreads; `synflow` is
            pure noise.
    """
    rng = np.random.default_rng(seed)
    worth = 0.6 + spread * rng.normal(size=count)
    rows = []
    for config, value in zip(configs(count), worth, strict=True):
        for number in seeds:
            luck = noise * rng.normal()
            for epoch in RUNGS:
                reached = value - 0.35 * epoch**-0.7 + 0.35 * RUNGS[-1] ** -0.7 + luck
                if epoch < RUNGS[-1]:
                    reached += rung_noise / epoch * rng.normal()
                rows.append(row(config, "32px-5000img-12ep", epoch, 12, _share(reached), seed=number))
        for epoch in (1, 2):
            short = _share(value - 0.2 + short_noise / epoch * rng.normal())
            rows.append(row(config, "32px-5000img-2ep", epoch, 2, short, recipe="ab13"))
        low = _share(value - 0.25 + short_noise * rng.normal())
        rows.append(row(config, "16px-5000img-3ep", 3, 3, low, recipe="ab14", data="cd35", cpu_seconds=20.0))
        for name, score in (
            ("naswot", (value - 0.6) / spread + score_noise * rng.normal()), ("synflow", rng.normal()),
        ):  # fmt: skip
            rows.append(scored(config, name, float(score)))
    return rows


def scored(config: MobileViTConfig, name: str, score: float) -> TableRow:
    return row(
        config, f"zero-cost:{name}", 0, 1, None, score=score, loss=None, image_steps=64, cpu_seconds=0.4, recipe=""
    )


def _share(value: float) -> float:
    return float(min(1.0, max(0.0, value)))
