"""The loop: take what is proposed, latency, train, tell; then the finals. One driver owns the study."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

from mvit_search.architecture import MobileViTConfig
from mvit_search.errors import TargetUnavailable, WorkError
from mvit_search.profile import cost
from mvit_search.records import LatencyFact, Record, RunFolder, hypervolume, pareto_front
from mvit_search.records.record import Origin
from mvit_search.search.evaluator import Evaluation, Evaluator
from mvit_search.search.plan import Plan
from mvit_search.search.progress import Observer, Progress
from mvit_search.search.proposer import Proposal, Proposer
from mvit_search.search.result import EndedBy, front_document, untrained_row
from mvit_search.search.store import Store

T = TypeVar("T")

SEARCH_SHARE = 2 / 3
"""Share of the time that the search may use; the rest is kept for the finals."""


class Search:
    """One run from an open store; `run()` carries on from whatever the store holds.

    `screener` scores proposals before one of them is trained, where the plan has a prescreen.
    """

    def __init__(
        self, plan: Plan, store: Store, folder: RunFolder, evaluator: Evaluator, observer: Observer,
        clock: Callable[[], float] = time.monotonic, screener: Evaluator | None = None,
    ) -> None:  # fmt: skip
        self.plan, self.store, self.folder = plan, store, folder
        self.evaluator, self.observer, self.clock = evaluator, observer, clock
        self._start = clock()
        self._presets = plan.presets()
        self._untrained = [untrained_row(plan, name, config) for name, config in self._presets.items()]
        self._names = {config.digest(): name for name, config in self._presets.items()}
        self._records = store.records()
        self._by_digest = {record.digest: record for record in self._records}
        population = self._remembered("population", lambda: _population(plan.settings.trials))
        self._worst_ms: float = self._remembered("worst_latency_ms", self._reference_latency)
        self._proposer = Proposer(plan, store, self._by_digest, population, self._worst_ms, screener)
        self._finals = (0, 0)

    def run(self) -> dict[str, object]:
        """Search, finals, results; returns the front document.

        Raises:
            KeyboardInterrupt: after everything finished so far is written.
            WorkError: if not one candidate could be trained.
        """
        try:
            ended_by = self._search_while_there_is_a_target()
            if not self._succeeded():
                errors = "; ".join(sorted({record.error or "" for record in self._records}))
                done = "scored" if self.plan.proxy.scores else "trained"
                raise WorkError(f"none of {len(self._records)} candidates could be {done}: {errors}")
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
            if not self._succeeded():
                raise
            return "target unavailable"

    def _search(self) -> EndedBy:
        self._notify("search", None)
        self._proposer.carry_on()
        for name, config in self._presets.items():
            outside = config not in self.plan.space and not self.plan.limits.excess(config)
            if outside and self._may_be_valued(config) and config.digest() not in self._by_digest:
                if len(self._records) >= self.plan.settings.trials:
                    break
                self._evaluate(config, None, name)
        while len(self._succeeded()) + self._failed() < self.plan.settings.trials:
            if self._search_time_is_up() and self._succeeded():
                return "time"
            proposal = self._proposer.next(self._search_time_is_up, lambda: self._notify("search", None))
            if proposal is None:
                return "space exhausted"
            self._evaluate(proposal.config, proposal)
        return "trials"

    def _search_time_is_up(self) -> bool:
        return self._elapsed() > SEARCH_SHARE * self.plan.settings.time_s

    def _may_be_valued(self, config: MobileViTConfig) -> bool:
        """Whether anything can value it: a table only what it holds."""
        return self.plan.replay is None or self.plan.replay.knows(config)

    def _evaluate(self, config: MobileViTConfig, proposal: Proposal | None, name: str | None = None) -> None:
        """Latency, then training; the record is durable before the trial is told."""
        settings = self.plan.settings
        seed = self._seeds(config)[0]
        latency, evaluation = self._time_and_train(config, seed)
        name = name or self._names.get(config.digest())
        origin: Origin = "preset" if name else "initial" if self._proposer.in_first_generation else "sampler"
        costs = cost(config, settings.num_classes)
        record = Record(
            number=len(self._records), name=name, trial=proposal.trial.number if proposal else None, origin=origin,
            outcome="failed" if evaluation.value is None else "scored" if self.plan.proxy.scores else "trained",
            digest=config.digest(), config=config, params=costs.params, macs=costs.macs,
            weight_bytes=costs.weight_bytes, peak_activation_bytes=costs.peak_activation_bytes, latency=latency,
            **self._valued({} if evaluation.value is None else {seed: evaluation.value}),
            train_seconds=evaluation.seconds, largest_batch=evaluation.largest_batch, error=evaluation.error,
        )  # fmt: skip
        self.store.save(record)
        if proposal is not None:
            self._proposer.settle(proposal, record)
        self._records.append(record)
        self._by_digest[record.digest] = record
        self._write("running", None)
        self._notify("search", record)

    def _valued(self, by_seed: dict[int, float]) -> dict[str, Any]:
        """The field of a record that holds what the run maximises."""
        return {"score_by_seed" if self.plan.proxy.scores else "top1_by_seed": by_seed}

    def _time_and_train(self, config: MobileViTConfig, seed: int) -> tuple[LatencyFact | None, Evaluation]:
        settings = self.plan.settings
        try:
            latency = LatencyFact.of(self.plan.target.latency(config, settings.num_classes))
        except TargetUnavailable:
            raise  # not this candidate's fault: it stays a proposal in flight
        except WorkError as error:
            return None, Evaluation(None, 0.0, str(error))
        return latency, self.evaluator.evaluate(config, seed)

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
            updated = self._with_evaluation(record, seed, evaluation)
            self.store.save(updated)
            self._records[updated.number] = self._by_digest[updated.digest] = updated
            self._finals = (done, done + len(self._lacking()))
            self._write("running", None)
            self._notify("finals", updated)

    def _lacking(self) -> list[tuple[Record, int]]:
        """(record, seed) still to train, fewest seeds first so that a time limit cuts evenly."""
        members = {record.number: record for record in pareto_front(self._records)}
        members |= {record.number: record for record in self._succeeded() if record.name is not None}
        lacking = [
            (record, seed)
            for record in members.values()
            for seed in self._seeds(record.config)
            if seed not in record.value_by_seed
        ]
        return sorted(lacking, key=lambda pair: (pair[1], pair[0].number))

    def _seeds(self, config: MobileViTConfig) -> tuple[int, ...]:
        """The seeds to value it with, the search's own first; of a table those that it has."""
        settings = self.plan.settings
        if self.plan.replay is not None:
            return self.plan.replay.seeds(config)
        return tuple(range(settings.seed, settings.seed + settings.final_seeds))

    def _time_for(self, record: Record) -> bool:
        # Looking up what was recorded takes no time, whatever the recorded training took.
        expected = 0.0 if self.plan.replay is not None else record.train_seconds / max(1, len(record.value_by_seed))
        return self._elapsed() + expected < self.plan.settings.time_s

    def _with_evaluation(self, record: Record, seed: int, evaluation: Evaluation) -> Record:
        """The record with one more seed. One that fails makes the candidate a failed one: it cannot be relied on."""
        seconds = record.train_seconds + evaluation.seconds
        shortest = min((n for n in (record.largest_batch, evaluation.largest_batch) if n is not None), default=None)
        record = record.model_copy(update={"largest_batch": shortest})
        if evaluation.value is None:
            error = f"seed {seed}: {evaluation.error}"
            return record.model_copy(update={"outcome": "failed", "error": error, "train_seconds": seconds})
        by_seed = {**record.value_by_seed, seed: evaluation.value}
        return record.model_copy(update={**self._valued(by_seed), "train_seconds": seconds})

    # What is known, and telling it.

    def _succeeded(self) -> list[Record]:
        return [record for record in self._records if record.succeeded]

    def _failed(self) -> int:
        return len(self._records) - len(self._succeeded())

    def _elapsed(self) -> float:
        return self.clock() - self._start

    def _hypervolume(self) -> float | None:
        """None of scores: they have no natural worst and best, so that a share of a box would say nothing."""
        if self.plan.proxy.scores:
            return None
        return hypervolume([(r.latency_ms, r.value) for r in self._succeeded()], self._worst_ms)

    def _write(self, state: str, ended_by: EndedBy | None) -> dict[str, object]:
        document = front_document(
            self.plan, self.folder, self._records, self._untrained, self._proposer.counts,
            state=state, ended_by=ended_by, hypervolume=self._hypervolume(), worst_latency_ms=self._worst_ms,
        )  # fmt: skip
        self.folder.write_results(document, self._records)
        return document

    def _notify(self, phase: str, record: Record | None) -> None:
        trained = self._succeeded()
        seconds = sum(r.train_seconds for r in trained)
        trainings = sum(len(r.value_by_seed) for r in trained)
        front = pareto_front(trained)
        settings = self.plan.settings
        if phase == "search":
            # Nobody knows the final front's size: today's is the best guess.
            ahead = settings.trials - len(self._records) + (settings.final_seeds - 1) * (len(front) + 1)
        else:
            ahead = self._finals[1] - self._finals[0]
        time_left = max(0.0, settings.time_s - self._elapsed())
        # A table's seconds are not this run's.
        known = trainings and self.plan.replay is None
        remaining = min(time_left, ahead * seconds / trainings) if known else None
        counts = self._proposer.counts
        progress = Progress(
            phase, len(trained), settings.trials, self._failed(), counts["rejected"],
            counts["duplicate"], self._finals, max(front, key=lambda r: r.value) if front else None,
            self._hypervolume(), self._elapsed(), remaining,
        )  # fmt: skip
        self.observer.update(progress, record)

    # The state a run starts from.

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


def _population(trials: int) -> int:
    """A generation: 20, or half of a short run, so that even that one breeds."""
    return min(20, max(6, trials // 2))
