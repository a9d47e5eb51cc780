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
from mvit_search.space import load_space


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


def make_plan(**settings) -> Plan:
    """A plan with the default space and the built-in digits, which nothing here trains on."""
    chosen = RunSettings(**{"target": "iphone12", "budget": 6_000_000, "time_s": 1e9, **settings})
    recipe = default_recipe("digits")
    return Plan(
        chosen,
        load_space(chosen.space),
        load_target(chosen.target),
        Limits(chosen.budget, chosen.num_classes),
        load_data("digits", image_size=16),
        recipe,
    )


def search(path, evaluator=None, observer=None, clock=None, **settings):
    """Run or carry on a search in `path`; returns the front document."""
    plan = make_plan(**settings)
    folder = RunFolder(path)
    with Store.open(folder) as store:
        store.pin(plan.pins())
        folder.write_run(plan.describe(folder.name))
        arguments = {} if clock is None else {"clock": clock}
        return Search(plan, store, folder, evaluator or FormulaEvaluator(), observer or Silent(), **arguments).run()
