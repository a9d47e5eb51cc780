"""Run folders for tests: real configs and costs, made-up latencies and accuracies, no training and no torch."""

import random
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mvit_search.architecture import PRESETS, MobileViTConfig
from mvit_search.profile import cost
from mvit_search.records import (
    DEFAULT_OBJECTIVES,
    Evaluated,
    LatencyFact,
    Record,
    RunFolder,
    hypervolume,
    indistinguishable,
    pareto_front,
)
from mvit_search.space import load_space

WORST_LATENCY_MS = 20.0
THREE_OBJECTIVES = ("top1", "latency_ms", "peak_activation_bytes")
LADDER = (1, 3, 9)
"""Epochs of the rungs of a run with successive halving."""
_SOURCE = "predicted: iphone12 calibration 2026-11, leave-one-out MAPE 9.9 %"
_PROTOCOL = "made up for tests"


def make_record(
    number: int, config: MobileViTConfig, *, name: str | None = None, outcome: str = "trained", top1: float = 0.9,
    std: float = 0.006, seeds: int = 1, latency_ms: float | None = None, source: str = _SOURCE,
    target: str = "iphone12",
) -> Record:  # fmt: skip
    """A record of `config` with its true costs; `top1` is the mean and `std` the exact deviation over seeds."""
    costs = cost(config)
    ms = latency_ms if latency_ms is not None else 3.0 + 3.6 * costs.macs / 1e9
    return Record(
        number=number, name=name, origin="preset" if name else "sampler", outcome=outcome, digest=config.digest(),
        config=config, params=costs.params, macs=costs.macs, weight_bytes=costs.weight_bytes,
        peak_activation_bytes=costs.peak_activation_bytes,
        latency=LatencyFact(
            ms=ms, low_ms=ms / 1.13, high_ms=ms * 1.13, source=source, target=target, protocol=_PROTOCOL
        ),
        top1_by_seed=_by_seed(top1, std, seeds) if outcome == "trained" else {}, train_seconds=4.2,
        error=None if outcome == "trained" else "the loss became NaN in epoch 3",
    )  # fmt: skip


def make_records(count: int = 25, *, budget: int = 6_000_000, seed: int = 0) -> tuple[Record, ...]:
    """The presets, then distinct draws inside the budget, the last ones failed; the front has three seeds."""
    rng = random.Random(seed)
    space = load_space("mobilevit")
    configs: dict[str, tuple[str | None, MobileViTConfig]] = {
        PRESETS[name].digest(): (name, PRESETS[name]) for name in ("mobilevit-xxs", "mobilevit-xs", "mobilevit-s")
    }
    while len(configs) < count:
        drawn = params = space.draw(rng)
        share = 1.0
        while cost(space.config(params)).params > budget:
            share *= 0.95
            params = space.scaled(drawn, share)
        config = space.config(params)
        configs.setdefault(config.digest(), (None, config))
    records = []
    for number, (name, config) in enumerate(configs.values()):
        outcome = "failed" if number >= count - 2 and count > 5 else "trained"
        top1 = _made_up_top1(cost(config).macs, rng)
        records.append(make_record(number, config, name=name, outcome=outcome, top1=top1))
    while waiting := {r.number for r in (*pareto_front(records), *records[:3]) if r.top1_std is None}:
        records = [_with_seeds(record, rng) if record.number in waiting else record for record in records]
    return tuple(records)


def make_halving_records(count: int = 40, objectives: Sequence[str] = DEFAULT_OBJECTIVES) -> tuple[Record, ...]:
    """`make_records`, of which two thirds were stopped at one of the lower rungs of `LADDER`."""
    records = list(make_records(count))
    kept = {record.number for record in (*pareto_front(records, objectives), *records[:3])}
    for record in records:
        if record.outcome == "failed":
            records[record.number] = record.model_copy(update={"failure": "diverged"})
            continue
        top = 2 if record.number in kept or record.number % 3 == 0 else record.number % 2
        evaluations = tuple(
            Evaluated(seed=0, rung=rung, epochs=LADDER[rung], value=record.top1 - 0.12 * (2 - rung), seconds=1.0)
            for rung in range(top + 1)
        )
        stopped = {"outcome": "stopped", "top1_by_seed": {}} if top < 2 else {}
        records[record.number] = record.model_copy(update={"evaluations": evaluations, **stopped})
    return tuple(records)


