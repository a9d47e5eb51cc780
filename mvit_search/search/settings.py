"""`RunSettings`: everything that decides what a run does, frozen, with each default in one place."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mvit_search.architecture.config import known_fields, validation_input_error

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
        proxy: what candidates are valued by: `training`, `zero-cost:NAME` or `table:FILE#FIDELITY`.
        prescreen: `NAME:K`: of K proposals the one with the highest zero-cost score is trained; None trains each.
        images: most training images, class-balanced; None = `DEFAULT_IMAGES`, and all of `digits`.
        data_fraction: of the training images, class-balanced, above 0 and at most 1; takes the place of `images`.
        recipe: YAML file of a recipe; None = the data's default one.
        epochs, proxy_size: override the recipe's.
        stand_in: predicted target that stands in for a measurement server that does not answer; None waits for it.
        patience_s: seconds without an answer after which it does.
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
    proxy: str = "training"
    prescreen: str | None = None
    images: int | None = Field(default=None, ge=1)
    data_fraction: float | None = Field(default=None, gt=0, le=1)
    recipe: str | None = None
    epochs: int | None = Field(default=None, ge=1)
    proxy_size: int | None = Field(default=None, ge=16)
    device: str = "cpu"
    threads: int = Field(default=1, ge=1)
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
