"""A training that costs nothing: accuracy is a formula of the config and the seed."""

import random
from collections.abc import Callable

from mvit_search.architecture import MobileViTConfig
from mvit_search.data import load_data
from mvit_search.latency import load_target
from mvit_search.profile.cost import params_of
from mvit_search.proxy import default_recipe
from mvit_search.records import RunFolder
from mvit_search.search import Evaluation, Plan, RunSettings, Search, Silent, Store
from mvit_search.search.limits import Limits
from mvit_search.search.proxies import parse_prescreen, parse_proxy
from mvit_search.search.replay import Replay
from mvit_search.space import SearchSpace, load_space


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the product catches it."""


class FormulaEvaluator:
    """Mirrors `InProcessEvaluator`; writes down every (digest, seed) it finished."""

    def __init__(
        self,
        *,
        fails: Callable[[MobileViTConfig, int], bool] = lambda config, seed: False,
        kill_at: int | None = None,
        interrupt_at: int | None = None,
    ) -> None:
        self.done: list[tuple[str, int]] = []
        self._fails, self._kill_at, self._interrupt_at = fails, kill_at, interrupt_at

    def evaluate(self, config: MobileViTConfig, seed: int) -> Evaluation:
        if self._kill_at == len(self.done):
            raise Killed
        if self._interrupt_at == len(self.done):
            raise KeyboardInterrupt
        self.done.append((config.digest(), seed))
        if self._fails(config, seed):
            return Evaluation(None, 1.0, "loss is nan in epoch 1")
        noise = random.Random(f"{config.digest()} {seed}").gauss(0, 0.01)
        params = params_of(config)
        return Evaluation(0.5 + 0.4 * params / (params + 2e6) + noise, 1.0)


class FormulaScreener:
    """Mirrors `ZeroCostEvaluator`: the more parameters the better, but for noise; writes down what it scored."""

    def __init__(self, *, fails: Callable[[MobileViTConfig], bool] = lambda config: False) -> None:
        self.done: list[str] = []
        self._fails = fails

    def evaluate(self, config: MobileViTConfig, seed: int) -> Evaluation:
        self.done.append(config.digest())
        if self._fails(config):
            return Evaluation(None, 0.1, "the score is nan")
        return Evaluation(params_of(config) / 1e6 + random.Random(config.digest()).gauss(0, 0.3) - 5, 0.1)


def make_plan(replay: Callable[[SearchSpace, Limits, RunSettings], Replay] | None = None, **settings) -> Plan:
    """A plan with the default space and the built-in digits, which nothing here trains on."""
    chosen = RunSettings(**{"target": "iphone12", "budget": 6_000_000, "time_s": 1e9, **settings})
    space, limits = load_space(chosen.space), Limits(chosen.budget, chosen.num_classes)
    return Plan(
        chosen,
        space,
        load_target(chosen.target),
        limits,
        load_data("digits", image_size=16),
        default_recipe("digits"),
        proxy=parse_proxy(chosen.proxy),
        prescreen=parse_prescreen(chosen.prescreen) if chosen.prescreen else None,
        replay=replay(space, limits, chosen) if replay else None,
    )


def search(path, evaluator=None, observer=None, clock=None, screener=None, **settings):
    """Run or carry on a search in `path`; returns the front document."""
    plan = make_plan(**settings)
    folder = RunFolder(path)
    with Store.open(folder) as store:
        store.pin(plan.pins())
        folder.write_run(plan.describe(folder.name))
        arguments = {"screener": screener} if clock is None else {"screener": screener, "clock": clock}
        worker = evaluator or plan.replay or FormulaEvaluator()
        return Search(plan, store, folder, worker, observer or Silent(), **arguments).run()