def make_halving_document(
    run: str, records: Sequence[Record], objectives: Sequence[str] = DEFAULT_OBJECTIVES
) -> dict[str, Any]:
    """The front document of a run with successive halving, several limits and perhaps further objectives."""
    front = pareto_front(records, objectives)
    reference = {"latency_ms": WORST_LATENCY_MS, "peak_activation_bytes": 2e7, "params": 1.2e7}
    costs = [key for key in objectives if key != "top1"]
    points = [(*(getattr(record, key) for key in costs), record.top1) for record in front]
    level = indistinguishable(front, [record for record in records if record.name]) or {}
    rows = [record.row(run) for record in front]
    for row, record in zip(rows, front, strict=True):
        row["indistinguishable_from"] = [f"{run}/{number}" for number in level[record.number]]
    failed = [record.failure or "error" for record in records if record.outcome == "failed"]
    return make_document(run, records) | {
        "objectives": list(objectives), "ladder": [str(epochs) for epochs in LADDER], "eta": 3,
        "limits": {"params": 6_000_000, "macs": 2_500_000_000, "latency_ms": 12.0, "min_top1": 0.5},
        "stopped": sum(record.outcome == "stopped" for record in records), "remembered": 2,
        "failures": {reason: failed.count(reason) for reason in dict.fromkeys(failed)},
        "hypervolume": hypervolume(points, *(reference[key] for key in costs)),
        "hypervolume_reference": {"top1": 0.0} | {key: reference[key] for key in costs}, "front": rows,
    }  # fmt: skip


def make_document(
    run: str, records: Sequence[Record], *, state: str = "finished", over_budget: Sequence[str] = (),
    target: str = "iphone12",
) -> dict[str, Any]:  # fmt: skip
    """The front document of `records`, by the contract of `run --json`."""
    front = pareto_front(records)
    baselines = [record.row(run) for record in records if record.name]
    baselines += [_over_budget_row(name) for name in over_budget]
    points = [(record.latency_ms, record.top1) for record in front]
    return {
        "run": run, "directory": f"results/{run}", "state": state,
        "ended_by": "trials" if state == "finished" else None,
        "target": target, "latency_measured": False, "budget": 6_000_000,
        "trained": sum(r.outcome == "trained" for r in records), "failed": sum(r.outcome == "failed" for r in records),
        "rejected": 41, "duplicates": 3, "hypervolume": hypervolume(points, WORST_LATENCY_MS),
        "hypervolume_reference": {"latency_ms": WORST_LATENCY_MS, "top1": 0.0},
        "front": [record.row(run) for record in front], "baselines": baselines,
    }  # fmt: skip


def run_description(run: str) -> dict[str, Any]:
    """A `run.json`."""
    return {
        "run": run,
        "settings": {
            "space": "mobilevit", "target": "iphone12", "data": "digits", "budget": 6_000_000, "num_classes": 1000,
            "trials": 24, "time_s": 300.0, "seed": 0, "sampler": "nsga2", "final_seeds": 3, "images": None,
            "epochs": None, "proxy_size": None, "device": "cpu", "threads": 2,
        },
        "space": {"name": "mobilevit", "digest": "ab" * 32, "candidates": 10**27},
        "target": {"name": "iphone12", "measured": False, "calibration": "iphone12 4f0c2a"},
        "data": {
            "name": "digits", "digest": "cd" * 32, "source": "scikit-learn's digits", "image_size": 32, "classes": 10,
            "train_images": 1347, "held_out_images": 450,
        },
        "recipe": {"epochs": 4, "image_size": 32, "batch_size": 32, "learning_rate": 0.002, "weight_decay": 0.05},
        "versions": {"mvit-search": "0.1.0", "python": "3.11.2", "torch": "2.13.0", "optuna": "5.0.0"},
        "machine": {"system": "Linux", "processor": "x86_64", "threads": 2},
        "git_revision": "33bcd45",
    }  # fmt: skip


def make_run(
    results_dir: Path, name: str = "demo", *, records: Sequence[Record] | None = None,
    document: Mapping[str, Any] | None = None, state: str = "finished",
) -> RunFolder:  # fmt: skip
    """A whole run folder on disk."""
    folder = RunFolder(results_dir / name)
    folder.path.mkdir(parents=True)
    folder.write_run(run_description(name))
    chosen = make_records() if records is None else records
    folder.write_results(dict(document or make_document(name, chosen, state=state)), chosen)
    return folder


def _made_up_top1(macs: int, rng: random.Random) -> float:
    """Rises with MACs and saturates, with as much luck as a short training has."""
    gigamacs = macs / 1e9
    return 0.97 - 0.09 / (0.5 + gigamacs) + rng.gauss(0.0, 0.012)


def _with_seeds(record: Record, rng: random.Random) -> Record:
    mean = record.top1 - abs(rng.gauss(0.0, 0.003))
    return record.model_copy(update={"top1_by_seed": _by_seed(mean, 0.004 + 0.004 * rng.random(), 3)})


def _by_seed(mean: float, std: float, seeds: int) -> dict[int, float]:
    """Values with this mean and sample standard deviation."""
    if seeds == 1:
        return {0: mean}
    steps = [seed - (seeds - 1) / 2 for seed in range(seeds)]
    unit = statistics.stdev(steps)
    return {seed: mean + std * step / unit for seed, step in enumerate(steps)}


def _over_budget_row(name: str) -> dict[str, Any]:
    row = make_record(0, PRESETS[name], name=name).row("unused")
    empty: dict[str, Any] = {"top1": None, "top1_std": None, "top1_by_seed": {}, "train_seconds": 0.0}
    return {**row, **empty, "ref": name, "outcome": "over budget"}
