"""The JSON file of a predicted target: coefficients, the rows they were fitted to, and how wrong they are.

A file is self-contained: it can be fitted again from its own rows and settings, and a test does.
"""

import hashlib
import json
import math
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mvit_search.architecture import MobileViTConfig
from mvit_search.architecture.config import known_fields, validation_input_error
from mvit_search.errors import InputError
from mvit_search.latency.features import COEFFICIENT_UNITS, FEATURE_NAMES, Features

Text = Annotated[str, Field(min_length=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1)]

MEASURED = "measured: "
"""How the `paper` of rows begins that were measured for this project, not published."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Row(_Frozen):
    """One published or measured latency of a network whose operators are known.

    Attributes:
        network: name of the network with its resolution; rows of one name are left out together.
        model: the network's model, whatever its resolution and patches: `MobileViT-XS`, `mobileone_s0`.
        series: all variants of the model: `MobileOne`.
        config: the network as a config, if it is a MobileViT; None for other families.
        image_size: (height, width), pixels.
        gmacs: billions of multiply-adds; for the baselines.
        mweights: millions of stored numbers; for the baselines.
        amounts: the network's features, in the order of `FEATURE_NAMES`.
        device, compute_units, latency_ms: what was measured.
        paper: who measured, in a few words; rows of one paper are left out together.
        source, url, note: where the figure stands.
        digitised: read off a figure.
        weight: the row's weight in the fit.
    """

    network: Text
    model: Text
    series: Text
    config: MobileViTConfig | None
    image_size: tuple[int, int]
    gmacs: Positive
    mweights: Positive
    amounts: tuple[NonNegative, ...]
    device: Text
    compute_units: Text
    latency_ms: Positive
    paper: Text
    source: Text
    url: str
    note: str
    digitised: bool
    weight: Positive

    @model_validator(mode="after")
    def _has_every_feature(self) -> Self:
        if len(self.amounts) != len(FEATURE_NAMES):
            raise ValueError(f"amounts must be {len(FEATURE_NAMES)} numbers: {', '.join(FEATURE_NAMES)}")
        return self

    @property
    def in_family(self) -> bool:
        """Whether the network is a MobileViT, of either version."""
        return self.config is not None


class FittedRow(Row):
    """A row with what the fit says of it.

    `fitted_ms` saw the row. The others did not: without every row of the same network, without every row of the
    same paper. In a target with own measurements (`TargetFile.own_rows`), whose protocol is not the papers',
    `network_left_out_ms` has the factor of the row's paper in it. `fallback` names a row that took more than twice its
    left-out prediction: the network, as that paper converted it, seems to have left the Neural Engine. Such a row has
    little weight by itself, and counts half in the interval. Own measurements are never named so.
    """

    fitted_ms: Positive
    network_left_out_ms: Positive
    paper_left_out_ms: Positive
    left_out_error_percent: Finite
    fallback: bool

    def bare(self) -> Row:
        """The row without what a fit says of it."""
        return Row(**{field: getattr(self, field) for field in Row.model_fields})


class ExcludedRow(_Frozen):
    """A published latency that the fit does not see, with the reason."""

    model: Text
    device: Text
    compute_units: Text
    latency_ms: Positive | None
    source: Text
    url: str
    reason: Text


class Coefficient(_Frozen):
    """Milliseconds per unit of a feature; the fit is drawn to `prior`, `prior_scale` being one step away."""

    value: NonNegative
    unit: Text
    prior: NonNegative
    prior_scale: Positive


class FitSettings(_Frozen):
    """How the coefficients are fitted.

    Attributes:
        ridge: strength of the priors.
        tail: a row this far off, as a natural log, has half its weight left.
        family_weight: how much more a MobileViT's row weighs than another network's.
        paper_spread: standard deviation of papers' common factors, as a natural log, before any row is seen.
        reference_papers: papers whose factor is 1: their protocol is what the target predicts.
    """

    ridge: Positive
    tail: Positive
    family_weight: Positive
    paper_spread: Positive
    reference_papers: tuple[Text, ...]

    def is_own(self, paper: str) -> bool:
        """Whether a paper's rows were measured for this target, by the protocol that it predicts."""
        return paper.startswith(MEASURED) and paper in self.reference_papers


class PaperEffect(_Frozen):
    """By how much a paper's latencies lie above the reference papers', and from how many rows that is known."""

    paper: Text
    percent: Finite
    rows: Annotated[int, Field(ge=1)]


class LeftOut(_Frozen):
    """Errors on what a fit did not see: mean and median over networks of the absolute error, percent."""

    mape_percent: NonNegative
    median_percent: NonNegative


class Errors(_Frozen):
    """Errors with every row of a network, of a model, of a series, of a paper left out together.

    `kendall_tau` ranks the networks' left-out predictions against their measurements.
    """

    network: LeftOut
    model: LeftOut
    series: LeftOut
    paper: LeftOut
    kendall_tau: Annotated[float, Field(ge=-1, le=1)]


