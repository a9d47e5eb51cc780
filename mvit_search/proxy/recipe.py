"""`Recipe`: everything that decides a proxy training but for the candidate, the data and the seed."""

import hashlib
import json
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Recipe(BaseModel):
    """AdamW under a cosine with linear warm-up; one random affine view of every image, every epoch.

    Attributes:
        learning_rate: peak, reached after `warmup_epochs`; falls to zero at the end.
        weight_decay: on convolutions and matrices; never on norms and biases.
        grad_clip: largest norm of all gradients together.
        image_size: side in pixels that the data should be loaded at.
        max_rotation_degrees: images are turned by up to this, either way.
        view_low, view_high: side of the window that is seen, as a share of the image; uniform between the
            two. Below 1 it is a random-resized crop; above 1 the image shrinks inside a black margin.
        max_shift: the window's centre moves by up to this share of the side, along both axes; black beyond.
        flip: half of the images are mirrored left to right. Off where a mirror image is another class.
        recalibration_images: training images over which batch-norm statistics are taken anew, averaged
            evenly, before evaluation. The running averages of so short a schedule lag behind the weights.
            0 keeps the running averages.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    epochs: Annotated[int, Field(ge=1, le=100_000)]
    batch_size: Annotated[int, Field(ge=2, le=65_536)]
    learning_rate: Positive
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.01
    label_smoothing: Share = 0.1
    warmup_epochs: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    grad_clip: Positive = 1.0
    image_size: Annotated[int, Field(ge=16, le=1024)]
    max_rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    view_low: Annotated[float, Field(gt=0, le=2)] = 1.0
    view_high: Annotated[float, Field(gt=0, le=2)] = 1.0
    max_shift: Share = 0.0
    flip: bool = False
    recalibration_images: Annotated[int, Field(ge=0)] = 512

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.view_low > self.view_high:
            raise ValueError(f"view_low {self.view_low} must not be above view_high {self.view_high}")
        return self

    def digest(self) -> str:
        """sha256 of the canonical JSON: part of the key under which a trained candidate is found again."""
        content = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()


# docs/proxies.md says how these were chosen and what they were measured to tell apart.
_DIGITS = Recipe(
    epochs=2, batch_size=32, learning_rate=3e-3, warmup_epochs=0.4, image_size=17,
    max_rotation_degrees=10.0, view_low=0.9, view_high=1.1, max_shift=0.05,
)  # fmt: skip
_PHOTOS = Recipe(
    epochs=8, batch_size=64, learning_rate=2e-3, warmup_epochs=0.5, image_size=64,
    view_low=0.7, view_high=1.0, max_shift=0.1, flip=True,
)  # fmt: skip


def default_recipe(data: str) -> Recipe:
    """The recipe for a built-in data set by its name, and the one for photographs for every folder."""
    return _DIGITS if data == "digits" else _PHOTOS
