"""A predicted target refitted with one's own measurements, and how wrong it was before and is after.

The measurements' protocol (device, system, runtime, compute units) becomes the reference: it is what the new version
predicts. Published rows stay, and keep informing about the ratios of coefficients, each with its own paper's factor.

How much an own row weighs was chosen with simulated devices (`python benchmarks/calibration_curve.py --weights`):
from 100 to 500 times a published row of another family the error on unseen candidates hardly differs, below it the
published rows hold the fit back, and where measurements scatter by 8 % instead of 3 % less would be better still. It is
100, and does not depend on the number of rows: more rows speak louder by being more. A row whose median is not known
to 3 % (one standard deviation, from its interval) weighs less, as the square of the ratio.

Rows of another device make another target, of own rows alone. On simulated devices whose coefficients lie apart by a
factor of two, published rows at the best of these weights made the error with 5 own rows 16 to 44 % larger, and with 40
it was the same (the same command). The priors stay.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from mvit_search.architecture import MobileViTConfig, MobileViTStage, operators
from mvit_search.errors import InputError
from mvit_search.latency import PredictedTarget, target_names
from mvit_search.latency.calibrating.results_table import Result, Results
from mvit_search.latency.calibration import calibrate, priors_of
from mvit_search.latency.features import features_of_network
from mvit_search.latency.runtime import MeasuringProtocol
from mvit_search.latency.target_file import MEASURED, FittedRow, Row, TargetFile, Words

OWN_WEIGHT = 100.0
"""What an own row weighs where a published row of another family weighs one."""
OWN_SPREAD = 0.03
"""By how much own rows lie off for other reasons than an uncertain median, as a natural log: a guess."""
FEWEST_NETWORKS = 4

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,60}")
_WITH_NEURAL_ENGINE = ("ALL", "CPU_AND_NE")
_METHOD = " Own measurements weigh a hundred published rows of other families each, and set the protocol."
_OWN_METHOD = (
    "Robust non-negative least squares on relative errors over fifteen quantities of the operator table, of own "
    "measurements alone; ridge to the priors of {base}."
)


class Comparison(NamedTuple):
    """One own row and what predicts it; milliseconds.

    Attributes:
        name: the network's.
        measured_ms: the row.
        before_ms: by the target that was refitted.
        scaled_ms: by that target times one factor, which the other networks' rows give.
        after_ms: by the refit that saw no row of this network.
    """

    name: str
    measured_ms: float
    before_ms: float
    scaled_ms: float
    after_ms: float


class ErrorSummary(NamedTuple):
    """Mean and median of the absolute errors (percent) over rows, and Kendall's tau; None where ranks all tie."""

    mape_percent: float
    median_percent: float
    kendall_tau: float | None


@dataclass(frozen=True)
class Recalibration:
    """The target before and after, and both held against the own rows: `rows` compares `results`, one by one.

    `keeps_published` tells a next version of the target from a new one made of own rows alone.
    """

    before: TargetFile
    after: TargetFile
    results: tuple[Result, ...]
    rows: tuple[Comparison, ...]
    keeps_published: bool

    @property
    def protocol(self) -> MeasuringProtocol:
        """How the own rows were measured."""
        return self.results[0].protocol

    def error(self, predicted: Callable[[Comparison], float]) -> ErrorSummary:
        """How wrong one of the comparisons' predictions is on the own rows."""
        return _summary([row.measured_ms for row in self.rows], [predicted(row) for row in self.rows])

    @property
    def published_percent(self) -> tuple[float, float] | None:
        """Median error on the published rows, each with its paper's factor, left out, before and after."""
        if not self.keeps_published or all(row.paper.startswith(MEASURED) for row in self.before.rows):
            return None
        return _published_percent(self.before), _published_percent(self.after)


def recalibrate(file: TargetFile, results: Results, *, date: str, name: str | None = None) -> Recalibration:
    """The next version of a target; or with `name` another target, which drops the published rows of another device.

    Raises:
        InputError: the rows are of another device than the target and there is no `name`, are of fewer than four
            networks, or are in the target already.
    """
    protocol = results.rows[0].protocol
    same = is_same_device(file, protocol)
    if not same and name is None:
        rule = f"{_device_words(protocol)} is not what {file.name} predicts ({file.words.device}: {file.words.regime})"
        raise InputError("results", None, rule, "make a target of its own with --name NAME")
    paper = paper_of(protocol, results.rows[0].network.layout)
    own = _own_rows(file, results.rows, paper)
    kept = [row.bare() for row in file.rows] if same else []
    after = calibrate(
        [*kept, *own],
        file.excluded if same else (),
        priors_of(file),
        file.settings.model_copy(update={"reference_papers": (paper,)}),
        _words(file, protocol, len({row.network for row in own}), name=name, same=same),
        date=date,
        version=1 if name else file.version + 1,
        based_on=file.calibration,
    )
    compared = _compared(file, results.rows, after.rows[len(kept) :])
    return Recalibration(file, after, results.rows, compared, keeps_published=same)


def require_new_name(name: str) -> None:
    """Refuse a name that no target can have, or that one has.

    Raises:
        InputError: with what a name looks like.
    """
    if not _NAME.fullmatch(name):
        raise InputError("--name", name, "must be small letters, digits, - and _", "write it like my-iphone15")
    if name in target_names():
        raise InputError("--name", name, "is a target already", "choose another name")


def is_same_device(file: TargetFile, protocol: MeasuringProtocol) -> bool:
    """Whether rows of that protocol belong to the target: the same model of device, and the same kind of units.

    `iPhone 12 (A14)`, in words of the papers, is `iPhone 12 (iPhone13,2)`, in words of the phone.
    """
    units = {row.compute_units for row in file.own_rows} or {"ALL"}
    kinds = {_unit_kind(unit) for unit in units}
    return _model(file.words.device) == _model(protocol.device) and _unit_kind(protocol.compute_units) in kinds