class Group(_Frozen):
    """How wrong the fit is on some of the rows, beside the baselines.

    Attributes:
        rows, networks, papers: how many there are.
        fallbacks: rows that are named as fallbacks; they count in all errors but the regular ones.
        errors: the predictor's.
        regular: the predictor's on rows that are no fallbacks.
        macs_only: those of log(ms) = a + b log(MACs).
        macs_and_weights: those of log(ms) = a + b log(MACs) + c log(weights).
    """

    rows: Annotated[int, Field(ge=1)]
    networks: Annotated[int, Field(ge=1)]
    papers: Annotated[int, Field(ge=1)]
    fallbacks: Annotated[int, Field(ge=0)]
    errors: Errors
    regular: Errors
    macs_only: Errors
    macs_and_weights: Errors


class Interval(_Frozen):
    """A prediction's interval: from ms / ratio to ms * ratio.

    `ratio` is the quantile of the rows' left-out errors that makes an interval of this level for one more network
    (split conformal prediction); a network counts once however often it was measured, and a fallback half. Coverage
    is counted with each network's interval made from the others: `coverage_percent` of the rows that are no
    fallbacks, `coverage_with_fallbacks_percent` of all.
    One width for every network: it is no wider far from the rows, where it should be trusted less.
    """

    level: Share
    ratio: Annotated[float, Field(gt=1, allow_inf_nan=False)]
    networks: Annotated[int, Field(ge=1)]
    coverage_percent: Annotated[float, Field(ge=0, le=100)]
    coverage_with_fallbacks_percent: Annotated[float, Field(ge=0, le=100)]


class Words(_Frozen):
    """What a target's file says besides numbers."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    device: Text
    regime: Text
    protocol: Text
    method: Text
    limits: Text


class TargetFile(_Frozen):
    """A predicted target, whole. `family` is of MobileViTs alone, `all` of every network."""

    format: Literal[2]
    unit: Literal["ms"]
    version: Annotated[int, Field(ge=1)]
    based_on: str
    date: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    words: Words
    settings: FitSettings
    coefficients: dict[str, Coefficient]
    papers: tuple[PaperEffect, ...]
    family: Group | None
    all: Group
    family_interval: Interval | None
    interval: Interval
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
        # Every network is one network, so this keeps every prediction above zero.
        if self.coefficients["networks"].value == 0:
            raise ValueError("coefficient networks must be above zero")
        return self

    @property
    def name(self) -> str:
        """Name of the target."""
        return self.words.name

    @property
    def own_rows(self) -> tuple[FittedRow, ...]:
        """Rows that a calibration measured by the protocol that the target predicts; none in published targets."""
        return tuple(row for row in self.rows if self.settings.is_own(row.paper))

    @cached_property
    def values(self) -> Features:
        """Coefficient values."""
        return Features(*(coefficient.value for coefficient in self.coefficients.values()))

    @cached_property
    def calibration(self) -> str:
        """Name, date, version, and a digest of what shapes a prediction: `iphone12-2026-11-24-v1-1a2b3c4d`."""
        ratios = [interval.ratio for interval in (self.interval, self.family_interval) if interval]
        text = json.dumps([self.values._asdict(), ratios])
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return f"{self.name}-{self.date}-v{self.version}-{digest}"

    def interval_of(self, *, in_family: bool) -> Interval:
        """The interval for a MobileViT, or for any network."""
        return (self.family_interval if in_family else None) or self.interval

    def group_of(self, *, in_family: bool) -> Group:
        """The errors on MobileViTs, or on every network."""
        return (self.family if in_family else None) or self.all


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
        models = (
            TargetFile, Words, FittedRow, ExcludedRow, Coefficient, FitSettings, PaperEffect, Group, Errors, LeftOut,
            Interval,
        )  # fmt: skip
        raise validation_input_error(error, path.name, known_fields(*models)) from None
    if path.stem != target.name and not path.stem.startswith(f"{target.name}-"):
        rule = f"must begin the file's name, {path.stem!r}"
        raise InputError(f"{path.name}: words.name", target.name, rule, "rename the file or the target")
    return target


def text_of(target: TargetFile) -> str:
    """The content of the target's file: one line a row, so that a change of a row shows in one line."""
    document = target.model_dump(mode="json")
    lines = {
        key: ",\n".join(f"  {json.dumps(row, ensure_ascii=False)}" for row in document.pop(key))
        for key in ("rows", "excluded")
    }
    head = json.dumps(document, indent=1, ensure_ascii=False).removesuffix("\n}")
    return f'{head},\n "rows": [\n{lines["rows"]}\n ],\n "excluded": [\n{lines["excluded"]}\n ]\n}}\n'


def log_ratio(measured_ms: float, predicted_ms: float) -> float:
    """How far a prediction is off, as a natural log; above zero: too low."""
    return math.log(measured_ms / predicted_ms)
