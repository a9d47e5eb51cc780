"""What is evaluated next: the first generation, then the sampler's proposals, each checked before anything is built.

What comes next depends on the study alone, so that a run that was killed goes on as an uninterrupted one.
"""

import random
from collections.abc import Callable, Mapping
from typing import NamedTuple

from optuna.trial import Trial

from mvit_search.architecture import MobileViTConfig
from mvit_search.records import Record
from mvit_search.search.evaluator import Evaluator
from mvit_search.search.plan import Plan
from mvit_search.search.proposals import draw_evenly, unseen
from mvit_search.search.samplers import make_sampler
from mvit_search.search.store import Store
from mvit_search.space import Params

_FRUITLESS_LIMIT = 50
"""So many rejected or repeated proposals in a row, and the next one is drawn by us: the loop always advances."""


class Proposal(NamedTuple):
    """A candidate that is inside the limits and new, and the trial it came as.

    `screened`: whether further ones are to be set beside it before one is trained.
    """

    trial: Trial
    config: MobileViTConfig
    screened: bool


class Proposer:
    """The study's side of the loop. `known`, the run's records by digest, grows elsewhere and is only looked at."""

    def __init__(
        self, plan: Plan, store: Store, known: Mapping[str, Record], population: int, worst_latency_ms: float,
        screener: Evaluator | None = None,
    ) -> None:  # fmt: skip
        self.plan, self.store, self.screener = plan, store, screener
        self._known, self._population, self._worst_ms = known, population, worst_latency_ms
        self._distributions = plan.space.distributions()
        self.counts = store.outcomes()
        self._index = sum(count for outcome, count in self.counts.items() if outcome != "discarded")
        self._first: list[Params] = self._first_generation()
        self._pool: list[Proposal] = []
        self._fruitless = 0

    @property
    def in_first_generation(self) -> bool:
        """Whether the latest proposal was still one of the first generation."""
        return self._index <= len(self._first)

    def carry_on(self) -> None:
        """Take up what was in flight when the run last ended."""
        in_flight = []
        for trial in self.store.unfinished(self._distributions.keys()):
            number = self.store.pool_of(trial)
            if number is None or number >= len(self._known):
                in_flight.append(trial)
                continue
            # Its pool was decided; only the telling is missing.
            self._index += 1
            record = self._known.get(self.plan.space.config(trial.params).digest())
            if record is not None and record.trial == trial.number:
                self.store.tell_record(trial, record)
            else:
                self._drop(trial, "prescreened")
        fruitless, latest = self.store.trailing("rejected", "duplicate"), self.store.latest()
        self._fruitless = fruitless
        for trial in in_flight:
            self._consider(trial)
            if trial.number != latest:  # admitted before the fruitless ones came
                self._fruitless = fruitless

    def next(self, enough: Callable[[], bool], tell: Callable[[], None]) -> Proposal | None:
        """The next candidate to evaluate; None if the space seems to hold no more.

        `enough` ends the filling of a pool that has one already; `tell` is called after each fruitless proposal.
        """
        while not self._pool_is_full() and not (self._pool and (enough() or self._fruitless >= _FRUITLESS_LIMIT)):
            trial = self._ask()
            if trial is None:
                break
            if not self._consider(trial):
                tell()
        if not self._pool:
            return None
        return self._pool[0] if len(self._pool) == 1 else self._highest_scored()

    def settle(self, chosen: Proposal, record: Record) -> None:
        """Tell what became of the chosen candidate, and let the rest of its pool go."""
        self.store.tell_record(chosen.trial, record)
        for proposal in self._pool:
            if proposal is not chosen:
                self._drop(proposal.trial, "prescreened")
        self._pool = []

    # Asking.

    def _ask(self) -> Trial | None:
        settings = self.plan.settings
        params: Params | None = None
        if self.plan.replay is not None and self.plan.replay.used_up(self._known):
            return None
        if self._index < len(self._first):
            params = self._first[self._index]
        elif self._fruitless >= _FRUITLESS_LIMIT and not self.store.waiting():
            params = unseen(self.plan.space, self.plan.limits, set(self._known), self._rng("unseen"))
            if params is None:
                return None
        sampler = make_sampler(settings.sampler, self._rng("sampler").getrandbits(31), self._population)
        return self.store.ask(self._distributions, sampler, params)

    def _consider(self, trial: Trial) -> bool:
        """Put the trial's candidate into the pool if it may be trained; else the trial is told why not."""
        config = self.plan.space.config(trial.params)
        screened = self.screener is not None and self._index >= len(self._first)
        self._index += 1
        if not self._admit(trial, config):
            return False
        self._fruitless = 0
        if self.plan.replay is not None and not self._is_recorded(trial, config):
            return False
        if screened:
            self.store.put_in_pool(trial, len(self._known))
        self._pool.append(Proposal(trial, config, screened))
        return True

    def _admit(self, trial: Trial, config: MobileViTConfig) -> bool:
        excess = self.plan.limits.excess(config)
        known = self._known.get(config.digest())
        if known is not None and known.trial == trial.number:
            # A kill came between the record and its trial; only the telling is missing.
            self.store.tell_record(trial, known)
            self._fruitless = 0
            return False
        beside = any(proposal.config == config for proposal in self._pool)
        if not excess and known is None and not beside:
            return True
        self._fruitless += 1
        if excess:
            self.counts["rejected"] += 1
            self.store.tell_rejected(trial, excess, self._worst_value(), self._worst_ms)
        elif known is not None:
            self.counts["duplicate"] += 1
            self.store.tell_record(trial, known, duplicate=True)
        else:
            self._drop(trial, "duplicate")
        return False

    def _is_recorded(self, trial: Trial, config: MobileViTConfig) -> bool:
        """Whether the table holds the candidate; else the nearest it holds is asked for in its place."""
        assert self.plan.replay is not None
        nearest = self.plan.replay.nearest(config, self._known)
        if nearest == config:
            return True
        if nearest is None:
            self._drop(trial, "replaced")
        else:
            self.counts["replaced"] += 1
            self.store.replace(trial, self.plan.space.params(nearest))
        return False

    def _drop(self, trial: Trial, outcome: str) -> None:
        self.counts[outcome] += 1
        self.store.tell_unevaluated(trial, outcome)

    # The pool.

    def _pool_is_full(self) -> bool:
        if not self._pool or not self._pool[0].screened:
            return bool(self._pool)
        assert self.plan.prescreen is not None
        return len(self._pool) >= self.plan.prescreen.keep_of

    def _highest_scored(self) -> Proposal:
        """Of equals, and where none could be scored, the first."""
        assert self.screener is not None
        scores = []
        for proposal in self._pool:
            noted = self.store.scored(proposal.trial)
            if noted is None:
                noted = (self.screener.evaluate(proposal.config, self.plan.settings.seed).value,)
                self.store.note_score(proposal.trial, *noted)
            scores.append(float("-inf") if noted[0] is None else noted[0])
        return self._pool[scores.index(max(scores))]

    # What the study knows.

    def _worst_value(self) -> float:
        """For a proposal over a limit: no top-1 is worse than 0; a score may be negative, so the worst so far."""
        if not self.plan.proxy.scores:
            return 0.0
        return min((record.value for record in self._known.values() if record.succeeded), default=0.0)

    def _first_generation(self) -> list[Params]:
        """Presets of the space that fit, then draws spread evenly over the budget; of a table what it has near them."""
        plan, replay = self.plan, self.plan.replay
        presets = [
            config for config in plan.presets().values() if config in plan.space and not plan.limits.excess(config)
        ]
        if replay is not None:
            presets = [config for config in presets if replay.knows(config)]
        first = [plan.space.params(config) for config in presets]
        free = max(0, self._population - len(first))
        rng = random.Random(f"first generation {plan.settings.seed}")
        first += [draw_evenly(plan.space, plan.limits, (i + rng.random()) / free, rng) for i in range(free)]
        if replay is None:
            return first
        taken: dict[str, Params] = {}
        for params in first:
            nearest = replay.nearest(plan.space.config(params), taken)
            if nearest is not None:
                taken[nearest.digest()] = plan.space.params(nearest)
        return list(taken.values())

    def _rng(self, purpose: str) -> random.Random:
        """Randomness that depends on the seed and the proposal's index alone, not on what this process did before."""
        return random.Random(f"{purpose} {self.plan.settings.seed} {self._index}")
