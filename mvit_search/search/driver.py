"""What a run does next: candidates, promotions, finals; and how it begins, carries on and ends.

One driver owns the study. Whatever it decides follows from what is written, in the order of events, so that a run with
one worker that is killed and carried on ends as if it had not been.
"""

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from mvit_search.architecture import MobileViTConfig
from mvit_search.errors import TargetUnavailable, WorkError
from mvit_search.records import Record, RunFolder
from mvit_search.search.book import Book
from mvit_search.search.brake import Brake
from mvit_search.search.engines import Engine
from mvit_search.search.following import Script, follow
from mvit_search.search.measuring import Candidate
from mvit_search.search.memory import Memory, NoMemory
from mvit_search.search.ordering import order
from mvit_search.search.plan import Plan
from mvit_search.search.progress import Observer
from mvit_search.search.proposer import COUNTED, Proposer, first_generation
from mvit_search.search.reporting import Reporter
from mvit_search.search.result import EndedBy, untrained_row
from mvit_search.search.sampling import Sampling
from mvit_search.search.store import Store
from mvit_search.search.task import Evaluator
from mvit_search.search.work import Work

T = TypeVar("T")

SEARCH_SHARE = 2 / 3
"""Share of the time that the search may use; the rest is kept for the finals."""
ASKING_SHARE = 1 / 2
"""The same for beginning new candidates, where these have rungs still to climb."""
CLOSING_SHARE = 5 / 6
"""The same for the last promotions, unless nobody has reached the full fidelity yet."""


