"""The loop: take what is due, hand it to an engine, write down what comes back; then the finals.

One driver owns the study. Whatever it decides follows from what is written, in the order of events, so that a run with
one worker that is killed and carried on ends as if it had not been.
"""

import shutil
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from optuna.trial import TrialState

from mvit_search.architecture import MobileViTConfig
from mvit_search.errors import TargetUnavailable, WorkError
from mvit_search.records import LatencyFact, Record, RunFolder
from mvit_search.records.pareto import costs_of
from mvit_search.search.book import Book
from mvit_search.search.brake import Brake
from mvit_search.search.engines import Engine
from mvit_search.search.events import EVENT, EventLog, asked, valued
from mvit_search.search.measuring import Candidate, LatencyQueue
from mvit_search.search.memory import Memory, NoMemory
from mvit_search.search.ordering import order
from mvit_search.search.plan import Plan
from mvit_search.search.progress import Observer
from mvit_search.search.proposer import COUNTED, Proposer, first_generation
from mvit_search.search.recording import evaluated, first_record, grown
from mvit_search.search.reporting import Reporter
from mvit_search.search.result import EndedBy
from mvit_search.search.sampling import Sampling
from mvit_search.search.standing import Standing
from mvit_search.search.store import Store
from mvit_search.search.task import Evaluation, Evaluator, Failure, Task

T = TypeVar("T")

SEARCH_SHARE = 2 / 3
"""Share of the time that the search may use; the rest is kept for the finals."""
ASKING_SHARE = 1 / 2
"""The same for beginning new candidates, where these have rungs still to climb."""
CLOSING_SHARE = 5 / 6
"""The same for the last promotions, unless nobody has reached the full fidelity yet."""
_LOOK_EVERY_S = 0.5
_GRACE_S = 30.0
"""How long what runs may take to end its epoch and be saved, once the run should end."""
_STORED_TRIALS = {"failed": TrialState.FAIL, "stopped": TrialState.PRUNED}

Key = tuple[str, int, int]


class _Flight(NamedTuple):
    """A task under way: whose it is, and its place in the order of events."""

    task: Task
    begun: int
    candidate: Candidate | None
    latency: LatencyFact | None


