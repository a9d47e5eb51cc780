"""The mechanics of a run: tasks go to the engine, what comes back is written down, in one order of events.

What is to be done, and when, is the driver's to say (driver.py), or an older run's log (following.py).
"""

import shutil
from collections.abc import Iterable
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from optuna.trial import TrialState

from mvit_search.architecture import MobileViTConfig
from mvit_search.errors import WorkError
from mvit_search.records import LatencyFact, Record, RunFolder
from mvit_search.records.pareto import costs_of
from mvit_search.records.record import Origin
from mvit_search.search.book import Book
from mvit_search.search.brake import Brake
from mvit_search.search.engines import Engine
from mvit_search.search.events import EVENT, EventLog, asked, valued
from mvit_search.search.measuring import Candidate, LatencyQueue
from mvit_search.search.memory import Memory
from mvit_search.search.plan import Plan
from mvit_search.search.proposer import Proposal
from mvit_search.search.recording import evaluated, first_record, grown
from mvit_search.search.reporting import Reporter
from mvit_search.search.sampling import Sampling
from mvit_search.search.standing import Standing
from mvit_search.search.store import Store, collection_paused
from mvit_search.search.task import Evaluation, Failure, Task

LOOK_EVERY_S, LOOK_SOON_S = 0.5, 0.05
"""How long the engine is waited for at a time; soon where a latency may become known meanwhile."""
_GRACE_S = 30.0
"""How long what runs may take to end its epoch and be saved, once the run should end."""
_ENDINGS = {"failed": TrialState.FAIL, "stopped": TrialState.PRUNED}

Key = tuple[str, int, int]
"""Digest, seed and rung of a task."""


class _Flight(NamedTuple):
    """A task under way, its place in the order of events, and whose first valuation it is, if it is a first one."""

    task: Task
    begun: int
    candidate: Candidate | None
    latency: LatencyFact | None