class Search:
    """One run from an open store; `run()` carries on from whatever the store holds.

    `screener` scores proposals before one of them is trained, where the plan has a prescreen. `memory` knows trainings
    of earlier runs; `earlier` are candidates to begin with, see `search.earlier`. With a `script` the run does what an
    older one did.
    """

    def __init__(
        self, plan: Plan, store: Store, folder: RunFolder, engine: Engine, observer: Observer, *,
        brake: Brake | None = None, screener: Evaluator | None = None, memory: Memory | None = None,
        earlier: tuple[MobileViTConfig, ...] = (), script: Script | None = None,
    ) -> None:  # fmt: skip
        self.plan, self.store = plan, store
        self.brake = brake or Brake()
        self._start = self.brake.clock()
        reference = self._remembered("reference", plan.reference_costs)
        self.book = Book(
            store.records(), plan.settings.objectives, None if plan.proxy.scores else reference,
            len(plan.ladder.rungs),
        )  # fmt: skip
        shape = plan.shape
        sampling = Sampling(shape.directions, shape.distributions, store.keep_system_attr)
        sampling.restore(store.system_attrs, store.trials)
        self.work = Work(plan, store, folder, engine, self.brake, memory or NoMemory(), self.book, sampling)
        population = self._remembered("population", lambda: _population(plan.settings.trials))
        first = first_generation(plan, population, [plan.space.params(config) for config in earlier])
        self.proposer = Proposer(plan, sampling, self.work.known, first, population, screener)
        for reason in COUNTED:
            self.proposer.counts[reason] += sum(trial.user_attrs.get(reason, 0) for trial in store.trials)
        self._script = script
        self.reporter = Reporter(
            plan, folder, self.book, engine, observer, self.brake, counts=self.proposer.counts, reference=reference,
            untrained=self._untrained(),
        )  # fmt: skip

    def run(self) -> dict[str, object]:
        """Search, finals, results; returns the front document.

        Raises:
            KeyboardInterrupt: after everything finished so far is written.
            WorkError: if not one candidate could be trained, or nothing can be written any more.
        """
        self.brake.deadline = self._start + self.plan.settings.time_s
        try:
            self.work.restore(self.reporter)
            ended_by = self._follow(self._script) if self._script else self._search_while_there_is_a_target()
            if not self.book.succeeded:
                self._explain_nothing()
            self.work.tell_ended(self.book.records)
            if not self._script:
                self._run_finals()
        except KeyboardInterrupt:
            self.reporter.write("stopped", "interrupt")
            raise
        except Exception:
            with suppress(WorkError):  # a full disk: what went wrong first is what is told
                self.reporter.write("failed", "error")
            raise
        finally:
            self.work.close()
        if ended_by != "time":  # then a longer run is what is advised, and goes on from them
            self.work.clear_weights()
        document = self.reporter.write("finished", ended_by)
        self.reporter.tell("done")
        return document

    def _explain_nothing(self) -> None:
        below = [record.value for record in self.book.records if record.value_by_seed and not record.within]
        if below:
            least = self.plan.settings.min_top1
            rule = f"none of {len(self.book.records)} candidates reaches --min-top1 {least}"
            raise WorkError(f"{rule}: the most accurate has {max(below):.3f}")
        errors = "; ".join(sorted({record.error for record in self.book.records if record.error}))
        done = "scored" if self.plan.proxy.scores else "trained"
        why = errors or "the time was up before the first was; the same command carries on"
        raise WorkError(f"none of {len(self.book.records)} candidates could be {done}: {why}")

    def _follow(self, script: Script) -> EndedBy:
        self.reporter.tell("search")
        return follow(script, self.plan, self.work)

    # The search.

    def _search_while_there_is_a_target(self) -> EndedBy:
        """The search; it ends with what is finished once nothing measures any more. The finals need no latency."""
        try:
            return self._search()
        except TargetUnavailable:
            self.work.finish()
            if not self.book.succeeded:
                raise
            return "target unavailable"

    def _search(self) -> EndedBy:
        self.reporter.tell("search")
        self._ended: EndedBy | None = None
        self._outside = deque(self._presets_outside())
        done = self._work_through(self._begin_next)
        return self._ended if self._ended and done and not self._somebody_waits() else "time"

    def _somebody_waits(self) -> bool:
        """Whether there was no time for all promotions."""
        below = any(preset.outcome == "stopped" for preset in self.book.named())
        return below or self.work.standing.halving.next_promotion(closing=True) is not None

    def _work_through(self, begin: Callable[[], bool]) -> bool:
        """Begin what is due and settle what comes back, until nothing is due and nothing runs; False if it was cut."""
        while True:
            nothing_due = self._fill(begin)
            if self.brake.pressed():
                done = self.work.idle and not self.work.resumed
                self.work.drain()
                return done
            if nothing_due and self.work.idle:
                return True
            self.work.wait()

    def _fill(self, begin: Callable[[], bool]) -> bool:
        """Keep the engine busy; whether it could be busier, but nothing is due at present."""
        self.work.take_off()
        while self.work.room:
            if not begin():
                return True
        return False

    def _begin_next(self) -> bool:
        """Begin one thing that is due, the nearest to the front first; False if nothing is at present."""
        if self.work.resumed:
            self.work.begin(self.work.resumed.pop(0))
            return True
        for preset in self.book.named():  # what a front is compared with climbs whatever it reaches
            if preset.outcome == "stopped" and not self._is_climbing(preset):
                self.work.climb(preset)
                return True
        return self._begin_promotion() or self._begin_new() or self._begin_last_promotion()

    def _is_climbing(self, record: Record) -> bool:
        latest = record.evaluations[-1]
        return self.work.is_under_way(record.digest, latest.seed, latest.rung + 1)

    def _begin_promotion(self) -> bool:
        promotion = self.work.standing.halving.next_promotion()
        if promotion is None or self._is_late(SEARCH_SHARE):
            return False
        self.work.climb(self.book.records[promotion.number])
        return True

    def _begin_last_promotion(self) -> bool:
        """No new candidates will come: places are given away once all who compete for them are known."""
        promotion = self.work.standing.halving.next_promotion(closing=True)
        if promotion is None or (self._is_late(CLOSING_SHARE) and self.book.succeeded):
            return False
        lowest = self.work.lowest_under_way()
        if lowest is not None and lowest < promotion.rung:
            return False
        self.work.climb(self.book.records[promotion.number])
        return True

    def _begin_new(self) -> bool:
        if self._ended is not None:
            return False
        if self.book.proposed + self.work.new_under_way >= self.plan.settings.trials:
            self._ended = "trials"
            return False
        while self._outside:
            name, config = self._outside.popleft()
            if config.digest() not in self.work.known:
                self.work.begin(Candidate(config, None, name, "preset", begun=-1))
                return True
        late = ASKING_SHARE if self.plan.ladder.top else SEARCH_SHARE
        if self._is_late(late) and self.book.succeeded:
            self._ended = "time"
            return False
        proposal = self.proposer.next(lambda: self._is_late(late), lambda: self.reporter.tell("search"))
        if proposal is None:
            self._ended = "space exhausted"
            return False
        self.work.begin(self.work.admit(proposal))
        return True

    def _presets_outside(self) -> list[tuple[str, MobileViTConfig]]:
        """Presets that no trial proposes, inside the limits; of a table those that it has."""
        plan = self.plan
        outside = [(name, c) for name, c in plan.presets().items() if c not in plan.space and not plan.excess(c)]
        return [(name, c) for name, c in outside if plan.replay is None or plan.replay.knows(c)]

    def _is_late(self, share: float) -> bool:
        return self._elapsed() > share * self.plan.settings.time_s

    def _untrained(self) -> list[dict[str, object]]:
        """The presets as they stand before any is trained; measured once, for what measures may be gone at a resume."""

        def rows() -> list[dict[str, object]]:
            return [untrained_row(self.plan, name, config) for name, config in self.plan.presets().items()]

        return self._remembered("untrained", rows) if self.plan.target.measured else rows()

    # The finals: every point of the front, and the presets, trained with further seeds.

    def _run_finals(self) -> None:
        """Train front and presets with `final_seeds` seeds each.

        A front chosen from single trainings favours lucky ones. Means move points off the front and others
        onto it, so the candidates are looked up anew after each training, until nobody lacks a seed.
        """
        self.reporter.count_finals = lambda: len(self._lacking())
        self.reporter.tell("finals")
        if not self.brake.pressed():
            self._work_through(self._begin_final)

    def _begin_final(self) -> bool:
        lacking = self._lacking()
        self.reporter.finals_ahead = len(lacking)
        if not lacking or not self._time_for(lacking[0][0]):
            return False
        self.work.again(*lacking[0])
        return True

    def _lacking(self) -> list[tuple[Record, int]]:
        """(record, seed) still to train, fewest seeds first so that a time limit cuts evenly."""
        members = {record.number: record for record in self._finalists()}
        members |= {record.number: record for record in self.book.named() if record.succeeded}
        top = self.plan.ladder.top
        lacking = [
            (record, seed)
            for record in members.values()
            for seed in self.work.seeds(record.config)
            if seed not in record.value_by_seed and not self.work.is_under_way(record.digest, seed, top)
        ]
        return sorted(lacking, key=lambda pair: (pair[1], pair[0].number))

    def _finalists(self) -> tuple[Record, ...]:
        """The front, or so many of its points as the settings say, spread over it."""
        front, most = self.book.front.members, self.plan.settings.finals
        if most is None or len(front) <= most:
            return front
        points = [[-record.value, *self.work.costs(record)] for record in front]
        return tuple(front[index] for index in order(points, most))

    def _time_for(self, record: Record) -> bool:
        # Looking up what was recorded takes no time, whatever the recorded training took.
        trained = record.train_seconds / max(1, len(record.value_by_seed))
        expected = 0.0 if self.plan.replay is not None else trained
        return self._elapsed() + expected < self.plan.settings.time_s

    def _elapsed(self) -> float:
        return self.brake.clock() - self._start

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