class Search:
    """One run from an open store; `run()` carries on from whatever the store holds.

    `screener` scores proposals before one of them is trained, where the plan has a prescreen. `memory` knows trainings
    of earlier runs; `earlier` are candidates to begin with, see `search.earlier`.
    """

    def __init__(
        self, plan: Plan, store: Store, folder: RunFolder, engine: Engine, observer: Observer, *,
        brake: Brake | None = None, screener: Evaluator | None = None, memory: Memory | None = None,
        earlier: tuple[MobileViTConfig, ...] = (),
    ) -> None:  # fmt: skip
        self.plan, self.store, self.folder, self.engine = plan, store, folder, engine
        self.brake = brake or Brake()
        self.memory = memory or NoMemory()
        self._start = self.brake.clock()
        self._presets = plan.presets()
        self._names = {config.digest(): name for name, config in self._presets.items()}
        reference = self._remembered("reference", plan.reference_costs)
        self.book = Book(
            store.records(), plan.settings.objectives, None if plan.proxy.scores else reference,
            len(plan.ladder.rungs),
        )  # fmt: skip
        shape = plan.shape
        self._sampling = Sampling(shape.directions, shape.distributions, store.keep_system_attr)
        self._sampling.restore(store.system_attrs, store.trials)
        self._standing = Standing(plan.ladder, plan.settings.objectives, plan.limits, self._first_seed, self._sampling)
        self._known = {record.digest for record in self.book.records}
        population = self._remembered("population", lambda: _population(plan.settings.trials))
        first = first_generation(plan, population, [plan.space.params(config) for config in earlier])
        self._proposer = Proposer(plan, self._sampling, self._known, first, population, screener)
        self._latencies = LatencyQueue(plan.target, plan.settings.num_classes, aside=plan.engine != "in-process")
        self._costs = [attrgetter(key) for key in costs_of(plan.settings.objectives)]
        self._flying: dict[Key, _Flight] = {}
        self._climbing: deque[Record] = deque()
        self._resumed: deque[Candidate] = deque()
        self._told: set[int] = set()
        self._next_event = 0
        self._log = EventLog(folder.path)
        self._rungs_folder = folder.path / "checkpoints" / "rungs"
        self._reporter = Reporter(
            plan, folder, self.book, engine, observer, self.brake, presets=self._presets,
            counts=self._proposer.counts, reference=reference,
        )  # fmt: skip

    def run(self) -> dict[str, object]:
        """Search, finals, results; returns the front document.

        Raises:
            KeyboardInterrupt: after everything finished so far is written.
            WorkError: if not one candidate could be trained.
        """
        self.brake.deadline = self._start + self.plan.settings.time_s
        try:
            self._restore()
            ended_by = self._search_while_there_is_a_target()
            if not self.book.succeeded:
                self._explain_nothing()
            self._tell_stopped()
            self._run_finals()
        except KeyboardInterrupt:
            self._reporter.write("stopped", "interrupt")
            raise
        except Exception:
            self._reporter.write("failed", "error")
            raise
        finally:
            self._latencies.close()
            self._log.close()
        shutil.rmtree(self._rungs_folder, ignore_errors=True)  # whoever is promoted in a longer run is trained anew
        document = self._reporter.write("finished", ended_by)
        self._reporter.tell("done", None)
        return document

    def _explain_nothing(self) -> None:
        errors = "; ".join(sorted({record.error for record in self.book.records if record.error}))
        done = "scored" if self.plan.proxy.scores else "trained"
        why = errors or "the time was up before the first was"
        raise WorkError(f"none of {len(self.book.records)} candidates could be {done}: {why}")

    # Taking up where the run was left.

    def _restore(self) -> None:
        records = self.book.records
        by_trial = {record.trial: record for record in records if record.trial is not None}
        events = [event for record in records for e in record.evaluations for event in valued(record, e)]
        for trial in self.store.trials:
            config = self.plan.space.config(trial.params)
            events.append(asked(trial, config))
            for reason in COUNTED:
                self._proposer.counts[reason] += trial.user_attrs.get(reason, 0)
            if trial.state.is_finished():
                self._told.add(trial.number)
            elif trial.number not in by_trial:
                self._resume(trial.number, config, trial.user_attrs)
        self._next_event = 1 + max((int(event["event"]) for event in events), default=-1)
        self._standing.restore(records)
        for record in records:
            if record.trial is not None and record.trial not in self._told and record.outcome != "stopped":
                self.store.finish(record.trial, *self._ending(record))  # a kill came between the record and its trial
                self._told.add(record.trial)
            if record.outcome == "stopped" and record.origin == "preset":
                self._climbing.append(record)
        self._log.begin(events)

    def _resume(self, number: int, config: MobileViTConfig, attrs: dict[str, Any]) -> None:
        """A proposal that was in flight when the run last ended."""
        self._known.add(config.digest())
        name = self._names.get(config.digest())
        self._resumed.append(Candidate(config, number, name, "preset" if name else attrs["origin"], begun=-1))

    # The search.

    def _search_while_there_is_a_target(self) -> EndedBy:
        """The search; it ends with what is finished once nothing measures any more. The finals need no latency."""
        try:
            return self._search()
        except TargetUnavailable:
            self._drain()
            if not self.book.succeeded:
                raise
            return "target unavailable"

    def _search(self) -> EndedBy:
        self._phase = "search"
        self._ended: EndedBy | None = None
        self._reporter.tell("search", None)
        self._outside = deque(self._presets_outside())
        self._work_through(self._begin_next)
        return self._ended or "trials"

    def _work_through(self, begin: Callable[[], bool]) -> None:
        """Begin what is due and settle what comes back, until nothing is due and nothing runs."""
        while True:
            nothing_due = self._fill(begin)
            if self.brake.pressed():
                self._drain()
                return
            if nothing_due and not self._flying and not len(self._latencies):
                return
            self._settle_what_comes()

    def _fill(self, begin: Callable[[], bool]) -> bool:
        """Keep the engine busy; whether it could be busier, but nothing is due at present."""
        while self.engine.capacity > self.engine.running + len(self._latencies) and not self.brake.pressed():
            if not self._take_off() and not begin():
                return True
            self._take_off()
        return False

    def _begin_next(self) -> bool:
        """Begin one thing that is due, the nearest to the front first; False if nothing is at present."""
        if self._resumed:
            self._latencies.submit(replace(self._resumed.popleft(), begun=self._event()))
            return True
        if self._climbing:
            self._promote(self._climbing.popleft())
            return True
        return self._begin_promotion() or self._begin_new() or self._begin_last_promotion()

    def _begin_promotion(self) -> bool:
        promotion = self._standing.halving.next_promotion()
        if promotion is None or self._is_late(SEARCH_SHARE):
            return False
        self._promote(self.book.records[promotion.number])
        return True

    def _begin_last_promotion(self) -> bool:
        """No new candidates will come: places are given away once all who compete for them are known."""
        promotion = self._standing.halving.next_promotion(closing=True)
        if promotion is None or (self._is_late(CLOSING_SHARE) and self.book.succeeded):
            return False
        if len(self._latencies) or any(flight.task.rung < promotion.rung for flight in self._flying.values()):
            return False
        self._promote(self.book.records[promotion.number])
        return True

    def _promote(self, record: Record) -> None:
        """Send a candidate to the rung above those that it has reached."""
        seed = self._first_seed(record)
        reached = max(e.rung for e in record.evaluations if e.seed == seed and e.value is not None)
        rung = reached + 1
        if record.origin != "preset":
            self._standing.halving.begin(rung, record.number)
        task = Task(
            record.config, seed, rung, reached, self._weights(record.digest, reached), self._keep(record.digest, rung)
        )
        self._submit(_Flight(task, self._event(), None, record.latency))

    def _may_ask(self) -> bool:
        """Whether the run's settings allow another new candidate."""
        begun = self.book.proposed + len(self._latencies) + sum(f.candidate is not None for f in self._flying.values())
        return begun < self.plan.settings.trials

    def _begin_new(self) -> bool:
        if self._ended is not None:
            return False
        if not self._may_ask():
            self._ended = "trials"
            return False
        while self._outside:
            name, config = self._outside.popleft()
            if config.digest() not in self._known:
                self._known.add(config.digest())
                self._latencies.submit(Candidate(config, None, name, "preset", self._event()))
                return True
        late = ASKING_SHARE if self.plan.ladder.top else SEARCH_SHARE
        if self._is_late(late) and self.book.records:
            self._ended = "time"
            return False
        proposal = self._proposer.next(lambda: self._is_late(late), lambda: self._reporter.tell("search", None))
        if proposal is None:
            self._ended = "space exhausted"
            return False
        attrs = {EVENT: self._event(), "origin": proposal.origin, **proposal.passed_over}
        trial = self._sampling.admit(proposal.draft, attrs)
        self.store.admit(trial)
        self._log.add(asked(trial, proposal.config))
        self._known.add(proposal.config.digest())
        name = self._names.get(proposal.config.digest())
        self._latencies.submit(
            Candidate(proposal.config, trial.number, name, "preset" if name else proposal.origin, self._event())
        )
        return True

    def _presets_outside(self) -> list[tuple[str, MobileViTConfig]]:
        """Presets that no trial proposes, inside the limits; of a table those that it has."""
        replay = self.plan.replay
        return [
            (name, config)
            for name, config in self._presets.items()
            if config not in self.plan.space
            and not self.plan.excess(config)
            and (replay is None or replay.knows(config))
        ]

    def _is_late(self, share: float) -> bool:
        return self.elapsed() > share * self.plan.settings.time_s

    # From a candidate to its record.

    def _take_off(self) -> bool:
        """Send the next candidate whose latency is known to be trained; whether there was one."""
        timed = self._latencies.take()
        if timed is None:
            return False
        candidate, latency = timed
        seed = self._seeds(candidate.config)[0]
        digest = candidate.config.digest()
        flight = _Flight(Task(candidate.config, seed, 0, keep=self._keep(digest, 0)), candidate.begun, candidate, None)
        if isinstance(latency, WorkError):
            self._settle(flight, Evaluation(None, 0.0, str(latency), failure=Failure.LATENCY))
            return True
        flight = flight._replace(latency=latency)
        if self.plan.limits.excess_after(None, latency.ms):
            error = f"latency {latency.how} {latency.ms:.2f} ms, over --max-latency {self.plan.limits.latency_ms:g} ms"
            self._settle(flight, Evaluation(None, 0.0, error, failure=Failure.LIMIT))
            return True
        self._submit(flight)
        return True

    def _submit(self, flight: _Flight) -> None:
        key = _key(flight.task)
        self._flying[key] = flight
        self._reporter.under_way[flight.task.rung] += 1
        remembered = self.memory.get(flight.task)
        if remembered is not None:
            self._settle(self._landed(flight.task), remembered)
        else:
            self.engine.submit(flight.task)

    def _landed(self, task: Task) -> _Flight:
        self._reporter.under_way[task.rung] -= 1
        return self._flying.pop(_key(task))

    def _settle_what_comes(self) -> None:
        for task, evaluation in self.engine.wait(_LOOK_EVERY_S):
            self._settle(self._landed(task), evaluation)
        self._reporter.tick(self._phase)

    def _settle(self, flight: _Flight, evaluation: Evaluation) -> None:
        """Write down what came of a task; durable when this returns."""
        task = flight.task
        digest = task.config.digest()
        old = self.book.get(digest)
        if evaluation.stopped:
            if old is not None and self._phase == "search" and old.origin != "preset":
                self._standing.halving.drop(task.rung, old.number)
            return
        found = evaluated(self.plan, task, evaluation, flight.begun, self._event())
        if old is None:
            assert flight.candidate is not None
            record = first_record(
                self.plan, len(self.book.records), flight.candidate, flight.latency, found, evaluation
            )
            self.book.add(record)
        else:
            record = grown(self.plan, old, found, evaluation)
            self.book.update(record)
        ends = record.trial is not None and record.trial not in self._told and record.outcome != "stopped"
        self.store.save(record, self._ending(record) if ends else None)
        if ends and record.trial is not None:
            self._told.add(record.trial)
        if evaluation.value is not None and not evaluation.remembered:
            self.memory.put(task, evaluation)
        self._log.add(*valued(record, found))
        if self._phase == "search":
            self._standing.valued(record, task.rung, evaluation.value)
            if record.outcome == "stopped" and record.origin == "preset":
                self._climbing.append(record)
            self._let_go_of_weights()
        else:
            self._reporter.finals_trained(len(self._lacking()) + len(self._flying))
        self._reporter.write("running", None, lazily=True)
        self._reporter.tell(self._phase, record)

    def _ending(self, record: Record) -> tuple[TrialState, list[float] | None]:
        """How the storage's trial ends: with the objectives of the full fidelity, or without values."""
        state = _STORED_TRIALS.get(record.outcome, TrialState.COMPLETE)
        if state != TrialState.COMPLETE:
            return state, None
        value = record.value_by_seed[self._first_seed(record)]
        return state, [value, *(float(cost(record)) for cost in self._costs)]

    def _tell_stopped(self) -> None:
        """The search is over: candidates at lower rungs will not be promoted any more."""
        for record in self.book.records:
            if record.trial is not None and record.trial not in self._told:
                self.store.finish(record.trial, *self._ending(record))
                self._told.add(record.trial)

    # Weights between rungs.

    def _weights(self, digest: str, rung: int) -> Path:
        return self._rungs_folder / f"{digest[:16]}-{rung}.safetensors"

    def _keep(self, digest: str, rung: int) -> Path | None:
        return self._weights(digest, rung) if rung < self.plan.ladder.top else None

    def _let_go_of_weights(self) -> None:
        """Remove the weights of those who will hardly be promoted; if they are after all, they are trained anew."""
        if not self.plan.ladder.top:
            return
        wanted = {self._weights(self.book.records[p.number].digest, p.rung) for p in self._standing.halving.keepers()}
        wanted |= {f.task.start for f in self._flying.values() if f.task.start is not None}
        wanted |= {self._weights(r.digest, e.rung) for r in self._climbing for e in r.evaluations}
        for path in self._rungs_folder.glob("*.safetensors"):
            if path not in wanted:
                path.unlink(missing_ok=True)

    # The end of a run, or its interruption.

    def _drain(self) -> None:
        """Let what runs end its epoch and be saved; what is finished meanwhile is written down.

        Raises:
            KeyboardInterrupt: if that is why the run ends.
        """
        self.engine.stop()
        until = self.brake.clock() + _GRACE_S
        while self.engine.running and self.brake.clock() < until:
            for task, evaluation in self.engine.wait(_LOOK_EVERY_S):
                self._settle(self._landed(task), evaluation)
        self._flying.clear()
        if self.brake.interrupted:
            raise KeyboardInterrupt

    # The finals: every point of the front, and the presets, trained with further seeds.

    def _run_finals(self) -> None:
        """Train front and presets with `final_seeds` seeds each.

        A front chosen from single trainings favours lucky ones. Means move points off the front and others
        onto it, so the candidates are looked up anew after each training, until nobody lacks a seed.
        """
        self._phase = "finals"
        if not self.brake.pressed():
            self._work_through(self._begin_final)

    def _begin_final(self) -> bool:
        lacking = self._lacking()
        self._reporter.finals_ahead = len(lacking) + len(self._flying)
        if not lacking or not self._time_for(lacking[0][0]):
            return False
        record, seed = lacking[0]
        self._submit(_Flight(Task(record.config, seed, self.plan.ladder.top), self._event(), None, record.latency))
        return True

    def _lacking(self) -> list[tuple[Record, int]]:
        """(record, seed) still to train, fewest seeds first so that a time limit cuts evenly."""
        members = {record.number: record for record in self._finalists()}
        members |= {r.number: r for r in self.book.named() if r.succeeded}
        lacking = [
            (record, seed)
            for record in members.values()
            for seed in self._seeds(record.config)
            if seed not in record.value_by_seed and (record.digest, seed, self.plan.ladder.top) not in self._flying
        ]
        return sorted(lacking, key=lambda pair: (pair[1], pair[0].number))

    def _finalists(self) -> tuple[Record, ...]:
        """The front, or so many of its points as the settings say, spread over it."""
        front, most = self.book.front.members, self.plan.settings.finals
        if most is None or len(front) <= most:
            return front
        points = [[-record.value, *(float(cost(record)) for cost in self._costs)] for record in front]
        return tuple(front[index] for index in order(points, most))

    def _time_for(self, record: Record) -> bool:
        # Looking up what was recorded takes no time, whatever the recorded training took.
        trained = record.train_seconds / max(1, len(record.value_by_seed))
        expected = 0.0 if self.plan.replay is not None else trained
        return self.elapsed() + expected < self.plan.settings.time_s

    # What follows from the settings.

    def elapsed(self) -> float:
        """Seconds since this start."""
        return self.brake.clock() - self._start

    def _event(self) -> int:
        self._next_event += 1
        return self._next_event - 1

    def _first_seed(self, record: Record) -> int:
        return self._seeds(record.config)[0]

    def _seeds(self, config: MobileViTConfig) -> tuple[int, ...]:
        """The seeds to value it with, the search's own first; of a table those that it has."""
        settings = self.plan.settings
        if self.plan.replay is not None:
            return self.plan.replay.seeds(config)
        return tuple(range(settings.seed, settings.seed + settings.final_seeds))

    def _remembered(self, key: str, make: Callable[[], T]) -> T:
        known: T | None = self.store.remembered(key)
        if known is not None:
            return known
        value = make()
        self.store.remember(key, value)
        return value


def _key(task: Task) -> Key:
    return task.config.digest(), task.seed, task.rung


def _population(trials: int) -> int:
    """A generation: 20, or half of a short run, so that even that one breeds."""
    return min(20, max(6, trials // 2))
