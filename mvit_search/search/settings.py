"""`RunSettings`: everything that decides what a run does, frozen, with each default in one place."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mvit_search.architecture.config import known_fields, validation_input_error
from mvit_search.records.objectives import DEFAULT_OBJECTIVES
from mvit_search.search.ladder import DEFAULT_ETA

DEFAULT_TRIALS = 24
DEFAULT_TIME_S = 330.0
DEFAULT_FINAL_SEEDS = 3
DEFAULT_PATIENCE_S = 300.0
DEFAULT_STAND_IN = "iphone12"
DEFAULT_IMAGES = 5000
"""Training images of a proxy training, but for the built-in digits: docs/proxies.md measures how they rank."""


class RunSettings(BaseModel):
    """How to run a search.

    Attributes:
        space, target, data: names or paths, as the user gave them.
        budget: most parameters a candidate may have, counted with `num_classes` classes.
        num_classes: classes of the network that is costed (1000 = ImageNet, as the papers count); the
            proxy is always built with the data's own classes.
        trials: candidates to train, presets included.
        time_s: seconds after which no further training starts; a third is kept for the finals.
        final_seeds: seeds each point of the final front is trained with, the first one included.
        finals: most points of the front that are trained so, spread over it; None all of them.
        proxy: what candidates are valued by: `training`, `zero-cost:NAME` or `table:FILE#FIDELITY`.
        prescreen: `NAME:K`: of K proposals the one with the highest zero-cost score is trained; None trains each.
        images: most training images, class-balanced; None = `DEFAULT_IMAGES`, and all of `digits`.
        data_fraction: of the training images, class-balanced, above 0 and at most 1; takes the place of `images`.
        recipe: YAML file of a recipe; None = the data's default one.
        epochs, proxy_size: override the recipe's.
        stand_in: predicted target that stands in for a measurement server that does not answer; None waits for it.
        patience_s: seconds without an answer after which it does.
        objectives: what the front weighs: `top1` and costs (records/objectives.py).
        max_macs, max_memory_bytes (peak activations, 16 bit), max_weight_bytes, max_latency_ms: further hard limits.
        min_top1: least top-1 (0..1) of a point of the front.
        fidelity: `full` trains each candidate to the end of the recipe; `halving` in rungs, the best of each go on.
        eta: of so many candidates at a rung one goes on.
        rungs: `1,3,9`, see `search.ladder.parse_rungs`; None divides the recipe's epochs by eta.
        engine: where trainings run: `in-process`, `pool`, `ray`; None is `pool` with several workers, else in-process.
        workers: trainings at once; None lets the engine choose.
        ray_address: of a running cluster; None starts one on this machine.
        storage: URL of a database; None is a file in the run's folder.
        cache: whether trainings of earlier runs are taken over where they are the same, and these kept for later ones.
        from_run: a run whose records are taken over, or whose candidates alone (`configs_from`).
        replay_run: a run whose order of events is gone through again.
        threads: torch threads of a training. One by default: it is as fast on small images, it is not hurt by other
            work on the machine, and results do not depend on the number of cores.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    space: str = "mobilevit"
    target: str
    data: str = "digits"
    budget: int
    num_classes: int = Field(default=1000, ge=1)
    trials: int = Field(default=DEFAULT_TRIALS, ge=1, le=1_000_000)
    time_s: float = Field(default=DEFAULT_TIME_S, gt=0)
    seed: int = Field(default=0, ge=0, le=2**31)
    sampler: str = "nsga2"
    final_seeds: int = Field(default=DEFAULT_FINAL_SEEDS, ge=1, le=100)
    finals: int | None = Field(default=None, ge=0)
    proxy: str = "training"
    prescreen: str | None = None
    images: int | None = Field(default=None, ge=1)
    data_fraction: float | None = Field(default=None, gt=0, le=1)
    recipe: str | None = None
    epochs: int | None = Field(default=None, ge=1)
    proxy_size: int | None = Field(default=None, ge=16)
    device: str = "cpu"
    threads: int = Field(default=1, ge=1)
    objectives: tuple[str, ...] = DEFAULT_OBJECTIVES
    max_macs: int | None = Field(default=None, ge=1)
    max_memory_bytes: int | None = Field(default=None, ge=1)
    max_weight_bytes: int | None = Field(default=None, ge=1)
    max_latency_ms: float | None = Field(default=None, gt=0)
    min_top1: float | None = Field(default=None, ge=0, lt=1)
    fidelity: Literal["full", "halving"] = "full"
    eta: int = Field(default=DEFAULT_ETA, ge=2, le=1000)
    rungs: str | None = None
    engine: str | None = None
    workers: int | None = Field(default=None, ge=1, le=10_000)
    ray_address: str | None = None
    storage: str | None = None
    cache: bool = True
    from_run: str | None = None
    configs_from: str | None = None
    replay_run: str | None = None
    stand_in: str | None = None
    patience_s: float = Field(default=DEFAULT_PATIENCE_S, gt=0)


def parse_settings(data: dict[str, Any]) -> RunSettings:
    """Settings from plain data (options, or a `run.json`).

    Raises:
        InputError: naming the first setting that breaks a rule.
    """
    try:
        return RunSettings.model_validate(data)
    except ValidationError as error:
        raise validation_input_error(error, "settings", known_fields(RunSettings)) from None
