"""Doing what an older run did: its proposals, promotions and further seeds, in its order of events.

Runs of several workers do not follow from their seed: what is proposed depends on what came back first. Their log of
events says what did. Gone through again, with any engine, each valuation begins and ends where it did, so that the new
run's records are the old one's wherever training is deterministic. Nothing is taken from the old run but the order.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple, Self

from mvit_search.architecture import PRESETS
from mvit_search.errors import InputError
from mvit_search.records import RunFolder
from mvit_search.search.events import FILE, read_events
from mvit_search.search.measuring import Candidate
from mvit_search.search.plan import Plan
from mvit_search.search.proposer import COUNTED, Proposal
from mvit_search.search.result import EndedBy
from mvit_search.search.sampling import Draft
from mvit_search.search.work import Work


class Step(NamedTuple):
    """One valuation of the older run: by whom it is known, and what it came to."""

    digest: str
    seed: int
    rung: int
    value: float | None


class Script(NamedTuple):
    """An older run's events, those without effect left out: a valuation that a kill cut off has no end."""

    events: tuple[dict[str, Any], ...]

    @classmethod
    def of(cls, folder: RunFolder) -> Self:
        """Read a run's log.

        Raises:
            InputError: there is none, or it is damaged.
        """
        events = read_events(folder.path / FILE)
        if not events:
            raise InputError("--replay", folder.name, "has no events yet", "let it begin first")
        return cls(tuple(events))

    @property
    def steps(self) -> list[Step]:
        """What was valued, in the order of the ends."""
        return [_step(event) for event in self.events if event["kind"] == "end"]

    def compare(self, records: "Iterable[Any]") -> tuple[int, int]:
        """(valuations that came to the same, all of them) of the records that followed this script."""
        found = {
            (record.digest, e.seed, e.rung): e.value for record in records for e in record.evaluations
        }  # fmt: skip
        steps = self.steps
        same = sum(found.get((step.digest, step.seed, step.rung), -1.0) == step.value for step in steps)
        return same, len(steps)


def follow(script: Script, plan: Plan, work: Work) -> EndedBy:
    """Go through the events; what a killed replay did already is passed over.

    Raises:
        KeyboardInterrupt: the run was interrupted.
    """
    asked = {candidate.config.digest(): candidate for candidate in work.resumed}
    for event in script.events:
        if event["kind"] == "ask":
            if event["trial"] >= work.sampling.admitted:
                candidate = work.admit(_proposal(event, plan))
                asked[candidate.config.digest()] = candidate
        elif event["kind"] == "end":
            _do(_step(event), event, asked, plan, work)
        if work.brake.pressed():
            work.drain()
            return "time"
    return "trials"


def _do(step: Step, event: dict[str, Any], asked: dict[str, Candidate], plan: Plan, work: Work) -> None:
    record = work.book.get(step.digest)
    if record is None:
        candidate = asked.get(step.digest) or _preset(step, event, plan)
        work.begin(candidate)
    elif any((e.seed, e.rung) == (step.seed, step.rung) for e in record.evaluations):
        return
    elif step.seed == work.seeds(record.config)[0]:
        if record.outcome == "failed":
            return  # here, and not there: there is nothing to go on from
        work.climb(record)
    else:
        work.again(record, step.seed)
    while not work.idle and not work.brake.pressed():
        work.take_off()
        work.wait()


def _preset(step: Step, event: dict[str, Any], plan: Plan) -> Candidate:
    """A preset that no trial proposed."""
    for name, config in plan.presets().items():
        if config.digest() == step.digest:
            return Candidate(config, None, name, "preset", begun=-1)
    known = ", ".join(PRESETS)
    raise InputError("--replay", step.digest[:12], f"event {event['event']} is of nobody who was asked for", known)


def _proposal(event: dict[str, Any], plan: Plan) -> Proposal:
    params = event["params"]
    passed_over = {reason: int(event[reason]) for reason in COUNTED if reason in event}
    return Proposal(plan.space.config(params), Draft(params, {}), event["origin"], passed_over)


def _step(event: dict[str, Any]) -> Step:
    return Step(event["digest"], int(event["seed"]), int(event["rung"]), event["value"])
