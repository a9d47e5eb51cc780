"""A training that costs nothing: accuracy is a formula of the config and the seed."""

import random
from collections.abc import Callable

from mvit_search.architecture import MobileViTConfig
from mvit_search.data import load_data
from mvit_search.latency import load_target
from mvit_search.profile.cost import params_of
from mvit_search.proxy import default_recipe
from mvit_search.records import RunFolder
from mvit_search.search import Brake, Evaluation, Plan, RunSettings, Search, Silent, Store, Task
from mvit_search.search.engines import InProcess
from mvit_search.search.engines._base import Finished
from mvit_search.search.limits import Limits
from mvit_search.search.plan import ladder_of, limits_of
from mvit_search.search.proxies import parse_prescreen, parse_proxy
from mvit_search.search.replay import Replay
from mvit_search.search.samplers import Choice
from mvit_search.space import SearchSpace, load_space


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the product catches it."""


class FormulaEvaluator:
    """Mirrors `LadderTrainer`; writes down every (digest, seed) it finished, and in `climbed` every (..., rung)."""

    def __init__(
        self,
        *,
        fails: Callable[[MobileViTConfig, int], bool] = lambda config, seed: False,
        kill_at: int | None = None,
        interrupt_at: int | None = None,
        top: int = 0,
    ) -> None:
        self.top = top
        self.done: list[tuple[str, int]] = []
        self.climbed: list[tuple[str, int, int]] = []
        self._fails, self._kill_at, self._interrupt_at = fails, kill_at, interrupt_at

    def evaluate(self, task: Task) -> Evaluation:
        config, seed = task.config, task.seed
        if self._kill_at == len(self.done):
            raise Killed
        if self._interrupt_at == len(self.done):
            raise KeyboardInterrupt
        self.done.append((config.digest(), seed))
        self.climbed.append((config.digest(), seed, task.rung))
        if self._fails(config, seed):
            return Evaluation(None, 1.0, "loss is nan in epoch 1")
        noise = random.Random(f"{config.digest()} {seed} {task.rung}").gauss(0, 0.01)
        params = params_of(config)
        # Lower rungs: smaller networks lead, as they do after few epochs.
        half = 2e6 / 2 ** (self.top - task.rung)
        if task.keep is not None:
            task.keep.parent.mkdir(parents=True, exist_ok=True)
            task.keep.write_bytes(b"weights")
        return Evaluation(
            0.5 + 0.4 * params / (params + half) + noise - 0.1 * (self.top - task.rung), 1.0, image_steps=100
        )


class AtOnce:
    """An engine that takes so many tasks, and hands the newest back first."""

    def __init__(self, evaluator, capacity):
        self.capacity, self._evaluator, self._waiting, self._stopped = capacity, evaluator, [], False

    @property
    def running(self):
        return len(self._waiting)

    def submit(self, task):
        assert not self._stopped
        self._waiting.append(task)

    def wait(self, timeout_s):
        if not self._waiting:
            return []
        task = self._waiting.pop()
        return [Finished(task, self._evaluator.evaluate(task))]

    def stop(self):
        self._stopped = True
        self._waiting.clear()

    def close(self):
        self.stop()


class FormulaScreener:
    """Mirrors `ZeroCostEvaluator`: the more parameters the better, but for noise; writes down what it scored."""

    def __init__(self, *, fails: Callable[[MobileViTConfig], bool] = lambda config: False) -> None:
        self.done: list[str] = []
        self.scores: list[float] = []
        self._fails = fails

    def evaluate(self, task: Task) -> Evaluation:
        config = task.config
        self.done.append(config.digest())
        if self._fails(config):
            return Evaluation(None, 0.1, "the score is nan")
        self.scores.append(params_of(config) / 1e6 + random.Random(config.digest()).gauss(0, 0.3) - 5)
        return Evaluation(self.scores[-1], 0.1)


def make_plan(replay: Callable[[SearchSpace, Limits, RunSettings], Replay] | None = None, **settings) -> Plan:
    """A plan with the default space and the built-in digits, which nothing here trains on."""
    chosen = RunSettings(**{"target": "iphone12", "budget": 6_000_000, "time_s": 1e9, **settings})
    space, limits = load_space(chosen.space), limits_of(chosen)
    recipe = default_recipe("digits")
    if chosen.epochs is not None:
        recipe = recipe.changed(epochs=chosen.epochs)
    replayed = replay(space, limits, chosen) if replay else None
    return Plan(
        chosen,
        space,
        load_target(chosen.target),
        limits,
        load_data("digits", image_size=16),
        recipe,
        proxy=parse_proxy(chosen.proxy),
        prescreen=parse_prescreen(chosen.prescreen) if chosen.prescreen else None,
        replay=replayed,
        ladder=replayed.ladder if replayed else ladder_of(chosen, recipe),
        sampler=Choice(chosen.sampler, ""),
    )


def search(
    path,
    evaluator=None,
    observer=None,
    clock=None,
    screener=None,
    engine=None,
    memory=None,
    plan=None,
    earlier=(),
    **settings,
):
    """Run or carry on a search in `path`; returns the front document."""
    plan = plan or make_plan(**settings)
    folder = RunFolder(path)
    with Store.open(folder, plan.shape, pins=plan.pins()) as store:
        folder.write_run(plan.describe(folder.name))
        worker = evaluator or plan.replay or FormulaEvaluator()
        brake = Brake() if clock is None else Brake(clock)
        return Search(
            plan,
            store,
            folder,
            engine or InProcess(worker),
            observer or Silent(),
            brake=brake,
            screener=screener,
            memory=memory,
            earlier=earlier,
        ).run()
