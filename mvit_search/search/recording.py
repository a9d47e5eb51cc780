"""What becomes of a record: made when a candidate was valued for the first time, grown with every further valuation."""

from mvit_search.profile import cost
from mvit_search.records import LatencyFact, Record
from mvit_search.records.record import Evaluated
from mvit_search.search.measuring import Candidate
from mvit_search.search.plan import Plan
from mvit_search.search.task import Evaluation, Failure, Task


def first_record(
    plan: Plan, number: int, candidate: Candidate, latency: LatencyFact | None, evaluated: Evaluated,
    evaluation: Evaluation,
) -> Record:  # fmt: skip
    """The record of a candidate that was valued once, or could not be."""
    costs = cost(candidate.config, plan.settings.num_classes)
    blank = Record(
        number=number, name=candidate.name, trial=candidate.trial, origin=candidate.origin, outcome="failed",
        digest=candidate.config.digest(), config=candidate.config, params=costs.params, macs=costs.macs,
        weight_bytes=costs.weight_bytes, peak_activation_bytes=costs.peak_activation_bytes, latency=latency,
    )  # fmt: skip
    return grown(plan, blank, evaluated, evaluation)


def grown(plan: Plan, record: Record, evaluated: Evaluated, evaluation: Evaluation) -> Record:
    """The record with one more valuation. One that fails makes the candidate a failed one: it cannot be relied on.

    It stays one, whatever comes back later of the seeds that were trained beside it.
    """
    batches = [n for n in (record.largest_batch, evaluation.largest_batch) if n is not None]
    change = {
        "evaluations": (*record.evaluations, evaluated),
        "train_seconds": record.train_seconds + evaluation.seconds,
        "largest_batch": min(batches, default=None),
    }
    if evaluation.value is None:
        later = f"seed {evaluated.seed}: " if record.value_by_seed else ""
        failure = evaluation.failure or Failure.OTHER
        change |= {"outcome": "failed", "error": f"{later}{evaluation.error}", "failure": str(failure)}
        return record.model_copy(update=change)
    if record.error is not None:
        return record.model_copy(update=change)
    if evaluated.rung < plan.ladder.top:
        return record.model_copy(update={**change, "outcome": "stopped"})
    by_seed = {**record.value_by_seed, evaluated.seed: evaluation.value}
    scores = plan.proxy.scores
    change |= {"outcome": "scored" if scores else "trained", "score_by_seed" if scores else "top1_by_seed": by_seed}
    valued = record.model_copy(update=change)
    within = not plan.limits.excess_after(valued.value, valued.latency_ms)
    return valued.model_copy(update={"within": within})


def evaluated(plan: Plan, task: Task, evaluation: Evaluation, begun: int, ended: int) -> Evaluated:
    """A valuation as records keep it."""
    return Evaluated(
        seed=task.seed, rung=task.rung, epochs=plan.ladder.rungs[task.rung].epochs, value=evaluation.value,
        seconds=evaluation.seconds, image_steps=evaluation.image_steps, begun=begun, ended=ended,
        remembered=evaluation.remembered,
    )  # fmt: skip
