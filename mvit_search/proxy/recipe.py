"""`Recipe`: everything that decides a proxy training but for the candidate, the data and the seed."""

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mvit_search.architecture.config import known_fields, validation_input_error
from mvit_search.errors import InputError
from mvit_search.space import read_yaml

Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Side = Annotated[int, Field(ge=16, le=1024)]


class Recipe(BaseModel):
    """AdamW under a cosine with linear warm-up; one random view of every image, every epoch.

    Attributes:
        batch_size: images of an optimiser step. With `scales`, of a step at `image_size`.
        learning_rate: peak, reached after `warmup_epochs`.
        start_share, final_share: of the peak, where the warm-up starts and the cosine ends. The paper's are
            both 0.1 (arXiv 2110.02178, section 4.1: 0.0002, 0.002, 0.0002).
        width_power: the peak is multiplied by (params / 2 M) ** (-width_power / 2): parameters grow with the
            square of the widths, so at 1 it falls as widths grow. 0 gives all networks the same.
        weight_decay: on convolutions and matrices; never on norms and biases.
        grad_clip: largest norm of all gradients together.
        ema_decay: of the exponential average of the weights that is scored in their place (paper, section 4.1);
            0 scores the weights themselves. Early on the average is shorter: (1 + steps) / (10 + steps).
        precision: of convolutions and matrix products in training; the weights are float32 either way.
        image_size: side in pixels that the data should be loaded at, and scored at.
        scales: sides of the multi-scale sampler (paper, section 3.2 and listing 1), one drawn a step, with
            as many images as cost the same: batch_size * (image_size / side) ** 2. Empty: always `image_size`.
        max_rotation_degrees: images are turned by up to this, either way.
        area_low, area_high: share of the image that a view shows, uniform between the two. Up to 1 the view is
            a random-resized crop, anywhere inside; above 1 the image shrinks inside a black margin.
        max_aspect: a view's width over height, log-uniform between its inverse and it.
        max_shift: the view's centre moves by up to this share of the side, along both axes; black beyond.
        flip: half of the images are mirrored left to right. Off where a mirror image is another class.
        recalibration_images: training images over which batch-norm statistics are taken anew, averaged
            evenly, before scoring. The running averages of so short a schedule lag behind the weights.
            0 keeps the running averages.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    epochs: Annotated[int, Field(ge=1, le=100_000)]
    batch_size: Annotated[int, Field(ge=2, le=65_536)]
    learning_rate: Positive
    start_share: Share = 0.0
    final_share: Share = 0.0
    width_power: Annotated[float, Field(ge=-2, le=2)] = 0.0
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.01
    label_smoothing: Share = 0.1
    warmup_epochs: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    grad_clip: Positive = 1.0
    ema_decay: Share = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    image_size: Side
    scales: tuple[Side, ...] = ()
    max_rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    area_low: Annotated[float, Field(gt=0, le=4)] = 1.0
    area_high: Annotated[float, Field(gt=0, le=4)] = 1.0
    max_aspect: Annotated[float, Field(ge=1, le=4)] = 1.0
    max_shift: Share = 0.0
    flip: bool = False
    recalibration_images: Annotated[int, Field(ge=0)] = 512

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.area_low > self.area_high:
            raise ValueError(f"area_low {self.area_low} must not be above area_high {self.area_high}")
        if len(set(self.scales)) != len(self.scales):
            raise ValueError("scales must be different sizes")
        return self

    def digest(self) -> str:
        """sha256 of the canonical JSON: part of the key under which a trained candidate is found again."""
        content = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()

    def to_yaml(self) -> str:
        """The recipe as a YAML file holds it; `load_recipe` reads it back."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    def changed(self, **changes: object) -> "Recipe":
        """A recipe with some fields replaced, checked like any other.

        Raises:
            InputError: an unknown field, or a value that breaks its rule.
        """
        return parse_recipe({**self.model_dump(mode="json"), **changes})

    def batch_at(self, side: int) -> int:
        """Images of a step at that side, so that it costs as much as one at `image_size`; at least two."""
        return max(2, round(self.batch_size * (self.image_size / side) ** 2))


def parse_recipe(content: object) -> Recipe:
    """A recipe from plain data.

    Raises:
        InputError: naming the first field that breaks a rule.
    """
    if not isinstance(content, dict):
        raise InputError("recipe", None, "must be a mapping of settings", "for example epochs: 8")
    try:
        return Recipe.model_validate_json(json.dumps(content, default=str))
    except ValidationError as error:
        raise validation_input_error(error, "recipe", known_fields(Recipe)) from None


def load_recipe(path: Path) -> Recipe:
    """A recipe from a YAML file.

    Raises:
        InputError: no such file, no YAML, a field given twice, or one that breaks a rule.
    """
    content = read_yaml(path, "recipe")
    if isinstance(content, dict):
        # YAML 1.1 takes 2e-3 for text, for want of a point.
        content = {name: float(value) if _is_power(value) else value for name, value in content.items()}
    return parse_recipe(content)


def _is_power(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[-+]?\d+[eE][-+]?\d+", value) is not None


# docs/proxies.md says how these were chosen and what they were measured to tell apart.
_DIGITS = Recipe(
    epochs=2, batch_size=32, learning_rate=3e-3, warmup_epochs=0.4, image_size=17,
    max_rotation_degrees=25.0, area_low=0.5625, area_high=1.5625, max_shift=0.12,
)  # fmt: skip
_PHOTOS = Recipe(
    epochs=2, batch_size=64, learning_rate=2e-3, warmup_epochs=0.5, image_size=32,
    area_low=0.5, max_aspect=4 / 3, flip=True,
)  # fmt: skip
PAPER = Recipe(
    epochs=300, batch_size=1024, learning_rate=2e-3, start_share=0.1, final_share=0.1, warmup_epochs=16.0,
    grad_clip=10.0, ema_decay=0.9995, image_size=256, scales=(160, 192, 256, 288, 320), area_low=0.08,
    max_aspect=4 / 3, flip=True, recalibration_images=0,
)  # fmt: skip
"""The recipe of arXiv 2110.02178, section 4.1 and appendix, as CoreNet writes it: for a cluster, not for a proxy."""


def default_recipe(data: str) -> Recipe:
    """The recipe for a built-in data set by its name, and the one for photographs for everything else."""
    return _DIGITS if data == "digits" else _PHOTOS