def paper_of(protocol: MeasuringProtocol, layout: str) -> str:
    """What own rows have in place of a paper's name."""
    words = (protocol.device, protocol.system, protocol.runtime, protocol.compute_units)
    return MEASURED + ", ".join(words if layout == "paper" else (*words, f"{layout} layout"))


def own_row(result: Result, paper: str, weight: float, network: str) -> Row:
    """A measured row as the fit takes it."""
    config, protocol = result.network.config, result.protocol
    ops = operators(config, result.network.num_classes)
    return Row(
        network=network, model=network, series=_series(config), config=config, image_size=config.image_size,
        gmacs=float(f"{sum(op.macs for op in ops) / 1e9:.6g}"), mweights=sum(op.weights for op in ops) / 1e6,
        amounts=tuple(float(f"{amount:.6g}") for amount in features_of_network(ops)),
        device=protocol.device, compute_units=protocol.compute_units, latency_ms=result.latency_ms,
        paper=paper, source=protocol.words, url="", note=f"{result.network.num_classes} classes",
        digitised=False, weight=weight,
    )  # fmt: skip


def _own_rows(file: TargetFile, results: Sequence[Result], paper: str) -> list[Row]:
    known = {row.config.digest(): row.network for row in file.rows if row.config}
    rows = [own_row(result, paper, _weight(file, result), _network_name(result, known)) for result in results]
    there = {(row.network, row.paper, row.latency_ms) for row in file.rows}
    for result, row in zip(results, rows, strict=True):
        if (row.network, row.paper, row.latency_ms) in there:
            rule = f"is in {file.calibration} already"
            raise InputError(f"results row {result.row}", result.network.name, rule, "calibrate the version before it")
    if len({row.network for row in rows}) < FEWEST_NETWORKS:
        rule = f"must measure at least {FEWEST_NETWORKS} networks"
        raise InputError("results", len({row.network for row in rows}), rule, "measure more, 10 or 20 are better")
    return rows


def _weight(file: TargetFile, result: Result) -> float:
    certain = 1 / (1 + (result.uncertainty / OWN_SPREAD) ** 2)
    return float(f"{certain * OWN_WEIGHT / file.settings.family_weight:.4g}")


def _network_name(result: Result, known: dict[str, str]) -> str:
    """A published network keeps its name, so that all its rows are left out together."""
    digest = result.network.config.digest()
    return known.get(digest, f"{result.network.name} ({digest[:10]})")


def _series(config: MobileViTConfig) -> str:
    blocks = [stage for stage in config.stages if isinstance(stage, MobileViTStage)]
    return "MobileViTv2" if any(stage.attention == "separable" for stage in blocks) else "MobileViT"


def _words(file: TargetFile, protocol: MeasuringProtocol, networks: int, *, name: str | None, same: bool) -> Words:
    own = file.words.model_copy(
        update={
            "name": name or file.name,
            "regime": f"{_device_words(protocol)}, {protocol.system}, batch 1",
            "protocol": protocol.words,
        }
    )
    if not same:
        changes = {"device": protocol.device, "method": _OWN_METHOD.format(base=file.calibration)}
        limits = f"{networks} MobileViTs measured on one device and no other networks: all else is extrapolation."
        return own.model_copy(update={**changes, "limits": limits})
    limits = f"Calibrated with {networks} networks measured on one device. Of the published rows: {file.words.limits}"
    method = file.words.method if file.own_rows else file.words.method + _METHOD
    return own.model_copy(update={"method": method, "limits": file.words.limits if file.own_rows else limits})


def _compared(file: TargetFile, results: Sequence[Result], fitted: Sequence[FittedRow]) -> tuple[Comparison, ...]:
    before = PredictedTarget(file)
    predicted = [before.latency(result.network.config, result.network.num_classes).ms for result in results]
    logs = [math.log(result.latency_ms / ms) for result, ms in zip(results, predicted, strict=True)]
    networks = [row.network for row in fitted]
    return tuple(
        Comparison(
            name=result.network.name,
            measured_ms=result.latency_ms,
            before_ms=ms,
            scaled_ms=ms * math.exp(median(log for log, of in zip(logs, networks, strict=True) if of != row.network)),
            after_ms=row.network_left_out_ms,
        )
        for result, ms, row in zip(results, predicted, fitted, strict=True)
    )


def _published_percent(file: TargetFile) -> float:
    """With papers' factors: a target with own rows has them in its left-out predictions already."""
    factors = {effect.paper: 1.0 if file.own_rows else 1 + effect.percent / 100 for effect in file.papers}
    errors = [
        100 * abs(row.network_left_out_ms * factors[row.paper] / row.latency_ms - 1)
        for row in file.rows
        if not row.paper.startswith(MEASURED)
    ]
    return median(errors)


def _summary(measured: Sequence[float], predicted: Sequence[float]) -> ErrorSummary:
    from scipy.stats import kendalltau

    errors = [100 * abs(ours / real - 1) for real, ours in zip(measured, predicted, strict=True)]
    tau = float(kendalltau(measured, predicted).statistic)
    return ErrorSummary(sum(errors) / len(errors), median(errors), None if math.isnan(tau) else tau)


def _device_words(protocol: MeasuringProtocol) -> str:
    return f"{protocol.device}, {protocol.compute_units}"


def _model(device: str) -> str:
    return device.partition(" (")[0].strip().casefold()


def _unit_kind(units: str) -> str:
    return "with Neural Engine" if units in _WITH_NEURAL_ENGINE else units
