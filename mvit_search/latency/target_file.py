"""The file of a predicted target: coefficients, errors, and every row they came from.

`targets/<name>.json` is written by `benchmarks/fit_latency.py` and read here; a file that breaks a rule is
refused with the field's name. Adding a target is adding a file.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mvit_search.architecture import PRESETS, MobileViTConfig, MobileViTStage, parse_config
from mvit_search.architecture.config import known_fields, validation_input_error
from mvit_search.errors import InputError
from mvit_search.latency.features import COEFFICIENT_UNITS, FEATURE_NAMES

Text = Annotated[str, Field(min_length=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Row(_Frozen):
    """One published latency of a network that the operator table can describe.

    `patch_sizes` are the sides of the square patches of the MobileViT stages, first to last. `digitised`
    means read off a figure. `weight` is the row's weight in the fit.
    """

    model: Text
    preset: Text
    patch_sizes: tuple[int, ...]
    image_size: tuple[int, int]
    device: Text
    compute_units: Text
    latency_ms: Positive
    source: Text
    url: Text
    note: str
    digitised: bool
    weight: Positive

    @model_validator(mode="after")
    def _describes_a_network(self) -> Self:
        if self.preset not in PRESETS:
            raise ValueError(f"preset {self.preset!r} is unknown (known: {', '.join(PRESETS)})")
        wanted = sum(isinstance(stage, MobileViTStage) for stage in PRESETS[self.preset].stages)
        if len(self.patch_sizes) != wanted:
            raise ValueError(f"patch_sizes must have {wanted} sides, one a MobileViT stage")
        return self

    @cached_property
    def config(self) -> MobileViTConfig:
        """The network that was measured.

        Raises:
            InputError: a size is out of the config's bounds.
        """
        sides = iter(self.patch_sizes)
        stages = [_with_patch(stage, sides) for stage in PRESETS[self.preset].model_dump()["stages"]]
        document = {**PRESETS[self.preset].model_dump(), "stages": stages, "image_size": self.image_size}
        return parse_config(document, source=f"row {self.model}")


class FittedRow(Row):
    """A row with what the fit says of it.

    `fitted_ms` saw the row. The others did not: without the row itself, without every row of the same
    network, without every row of the same model. The error is that of the second.
    """

    fitted_ms: Positive
    row_left_out_ms: Positive
    network_left_out_ms: Positive
    model_left_out_ms: Positive
    left_out_error_percent: Finite


class ExcludedRow(_Frozen):
    """A published latency of the family that the fit must not see, with the reason."""

    model: Text
    device: Text
    compute_units: Text
    latency_ms: Positive | None
    source: Text
    url: Text
    reason: Text


class Coefficient(_Frozen):
    """Milliseconds per unit of a feature; the fit is drawn to `prior`, `prior_scale` being one step away."""

    value: NonNegative
    unit: Text
    prior: NonNegative
    prior_scale: Positive


class LeftOutErrors(_Frozen):
    """Mean absolute percentage errors on what a fit did not see.

    By row: the mean over rows; flattered by the rows that repeat a network. By network and by model (XXS,
    XS, S): all rows of the network or model left out together; the mean over networks. `kendall_tau` ranks
    the networks' left-out predictions against their measurements.
    """

    leave_one_row_out_mape_percent: NonNegative
    leave_one_network_out_mape_percent: NonNegative
    leave_one_model_out_mape_percent: NonNegative
    kendall_tau: Annotated[float, Field(ge=-1, le=1)]


class Interval(_Frozen):
    """How wide a prediction's interval is: from ms / ratio to ms * ratio.

    `log_sigma` is the root mean square over networks of ln(measured / network_left_out_ms); `quantile` is
    Student's t for the level with so few degrees of freedom (networks - 1). One width for every network: it
    is no wider far from the rows, where it should be trusted less.
    """

    level: Annotated[float, Field(gt=0, lt=1)]
    log_sigma: Positive
    degrees_of_freedom: Annotated[int, Field(ge=1)]
    quantile: Positive
    rows_covered: Annotated[int, Field(ge=0)]

    @property
    def ratio(self) -> float:
        """Upper end over prediction, and prediction over lower end."""
        return math.exp(self.quantile * self.log_sigma)


class TargetFile(_Frozen):
    """A predicted target, whole."""

    format: Literal[1]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    device: Text
    unit: Literal["ms"]
    date: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    regime: Text
    protocol: Text
    method: Text
    limits: Text
    ridge: NonNegative
    coefficients: dict[str, Coefficient]
    interval: Interval
    errors: LeftOutErrors
    baseline: Text
    baseline_errors: LeftOutErrors
    num_rows: int
    num_networks: int
    rows: Annotated[tuple[FittedRow, ...], Field(min_length=1)]
    excluded: tuple[ExcludedRow, ...]

    @model_validator(mode="after")
    def _usable(self) -> Self:
        date.fromisoformat(self.date)
        if list(self.coefficients) != list(FEATURE_NAMES):
            raise ValueError(f"coefficients must be {', '.join(FEATURE_NAMES)}, in this order")
        for name, coefficient in self.coefficients.items():
            if coefficient.unit != COEFFICIENT_UNITS[name]:
                raise ValueError(f"coefficient {name} must have the unit {COEFFICIENT_UNITS[name]!r}")
        # Every network has feature maps, so this keeps every prediction above zero.
        if self.coefficients["map_traffic_mib"].value == 0:
            raise ValueError("coefficient map_traffic_mib must be above zero")
        if self.num_rows != len(self.rows):
            raise ValueError(f"num_rows {self.num_rows} must equal the number of rows, {len(self.rows)}")
        return self

    @cached_property
    def values(self) -> tuple[float, ...]:
        """Coefficient values in the order of `FEATURE_NAMES`."""
        return tuple(coefficient.value for coefficient in self.coefficients.values())

    @cached_property
    def calibration(self) -> str:
        """Name, date, and a digest of what shapes a prediction: `iphone12-2026-11-22-1a2b3c4d`."""
        text = json.dumps([dict(zip(FEATURE_NAMES, self.values, strict=True)), self.interval.ratio])
        return f"{self.name}-{self.date}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def read_target_file(path: Path) -> TargetFile:
    """Read and validate a predicted target.

    Raises:
        InputError: the file cannot be read, is not JSON, or breaks a rule; names the field.
    """
    try:
        target = TargetFile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(str(path), None, f"cannot be read ({error.strerror})") from None
    except ValidationError as error:
        models = (TargetFile, FittedRow, ExcludedRow, Coefficient, LeftOutErrors, Interval)
        raise validation_input_error(error, path.name, known_fields(*models)) from None
    if target.name != path.stem:
        raise InputError(f"{path.name}: name", target.name, f"must be the file's stem, {path.stem!r}")
    return target


def _with_patch(stage: dict[str, object], sides: Iterator[int]) -> dict[str, object]:
    if stage["kind"] != "mobilevit":
        return stage
    side = next(sides)
    return {**stage, "patch_h": side, "patch_w": side}
