"""The front document: what `run --json` and `front --json` print and `front.json` holds."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from mvit_search.architecture import MobileViTConfig
from mvit_search.profile import cost
from mvit_search.records import LatencyFact, Record, RunFolder, indistinguishable
from mvit_search.search.book import Book
from mvit_search.search.plan import Plan

EndedBy = Literal["trials", "time", "space exhausted", "target unavailable", "interrupt", "error"]


def front_document(
    plan: Plan, folder: RunFolder, book: Book, presets: Sequence[Mapping[str, Any]], counts: Mapping[str, int], *,
    state: str, ended_by: EndedBy | None, reference: Mapping[str, float],
) -> dict[str, Any]:  # fmt: skip
    """All facts of a run's result as plain JSON values; `presets` are their rows for when they were not trained.

    `proxy` says what the points were valued by. Points of a `zero-cost:NAME` run have `score` and no `top1`, and the
    run has no hypervolume.
    """
    scores = plan.proxy.scores
    front = book.front.members
    level = indistinguishable(front, book.named())
    rows = [record.row(folder.name) for record in front]
    for row, record in zip(rows, front, strict=True):
        row["indistinguishable_from"] = None if level is None else [f"{folder.name}/{n}" for n in level[record.number]]
    baselines = [
        found.row(folder.name) if (found := book.get(preset["digest"])) else dict(preset) for preset in presets
    ]
    ladder = plan.ladder
    return {
        "run": folder.name,
        "directory": str(folder.path),
        "state": state,
        "ended_by": ended_by,
        "target": plan.target.name,
        "latency_measured": _measured(plan, book.records),
        "objectives": list(plan.settings.objectives),
        "budget": plan.settings.budget,
        "limits": {
            key: most for key, most in plan.limits._asdict().items() if most is not None and key != "num_classes"
        },
        "proxy": str(plan.proxy),
        "fidelity": "halving" if ladder.top else "full",
        **({"ladder": [str(rung) for rung in ladder.rungs], "eta": ladder.eta} if ladder.top else {}),
        "sampler": plan.sampler.name,
        "trained": book.outcomes["trained"],
        **({"scored": book.outcomes["scored"]} if scores else {}),
        "stopped": book.outcomes["stopped"],
        "failed": book.outcomes["failed"],
        "failures": dict(book.failures),
        "rejected": counts["rejected"],
        "duplicates": counts["duplicate"],
        **({"prescreened": counts["prescreened"]} if plan.prescreen else {}),
        "trainings": book.trainings,
        "remembered": book.remembered,
        "image_steps": book.image_steps,
        "hypervolume": book.front.hypervolume(),
        "hypervolume_reference": {} if scores else {"top1": 0.0, **reference},
        "front": rows,
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
    broken = plan.excess(config)
    outcome = "over budget" if "params" in broken else "over a limit" if broken else fits
    return {
        "ref": name, "name": name, "trial": None, "origin": "preset", "outcome": outcome,
        "params": costs.params, "macs": costs.macs, "weight_bytes": costs.weight_bytes,
        "peak_activation_bytes": costs.peak_activation_bytes,
        "latency_ms": latency.ms, "latency_low_ms": latency.low_ms, "latency_high_ms": latency.high_ms,
        "latency_source": latency.source, "top1": None, "top1_std": None, "top1_by_seed": {},
        "train_seconds": 0.0, "largest_batch": None, "error": None, "failure": None, "within": True, "evaluations": [],
        "digest": config.digest(), "config": config.model_dump(mode="json"),
    }  # fmt: skip