class Work:
    """What is under way, and what is known.

    Attributes:
        known: digests of candidates that are recorded or under way.
        resumed: candidates that were in flight when the run last ended.
    """

    def __init__(
        self, plan: Plan, store: Store, folder: RunFolder, engine: Engine, brake: Brake, memory: Memory, book: Book,
        sampling: Sampling,
    ) -> None:  # fmt: skip
        self.plan, self.store, self.engine, self.brake = plan, store, engine, brake
        self.memory, self.book, self.sampling = memory, book, sampling
        self.names = {config.digest(): name for name, config in plan.presets().items()}
        self.standing = Standing(plan.ladder, plan.settings.objectives, plan.limits, self._first_seed, sampling)
        self.known = {record.digest for record in book.records}
        self.resumed: list[Candidate] = []
        self._latencies = LatencyQueue(plan.target, plan.settings.num_classes, aside=plan.engine != "in-process")
        self._costs = [attrgetter(key) for key in costs_of(plan.settings.objectives)]
        self._flying: dict[Key, _Flight] = {}
        self._told: set[int] = set()
        self._next_event = 0
        self._log = EventLog(folder.path)
        self._weights_folder = folder.path / "checkpoints" / "rungs"

    def restore(self, reporter: Reporter) -> None:
        """Take up what the store holds, and write what it owes: trials whose records a kill left untold."""
        self._reporter = reporter
        if self.plan.ladder.top:
            self._weights_folder.mkdir(parents=True, exist_ok=True)
        with collection_paused():
            self._log.begin(self._restored())

    def _restored(self) -> list[dict[str, Any]]:
        """Everything but the log; returns the events so far."""
        records = self.book.records
        digests = {record.trial: record.digest for record in records}
        events = [event for record in records for e in record.evaluations for event in valued(record, e)]
        for trial in self.store.trials:
            digest = digests.get(trial.number)
            if trial.state.is_finished():
                self._told.add(trial.number)
            if digest is None:  # it was in flight
                config = self.plan.space.config(trial.params)
                digest = config.digest()
                self.known.add(digest)
                name = self.names.get(digest)
                origin: Origin = "preset" if name else trial.user_attrs["origin"]
                self.resumed.append(Candidate(config, trial.number, name, origin, begun=-1))
            events.append(asked(trial, digest))
        self._next_event = 1 + max((int(event["event"]) for event in events), default=-1)
        self.standing.restore(records)
        self.tell_ended(record for record in records if record.outcome != "stopped")
        return events

    def close(self) -> None:
        """Let go of threads and files."""
        self._latencies.close()
        self._log.close()

    # Beginning.

    @property
    def room(self) -> bool:
        """Whether the engine could do more at once."""
        return self.engine.capacity > self.engine.running + len(self._latencies) and not self.brake.pressed()

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._flying and not len(self._latencies)

    @property
    def new_under_way(self) -> int:
        """Candidates that were begun and have no record yet, those of an earlier run not counted."""
        begun = [*(flight.candidate for flight in self._flying.values()), *self._latencies.candidates]
        return sum(candidate is not None and candidate.origin != "earlier" for candidate in begun)

    def lowest_under_way(self) -> int | None:
        """The lowest rung that anything is under way to."""
        if len(self._latencies):
            return 0
        return min((flight.task.rung for flight in self._flying.values()), default=None)

    def is_under_way(self, digest: str, seed: int, rung: int) -> bool:
        """Whether that task is."""
        return (digest, seed, rung) in self._flying

    def admit(self, proposal: Proposal) -> Candidate:
        """Make a proposal a trial, durably; it is not begun yet."""
        attrs = {EVENT: self._event(), "origin": proposal.origin, **proposal.passed_over}
        trial = self.sampling.admit(proposal.draft, attrs)
        self.store.admit(trial)
        self._log.add(asked(trial, proposal.config.digest()))
        self.known.add(proposal.config.digest())
        name = self.names.get(proposal.config.digest())
        return Candidate(proposal.config, trial.number, name, "preset" if name else proposal.origin, begun=-1)

    def begin(self, candidate: Candidate) -> None:
        """Have a candidate timed, and then trained at the lowest rung.

        Raises:
            TargetUnavailable: nothing measures any more; it stays a proposal in flight.
        """
        self.known.add(candidate.config.digest())
        self._latencies.submit(candidate.at(self._event()))
        self.take_off()

    def climb(self, record: Record) -> None:
        """Send a candidate to the rung above those that it has reached."""
        seed = self._first_seed(record)
        reached = max(e.rung for e in record.evaluations if e.seed == seed and e.value is not None)
        if record.origin != "preset":
            self.standing.halving.begin(reached + 1, record.number)
        start, keep = self._weights(record.digest, reached), self._keep(record.digest, reached + 1)
        task = Task(record.config, seed, reached + 1, reached, start, keep)
        self._submit(_Flight(task, self._event(), None, record.latency))

    def again(self, record: Record, seed: int) -> None:
        """Train a candidate to the full fidelity with another seed."""
        task = Task(record.config, seed, self.plan.ladder.top)
        self._submit(_Flight(task, self._event(), None, record.latency))

    def take_off(self) -> None:
        """Send those candidates to be trained whose latencies are known.

        Raises:
            TargetUnavailable: as `begin`.
        """
        while (timed := self._latencies.take()) is not None:
            self._take_off(*timed)

    def _take_off(self, candidate: Candidate, latency: LatencyFact | WorkError) -> None:
        seed = self.seeds(candidate.config)[0]
        task = Task(candidate.config, seed, 0, keep=self._keep(candidate.config.digest(), 0))
        flight = _Flight(task, candidate.begun, candidate, None)
        if isinstance(latency, WorkError):
            self._settle(flight, Evaluation(None, 0.0, str(latency), failure=Failure.LATENCY))
            return
        flight = flight._replace(latency=latency)
        if self.plan.limits.excess_after(None, latency.ms):
            error = f"latency {latency.how} {latency.ms:.2f} ms, over --max-latency {self.plan.limits.latency_ms:g} ms"
            self._settle(flight, Evaluation(None, 0.0, error, failure=Failure.LIMIT))
            return
        self._submit(flight)

    def _submit(self, flight: _Flight) -> None:
        remembered = self.memory.get(flight.task)
        if remembered is not None:
            self._settle(flight, remembered)
            return
        self._flying[_key(flight.task)] = flight
        self.engine.submit(flight.task)
        candidate = flight.candidate
        self._reporter.begun(flight.task, new=candidate is not None and candidate.origin != "earlier")

    # What comes back.

    def wait(self) -> None:
        """Settle what comes back within a moment."""
        moment_s = LOOK_SOON_S if len(self._latencies) else LOOK_EVERY_S
        if self._flying or not len(self._latencies):
            for task, evaluation in self.engine.wait(moment_s):
                self._land(task, evaluation)
        else:
            self._latencies.wait(moment_s)
        self._reporter.tick()

    def finish(self) -> None:
        """Nothing measures any more: let what is trained come to its end. Who waits for a latency stays a proposal.

        The engine is not stopped, for it does not begin again, and the finals are still to come.

        Raises:
            KeyboardInterrupt: as `drain`.
        """
        self._latencies.forget()
        while not self.idle and not self.brake.pressed():
            self.wait()
        if self.brake.pressed():
            self.drain()

    def drain(self) -> None:
        """Let what runs end its epoch and be saved; what is finished meanwhile is written down.

        Raises:
            KeyboardInterrupt: if that is why the run ends.
        """
        self.engine.stop()
        until = self.brake.clock() + _GRACE_S
        while self.engine.running and self.brake.clock() < until:
            for task, evaluation in self.engine.wait(LOOK_EVERY_S):
                self._land(task, evaluation)
        self._flying.clear()
        if self.brake.interrupted:
            raise KeyboardInterrupt

    def _land(self, task: Task, evaluation: Evaluation) -> None:
        flight = self._flying.pop(_key(task))
        self._reporter.landed(task)
        if not evaluation.stopped:
            self._settle(flight, evaluation)
            return
        record = self.book.get(task.config.digest())
        if record is not None and record.origin != "preset" and task.seed == self._first_seed(record):
            self.standing.halving.drop(task.rung, record.number)

    def _settle(self, flight: _Flight, evaluation: Evaluation) -> None:
        """Write down what came of a task; durable when this returns."""
        task = flight.task
        found = evaluated(self.plan, task, evaluation, flight.begun, self._event())
        old = self.book.get(task.config.digest())
        if old is None:
            assert flight.candidate is not None
            number = len(self.book.records)
            record = first_record(self.plan, number, flight.candidate, flight.latency, found, evaluation)
        else:
            record = grown(self.plan, old, found, evaluation)
        ends = record.trial is not None and record.trial not in self._told and record.outcome != "stopped"
        self.store.save(record, self._ending(record) if ends else None)
        if ends and record.trial is not None:
            self._told.add(record.trial)
        if old is None:
            self.book.add(record)
        else:
            self.book.update(record)
        if evaluation.value is not None and not evaluation.remembered:
            self.memory.put(task, evaluation)
        self._log.add(*valued(record, found))
        if task.seed == self._first_seed(record):
            self.standing.valued(record, task.rung, evaluation.value)
            self._let_go_of_weights()
        self._reporter.settled(record)

    def tell_ended(self, records: Iterable[Record]) -> None:
        """Tell the storage how trials ended that it does not know of."""
        for record in records:
            if record.trial is not None and record.trial not in self._told:
                self.store.finish(record.trial, *self._ending(record))
                self._told.add(record.trial)

    def _ending(self, record: Record) -> tuple[TrialState, list[float] | None]:
        """How the storage's trial ends: with the objectives of the full fidelity, or without values."""
        state = _ENDINGS.get(record.outcome, TrialState.COMPLETE)
        if state != TrialState.COMPLETE:
            return state, None
        return state, [record.value_by_seed[self._first_seed(record)], *self.costs(record)]

    # Weights between rungs.

    def _weights(self, digest: str, rung: int) -> Path:
        return self._weights_folder / f"{digest[:16]}-{rung}.safetensors"

    def _keep(self, digest: str, rung: int) -> Path | None:
        return self._weights(digest, rung) if rung < self.plan.ladder.top else None

    def _let_go_of_weights(self) -> None:
        """Remove the weights of those who will hardly be promoted; if they are after all, they are trained anew."""
        if not self.plan.ladder.top:
            return
        wanted = {self._weights(self.book.records[p.number].digest, p.rung) for p in self.standing.halving.keepers()}
        wanted |= {flight.task.start for flight in self._flying.values() if flight.task.start is not None}
        for record in self.book.named():
            wanted |= {self._weights(record.digest, e.rung) for e in record.evaluations[-1:]}
        for path in self._weights_folder.glob("*.safetensors"):
            if path not in wanted:
                path.unlink(missing_ok=True)

    def clear_weights(self) -> None:
        """The run has finished. Whoever is promoted in a longer run is trained anew."""
        shutil.rmtree(self._weights_folder, ignore_errors=True)

    # What follows from the settings.

    def costs(self, record: Record) -> list[float]:
        """The record's costs among the objectives."""
        return [float(cost(record)) for cost in self._costs]

    def seeds(self, config: MobileViTConfig) -> tuple[int, ...]:
        """The seeds to value it with, the search's own first; of a table those that it has."""
        settings = self.plan.settings
        if self.plan.replay is not None:
            return self.plan.replay.seeds(config)
        return tuple(range(settings.seed, settings.seed + settings.final_seeds))

    def _first_seed(self, record: Record) -> int:
        return self.seeds(record.config)[0]

    def _event(self) -> int:
        self._next_event += 1
        return self._next_event - 1


def _key(task: Task) -> Key:
    return task.config.digest(), task.seed, task.rung
