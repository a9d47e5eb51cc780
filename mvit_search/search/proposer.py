"""What is evaluated next: the first generation, then the sampler's proposals, each checked before anything is built.

What comes next depends on the study alone, so that a run that was killed goes on as an uninterrupted one: a sampler is
made anew for every attempt, seeded by the run's seed, the number of admitted proposals and the attempt. A proposal over
a limit, or of a candidate that is known or in flight, is sampled away: it leaves a count with the next one that is
admitted, and no trial (docs/samplers.md has the measurement).
"""

import random
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from mvit_search.architecture import MobileViTConfig
from mvit_search.records.record import Origin
from mvit_search.search.plan import Plan
from mvit_search.search.proposals import draw_evenly, unseen
from mvit_search.search.samplers import EXHAUSTIVE, Exhausted, Turn, make_sampler
from mvit_search.search.sampling import Draft, Sampling
from mvit_search.search.task import Evaluator, Task
from mvit_search.space import Params

_FRUITLESS_LIMIT = 50
"""So many rejected or repeated proposals in a row, and the next one is drawn by us: the loop always advances."""

COUNTED = ("rejected", "duplicate", "prescreened")


class Proposal(NamedTuple):
    """A candidate that is inside the limits and new.

    Attributes:
        passed_over: how many proposals were `rejected`, a `duplicate` or `prescreened` away since the last admitted.
    """

    config: MobileViTConfig
    draft: Draft
    origin: Origin
    passed_over: dict[str, int]


class Proposer:
    """The study's side of the loop. `known` holds the digests of candidates that are recorded or in flight.

    Attributes:
        counts: proposals passed over so far, by each of `COUNTED`.
    """

    def __init__(
        self, plan: Plan, sampling: Sampling, known: Collection[str], first: Sequence[tuple[Params, Origin]],
        population: int, screener: Evaluator | None = None,
    ) -> None:  # fmt: skip
        self.plan, self.sampling, self.screener = plan, sampling, screener
        self._known, self._first = known, first
        self._problem = plan.problem(population)
        self.counts: Counter[str] = Counter(dict.fromkeys(COUNTED, 0))

    def next(self, enough: Callable[[], bool], tell: Callable[[], None]) -> Proposal | None:
        """The next candidate to evaluate; None if the space seems to hold no more.

        `enough` ends the filling of a prescreen's pool that has one already; `tell` is called after each fruitless
        proposal.
        """
        passed_over: Counter[str] = Counter()
        pool: list[Proposal] = []
        attempt = fruitless = 0
        while len(pool) < self._pool_size() and not (pool and (enough() or fruitless >= _FRUITLESS_LIMIT)):
            drawn = self._draw(attempt, fruitless, [proposal.config for proposal in pool])
            attempt += 1
            if drawn is None:
                break
            if isinstance(drawn, str):
                fruitless += 1
                passed_over[drawn] += 1
                self.counts[drawn] += 1
                tell()
            else:
                fruitless = 0
                pool.append(drawn)
        if not pool:
            return None
        chosen = pool[0] if len(pool) == 1 else self._highest_scored(pool)
        passed_over["prescreened"] += len(pool) - 1
        self.counts["prescreened"] += len(pool) - 1
        return chosen._replace(passed_over=dict(+passed_over))

    def _pool_size(self) -> int:
        if self.plan.prescreen is None or self.sampling.admitted < len(self._first):
            return 1
        return self.plan.prescreen.keep_of

    def _draw(self, attempt: int, fruitless: int, pool: Sequence[MobileViTConfig]) -> Proposal | str | None:
        """A proposal that may be trained; or in a word why not; or None if there is nothing more."""
        plan, index = self.plan, self.sampling.admitted
        origin: Origin = "sampler"
        fixed: Params | None = None
        if plan.replay is not None and plan.replay.used_up(self._known):
            return None
        if index < len(self._first) and attempt == 0:
            fixed, origin = self._first[index]
        elif fruitless >= _FRUITLESS_LIMIT and self.plan.sampler.name not in EXHAUSTIVE:
            fixed = unseen(plan.space, plan.limits, {*self._known}, self._rng("unseen", attempt), excess=plan.excess)
            if fixed is None:
                return None
        elif index < len(self._first):
            origin = "initial"
        try:
            # What is not the sampler's leaves nothing for it to find with the trial.
            draft = Draft(fixed, {}) if fixed is not None else self._ask(attempt)
        except Exhausted:
            return None
        config = plan.space.config(draft.params)
        if plan.excess(config):
            return "rejected"
        if config.digest() in self._known or config in pool:
            return "duplicate"
        if plan.replay is not None:
            nearest = plan.replay.nearest(config, self._known)
            if nearest is None:
                return None
            config, draft = nearest, draft._replace(params=plan.space.params(nearest))
        return Proposal(config, draft, origin, {})

    def _ask(self, attempt: int) -> Draft:
        turn = Turn(self.plan.settings.seed, self.sampling.admitted, attempt)
        return self.sampling.propose(make_sampler(self.plan.sampler.name, turn, self._problem))

    def _highest_scored(self, pool: Sequence[Proposal]) -> Proposal:
        """Of equals, and where none could be scored, the first."""
        assert self.screener is not None
        scores = []
        for proposal in pool:
            value = self.screener.evaluate(Task(proposal.config, self.plan.settings.seed)).value
            scores.append(float("-inf") if value is None else value)
        return pool[scores.index(max(scores))]

    def _rng(self, purpose: str, attempt: int) -> random.Random:
        """Randomness that depends on the seed and the place alone, not on what this process did before."""
        return random.Random(f"{purpose} {self.plan.settings.seed} {self.sampling.admitted} {attempt}")


def first_generation(plan: Plan, population: int, earlier: Sequence[Params] = ()) -> list[tuple[Params, Origin]]:
    """Presets of the space that fit; what an earlier run had; then draws inside the limits, which fill a generation up.

    Every other draw is uniform, and those between are spread evenly over the budget: uniform ones alone would leave the
    small networks out. Of a table, what it has near them.
    """
    replay = plan.replay
    presets = [c for c in plan.presets().values() if c in plan.space and not plan.excess(c)]
    if replay is not None:
        presets = [config for config in presets if replay.knows(config)]
    first: list[tuple[Params, Origin]] = [(plan.space.params(config), "preset") for config in presets]
    seen = {config.digest() for config in presets}
    first += [(params, "earlier") for params in earlier if plan.space.config(params).digest() not in seen]
    free = max(0, population - len(first))
    rng = random.Random(f"first generation {plan.settings.seed}")
    for place in range(free):
        share = (place + rng.random()) / free if place % 2 else 1.0
        first.append((draw_evenly(plan.space, plan.limits, share, rng, excess=plan.excess), "initial"))
    if replay is None:
        return first
    taken: dict[str, tuple[Params, Origin]] = {}
    for params, origin in first:
        nearest = replay.nearest(plan.space.config(params), taken)
        if nearest is not None:
            taken[nearest.digest()] = plan.space.params(nearest), origin
    return list(taken.values())
