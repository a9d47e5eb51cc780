"""The loop: ask, check, latency, train, tell; then the finals. One driver owns the study."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from optuna.trial import Trial

from mvit_search.architecture import MobileViTConfig
from mvit_search.errors import TargetUnavailable, WorkError
from mvit_search.profile import cost
from mvit_search.records import LatencyFact, Record, RunFolder, hypervolume, pareto_front
from mvit_search.records.record import Origin
from mvit_search.search.evaluator import Evaluation, Evaluator
from mvit_search.search.plan import Plan
from mvit_search.search.progress import Observer, Progress
from mvit_search.search.proposals import draw_evenly, unseen
from mvit_search.search.result import EndedBy, front_document, untrained_row
from mvit_search.search.samplers import make_sampler
from mvit_search.search.store import Store
from mvit_search.space import Params

T = TypeVar("T")

SEARCH_SHARE = 2 / 3
"""Share of the time that the search may use; the rest is kept for the finals."""

_FRUITLESS_LIMIT = 50
"""So many rejected or repeated proposals in a row, and the next one is drawn by us: the loop always advances."""


class Search:
    """One run from an open store; `run()` carries on from whatever the store holds."""

    def __init__(
        self, plan: Plan, store: Store, folder: RunFolder, evaluator: Evaluator, observer: Observer,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.plan, self.store, self.folder = plan, store, folder
        self.evaluator, self.observer, self.clock = evaluator, observer, clock
        self._start = clock()
        self._presets = plan.presets()
        self._untrained = [untrained_row(plan, name, config) for name, config in self._presets.items()]
        self._names = {config.digest(): name for name, config in self._presets.items()}
        self._distributions = plan.space.distributions()
        self._records = store.records()
        self._by_digest = {record.digest: record for record in self._records}
        self._counts = store.outcomes()
        self._index = sum(count for outcome, count in self._counts.items() if outcome != "discarded")
        self._fruitless = store.trailing("rejected", "duplicate")
        self._population: int = self._remembered("population", lambda: _population(plan.settings.trials))
        self._worst_ms: float = self._remembered("worst_latency_ms", self._reference_latency)
        self._first: list[Params] = self._first_generation()
        self._finals = (0, 0)

    def run(self) -> dict[str, object]:
        """Search, finals, results; returns the front document.

        Raises:
            KeyboardInterrupt: after everything finished so far is written.
            WorkError: if not one candidate could be trained.
        """
        try:
            ended_by = self._search_while_there_is_a_target()
            if not self._trained():
                errors = "; ".join(sorted({record.error or "" for record in self._records}))
                raise WorkError(f"none of {len(self._records)} candidates could be trained: {errors}")
            self._run_finals()
        except KeyboardInterrupt:
            self._write("stopped", "interrupt")
            raise
        except Exception:
            self._write("failed", "error")
            raise
        document = self._write("finished", ended_by)
        self._notify("done", None)
        return document

    # The search phase.

    def _search_while_there_is_a_target(self) -> EndedBy:
        """The search; it ends with what is finished once nothing measures any more. The finals need no latency."""
        try:
            return self._search()
        except TargetUnavailable:
            if not self._trained():
                raise
            return "target unavailable"

    def _search(self) -> EndedBy:
        self._notify("search", None)
        for trial in self.store.unfinished(self._distributions.keys()):
            config = self._admit(trial)
            if config is not None:
                self._evaluate(config, trial)
        for name, config in self._presets.items():
            outside = config not in self.plan.space and not self.plan.limits.excess(config)
            if outside and config.digest() not in self._by_digest:
                if len(self._records) >= self.plan.settings.trials:
                    break
                self._evaluate(config, None, name)
        while len(self._trained()) + self._failed() < self.plan.settings.trials:
            if self._elapsed() > SEARCH_SHARE * self.plan.settings.time_s and self._trained():
                return "time"
            proposal = self._propose()
            if proposal is None:
                return "space exhausted"
            self._evaluate(proposal[1], proposal[0])
        return "trials"

    def _propose(self) -> tuple[Trial, MobileViTConfig] | None:
        """The next candidate that is inside the limits and new; None if the space seems to hold no more."""
        while self._fruitless < _FRUITLESS_LIMIT:
            trial = self._ask(self._first[self._index] if self._index < len(self._first) else None)
            config = self._admit(trial)
            if config is not None:
                return trial, config
        rng = self._rng("unseen")
        params = unseen(self.plan.space, self.plan.limits, set(self._by_digest), rng)
        if params is None:
            return None
        trial = self._ask(params)
        config = self._admit(trial)
        return None if config is None else (trial, config)

    def _ask(self, params: Params | None) -> Trial:
        settings = self.plan.settings
        sampler = make_sampler(settings.sampler, self._rng("sampler").getrandbits(31), self._population)
        return self.store.ask(self._distributions, sampler, params)

    def _admit(self, trial: Trial) -> MobileViTConfig | None:
        """The trial's candidate if it is to be trained; else the trial is told why not."""
        config = self.plan.space.config(trial.params)
        self._index += 1
        excess = self.plan.limits.excess(config)
        known = self._by_digest.get(config.digest())
        if not excess and known is None:
            self._fruitless = 0
            return config
        if known is not None and known.trial == trial.number:
            # A kill came between the record and its trial; only the telling is missing.
            self.store.tell_record(trial, known)
            self._fruitless = 0
            return None
        self._fruitless += 1
        if excess:
            self._counts["rejected"] += 1
            self.store.tell_rejected(trial, excess, self._worst_ms)
        elif known is not None:
            self._counts["duplicate"] += 1
            self.store.tell_record(trial, known, duplicate=True)
        self._notify("search", None)
        return None

    def _evaluate(self, config: MobileViTConfig, trial: Trial | None, name: str | None = None) -> None:
        """Latency, then training; the record is durable before the trial is told."""
        settings = self.plan.settings
        latency, evaluation = self._time_and_train(config)
        name = name or self._names.get(config.digest())
        origin: Origin = "preset" if name else "initial" if self._index <= len(self._first) else "sampler"
        costs = cost(config, settings.num_classes)
        record = Record(
            number=len(self._records), name=name, trial=None if trial is None else trial.number, origin=origin,
            outcome="failed" if evaluation.top1 is None else "trained",
            digest=config.digest(), config=config, params=costs.params, macs=costs.macs,
            weight_bytes=costs.weight_bytes, peak_activation_bytes=costs.peak_activation_bytes, latency=latency,
            top1_by_seed={} if evaluation.top1 is None else {settings.seed: evaluation.top1},
            train_seconds=evaluation.seconds, error=evaluation.error,
        )  # fmt: skip
        self.store.save(record)
        if trial is not None:
            self.store.tell_record(trial, record)
        self._records.append(record)
        self._by_digest[record.digest] = record
        self._write("running", None)
        self._notify("search", record)

    def _time_and_train(self, config: MobileViTConfig) -> tuple[LatencyFact | None, Evaluation]:
        settings = self.plan.settings
        try:
            latency = LatencyFact.of(self.plan.target.latency(config, settings.num_classes))
        except TargetUnavailable:
            raise  # not this candidate's fault: it stays a proposal in flight
        except WorkError as error:
            return None, Evaluation(None, 0.0, str(error))
        return latency, self.evaluator.evaluate(config, settings.seed)

    # The finals: every point of the front, and the presets, trained with further seeds.

    def _run_finals(self) -> None:
        """Train front and presets with `final_seeds` seeds each.

        A front chosen from single trainings favours lucky ones. Means move points off the front and others
        onto it, so the candidates are looked up anew after each training, until nobody lacks a seed.
        """
        done = 0
        while (lacking := self._lacking()) and self._time_for(lacking[0][0]):
            record, seed = lacking[0]
            self._finals = (done, done + len(lacking))
            self._notify("finals", None)
            evaluation = self.evaluator.evaluate(record.config, seed)
            done += 1
            updated = _with_evaluation(record, seed, evaluation)
            self.store.save(updated)
            self._records[updated.number] = self._by_digest[updated.digest] = updated
            self._finals = (done, done + len(self._lacking()))
            self._write("running", None)
            self._notify("finals", updated)

    def _lacking(self) -> list[tuple[Record, int]]:
        """(record, seed) still to train, fewest seeds first so that a time limit cuts evenly."""
        settings = self.plan.settings
        seeds = range(settings.seed, settings.seed + settings.final_seeds)
        members = {record.number: record for record in pareto_front(self._records)}
        members |= {record.number: record for record in self._trained() if record.name is not None}
        lacking = [(record, seed) for record in members.values() for seed in seeds if seed not in record.top1_by_seed]
        return sorted(lacking, key=lambda pair: (pair[1], pair[0].number))

    def _time_for(self, record: Record) -> bool:
        expected = record.train_seconds / max(1, len(record.top1_by_seed))
        return self._elapsed() + expected < self.plan.settings.time_s

    # What is known, and telling it.

    def _trained(self) -> list[Record]:
        return [record for record in self._records if record.outcome == "trained"]

    def _failed(self) -> int:
        return len(self._records) - len(self._trained())

    def _elapsed(self) -> float:
        return self.clock() - self._start

    def _hypervolume(self) -> float:
        return hypervolume([(r.latency_ms, r.top1) for r in self._trained()], self._worst_ms)

    def _write(self, state: str, ended_by: EndedBy | None) -> dict[str, object]:
        document = front_document(
            self.plan, self.folder, self._records, self._untrained, self._counts,
            state=state, ended_by=ended_by, hypervolume=self._hypervolume(), worst_latency_ms=self._worst_ms,
        )  # fmt: skip
        self.folder.write_results(document, self._records)
        return document

    def _notify(self, phase: str, record: Record | None) -> None:
        trained = self._trained()
        seconds = sum(r.train_seconds for r in trained)
        trainings = sum(len(r.top1_by_seed) for r in trained)
        front = pareto_front(trained)
        settings = self.plan.settings
        if phase == "search":
            # Nobody knows the final front's size: today's is the best guess.
            ahead = settings.trials - len(self._records) + (settings.final_seeds - 1) * (len(front) + 1)
        else:
            ahead = self._finals[1] - self._finals[0]
        time_left = max(0.0, settings.time_s - self._elapsed())
        remaining = min(time_left, ahead * seconds / trainings) if trainings else None
        progress = Progress(
            phase, len(trained), settings.trials, self._failed(), self._counts["rejected"],
            self._counts["duplicate"], self._finals, max(front, key=lambda r: r.top1) if front else None,
            self._hypervolume(), self._elapsed(), remaining,
        )  # fmt: skip
        self.observer.update(progress, record)

    # The state a run starts from.

    def _first_generation(self) -> list[Params]:
        """Presets of the space that fit, then draws spread evenly over the budget."""
        plan = self.plan
        inside = [
            config for config in self._presets.values() if config in plan.space and not plan.limits.excess(config)
        ]
        first = [plan.space.params(config) for config in inside]
        free = max(0, self._population - len(first))
        rng = random.Random(f"first generation {plan.settings.seed}")
        first += [draw_evenly(plan.space, plan.limits, (i + rng.random()) / free, rng) for i in range(free)]
        return first

    def _reference_latency(self) -> float:
        """Twice MobileViT-S: slow enough that every network worth having lies inside the box."""
        return 2 * self.plan.target.latency(self.plan.reference(), self.plan.settings.num_classes).ms

    def _remembered(self, key: str, make: Callable[[], T]) -> T:
        known: T | None = self.store.remembered(key)
        if known is not None:
            return known
        value = make()
        self.store.remember(key, value)
        return value

    def _rng(self, purpose: str) -> random.Random:
        """Randomness that depends on the seed and the proposal's index alone, not on what this process did before."""
        return random.Random(f"{purpose} {self.plan.settings.seed} {self._index}")


def _population(trials: int) -> int:
    """A generation: 20, or half of a short run, so that even that one breeds."""
    return min(20, max(6, trials // 2))


def _with_evaluation(record: Record, seed: int, evaluation: Evaluation) -> Record:
    """The record with one more seed. A seed that diverges makes the candidate a failed one: it cannot be relied on."""
    seconds = record.train_seconds + evaluation.seconds
    if evaluation.top1 is None:
        error = f"seed {seed}: {evaluation.error}"
        return record.model_copy(update={"outcome": "failed", "error": error, "train_seconds": seconds})
    by_seed = {**record.top1_by_seed, seed: evaluation.top1}
    return record.model_copy(update={"top1_by_seed": by_seed, "train_seconds": seconds})
