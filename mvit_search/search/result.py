"""The front document: what `run --json` and `front --json` print and `front.json` holds."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from mvit_search.architecture import MobileViTConfig
from mvit_search.profile import cost
from mvit_search.records import LatencyFact, Record, RunFolder, pareto_front
from mvit_search.search.plan import Plan

EndedBy = Literal["trials", "time", "space exhausted", "target unavailable", "interrupt", "error"]


def front_document(
    plan: Plan, folder: RunFolder, records: Sequence[Record], presets: Sequence[Mapping[str, Any]],
    counts: Mapping[str, int], *, state: str, ended_by: EndedBy | None, hypervolume: float | None,
    worst_latency_ms: float,
) -> dict[str, Any]:  # fmt: skip
    """All facts of a run's result as plain JSON values; `presets` are their rows for when they were not trained.

    `proxy` says what the points were valued by. Points of a `zero-cost:NAME` run have `score` and no `top1`, and the
    run has no hypervolume.
    """
    scores = plan.proxy.scores
    by_digest = {record.digest: record for record in records}
    baselines = [
        record.row(folder.name) if (record := by_digest.get(preset["digest"])) else dict(preset) for preset in presets
    ]
    return {
        "run": folder.name,
        "directory": str(folder.path),
        "state": state,
        "ended_by": ended_by,
        "target": plan.target.name,
        "latency_measured": _measured(plan, records),
        "budget": plan.settings.budget,
        "proxy": str(plan.proxy),
        "trained": sum(record.outcome == "trained" for record in records),
        **({"scored": sum(record.outcome == "scored" for record in records)} if scores else {}),
        "failed": sum(record.outcome == "failed" for record in records),
        "rejected": counts["rejected"],
        "duplicates": counts["duplicate"],
        **({"prescreened": counts["prescreened"]} if plan.prescreen else {}),
        "hypervolume": hypervolume,
        "hypervolume_reference": {} if scores else {"latency_ms": worst_latency_ms, "top1": 0.0},
        "front": [record.row(folder.name) for record in pareto_front(records)],
        "baselines": baselines,
    }


def _measured(plan: Plan, records: Sequence[Record]) -> bool | None:
    """Whether latencies were measured; None where predictions stand in for some that could not be."""
    ways = {record.latency.how for record in records if record.latency}
    return None if len(ways) > 1 else ways == {"measured"} if ways else plan.target.measured


def untrained_row(plan: Plan, name: str, config: MobileViTConfig) -> dict[str, Any]:
    """A preset that was not trained, with its costs and the reason."""
    costs = cost(config, plan.settings.num_classes)
    latency = LatencyFact.of(plan.target.latency(config, plan.settings.num_classes))
    fits = "not scored" if plan.proxy.scores else "not trained"
    outcome = "over budget" if plan.limits.excess(config) else fits
    return {
        "ref": name, "name": name, "trial": None, "origin": "preset", "outcome": outcome,
        "params": costs.params, "macs": costs.macs, "weight_bytes": costs.weight_bytes,
        "peak_activation_bytes": costs.peak_activation_bytes,
        "latency_ms": latency.ms, "latency_low_ms": latency.low_ms, "latency_high_ms": latency.high_ms,
        "latency_source": latency.source, "top1": None, "top1_std": None, "top1_by_seed": {},
        "train_seconds": 0.0, "largest_batch": None, "error": None,
        "digest": config.digest(), "config": config.model_dump(mode="json"),
    }  # fmt: skip
