"""A stand-in for trainings at any config, for studying search itself: learning curves fitted to a table of real ones.

Of a candidate's top-1 after a schedule the fit explains a part by three features; what it does not explain, beyond the
noise between seeds, becomes a smooth random function of the config, drawn anew for every `landscape`; its size, and how
it goes along from one schedule to the next, are those of the fit's errors. A seed adds noise of the measured size.
So candidates, schedules and seeds differ by as much, and rank each other as well, as they did in the table
(docs/search-efficiency.md compares). Its best candidates are of its own making.
"""

import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mvit_search.architecture import MobileViTConfig, MobileViTStage
from mvit_search.errors import InputError
from mvit_search.profile import cost
from mvit_search.records.table import TableRow
from mvit_search.search.ladder import Ladder
from mvit_search.search.limits import Limits
from mvit_search.search.proposals import draw_evenly
from mvit_search.search.task import Evaluation, Task
from mvit_search.space import SearchSpace

Array = NDArray[np.float64]

RIDGE = 3.0
"""Of 0.3 to 10, near the least error of leaving one candidate out, which is flat there."""
_POOL = 200
_WAVES = 256
_ADDITIVE = 0.5
"""Share of the unexplained variance that is a sum over single parameters; the rest is of many together. A guess: 27
candidates cannot tell."""
_ALONE, _TOGETHER = 0.5, 2.0
"""Distances, in ranges of a parameter, over which such a function changes."""


class Point(NamedTuple):
    """What is fitted: a schedule's name and length, and the epoch on its way; `epoch == epochs` of a complete one."""

    fidelity: str
    epoch: int
    epochs: int

    @property
    def complete(self) -> bool:
        return self.epoch == self.epochs


LONG = Point("32px-5000img-12ep", 12, 12)
POINTS = (
    *(Point(f"32px-5000img-{epochs}ep", epochs, epochs) for epochs in (1, 2, 4)),
    *(LONG._replace(epoch=epoch) for epoch in (1, 2, 4, 6, 8)),
    LONG,
)
"""Of results/reference/cifar10_proxy: complete schedules, and the longest one on its way."""


class Fit(NamedTuple):
    """Top-1 in points at p points of n candidates.

    Attributes:
        points: the schedules.
        centre, scale: of the features (3).
        mean: p.
        weights: p x 3, of the features set to mean 0 and deviation 1.
        errors: n x p, leaving the candidate out; seeds' noise is in them.
        unexplained: p x q: unit random functions times this are what the features leave.
        noise: p x p: unit normals times this are the difference between seeds.
        image_steps: one epoch of the fitted trainings.
        seconds_per_mac: CPU seconds of an epoch over MACs, the median.
    """

    points: tuple[Point, ...]
    centre: Array
    scale: Array
    mean: Array
    weights: Array
    errors: Array
    unexplained: Array
    noise: Array
    image_steps: int
    seconds_per_mac: float


def traits(config: MobileViTConfig) -> list[float]:
    """The three features: log MACs, and means over the stages of the convolutions' kernel and of the expand ratio."""
    kernels = [stage.conv_kernel_size for stage in config.stages if isinstance(stage, MobileViTStage)]
    ratios = [stage.expand_ratio for stage in config.stages]
    return [float(np.log(cost(config).macs)), float(np.mean(kernels)), float(np.mean(ratios))]


def fit_surrogate(rows: Sequence[TableRow], points: Sequence[Point] = POINTS) -> Fit:
    """Fit the first seed of the candidates that have every point; noise from those with several seeds.

    A complete schedule without several seeds takes the noise of the nearest one that has them, and as much more as a
    longer schedule had at its epoch on the way.

    Raises:
        InputError: fewer than ten candidates have every point, or no point several seeds.
    """
    found = {(row.digest, row.fidelity, row.epoch, row.seed): row for row in rows if row.top1 is not None}
    digests = list(dict.fromkeys(row.digest for row in rows))
    full = [d for d in digests if all((d, point.fidelity, point.epoch, 0) in found for point in points)]
    if len(full) < 10:
        raise InputError("table", len(full), "so few candidates have every schedule with seed 0", "ten are needed")
    table = {key: row for key, row in found.items() if key[0] in set(full)}
    top1 = np.array([[100 * (table[d, p.fidelity, p.epoch, 0].top1 or 0) for p in points] for d in full])
    last = points[-1]
    ends = [table[d, last.fidelity, last.epoch, 0] for d in full]
    features = np.array([traits(row.config) for row in ends])
    centre, scale = features.mean(axis=0), features.std(axis=0)
    design = np.column_stack([np.ones(len(full)), (features - centre) / scale])
    ridge = RIDGE * np.diag([0.0, *[1.0] * features.shape[1]])
    solved = np.linalg.solve(design.T @ design + ridge, design.T)
    held = (design * solved.T).sum(axis=1)[:, None]
    coefficients = solved @ top1
    errors = (top1 - design @ coefficients) / (1 - held)
    noise = _noise(table, points)
    return Fit(
        tuple(points), centre, scale, coefficients[0], coefficients[1:].T, errors,
        _root(errors.T @ errors / len(full) - noise), _root(noise), round(ends[0].image_steps / last.epoch),
        float(np.median([row.cpu_seconds / row.epoch / row.macs for row in ends])),
    )  # fmt: skip


class Surrogate:
    """Curves for every candidate of a space.

    Args:
        landscape: which of the random functions; the fit is the same for all.
    """

    def __init__(self, fit: Fit, space: SearchSpace, limits: Limits, landscape: int = 0) -> None:
        self.fit, self.space = fit, space
        self._axes = {key: _axis(values) for key, values in space.dimensions.items()}
        rng = np.random.default_rng([20_261, landscape])
        dimensions = sum(len(next(iter(axis.values()))) for axis in self._axes.values())
        count = fit.unexplained.shape[1]
        together = rng.normal(size=(_WAVES, dimensions)) / _TOGETHER
        alone = np.zeros((_WAVES, dimensions))
        alone[np.arange(_WAVES), rng.permutation(_WAVES) % dimensions] = rng.normal(size=_WAVES) / _ALONE
        self._waves = np.concatenate([alone, together])
        self._phases = rng.uniform(0, 2 * np.pi, 2 * _WAVES)
        heights = rng.normal(size=(2 * _WAVES, count)) / _WAVES**0.5 * 2**0.5
        heights[:_WAVES] *= _ADDITIVE**0.5
        heights[_WAVES:] *= (1 - _ADDITIVE) ** 0.5
        self._heights, self._shift, self._size = heights, np.zeros(count), np.ones(count)
        draws = random.Random(f"surrogate {landscape}")
        pool = [space.config(draw_evenly(space, limits, (k + draws.random()) / _POOL, draws)) for k in range(_POOL)]
        values = np.array([self._unit(config) for config in pool])
        self._shift, self._size = values.mean(axis=0), values.std(axis=0)
        self._known: dict[str, Array] = {}

    def expected(self, config: MobileViTConfig, epochs: int, *, way: int | None = None) -> float:
        """Top-1 (0..1) without the seeds' noise; see `top1`."""
        return _share(float(self._weights(epochs, way) @ self._points(config)))

    def top1(self, config: MobileViTConfig, seed: int, epochs: int, *, way: int | None = None) -> float:
        """Top-1 (0..1) of a complete schedule of `epochs`, or after `epochs` of one of `way` epochs.

        Raises:
            InputError: longer than what was fitted, or on the way of a schedule that was not.
        """
        weights = self._weights(epochs, way)
        noise = np.random.default_rng([seed, int(config.digest()[:15], 16)]).normal(size=self.fit.noise.shape[1])
        return _share(float(weights @ (self._points(config) + self.fit.noise @ noise)))

    def seconds(self, config: MobileViTConfig, epochs: int) -> float:
        """CPU seconds of so many epochs."""
        return self.fit.seconds_per_mac * cost(config).macs * epochs

    def _points(self, config: MobileViTConfig) -> Array:
        """Points of top-1 at each fitted point."""
        digest = config.digest()
        if digest not in self._known:
            features = (np.array(traits(config)) - self.fit.centre) / self.fit.scale
            explained = self.fit.mean + self.fit.weights @ features
            self._known[digest] = explained + self.fit.unexplained @ self._unit(config)
        return self._known[digest]

    def _unit(self, config: MobileViTConfig) -> Array:
        params = self.space.params(config)
        place = np.array([number for key, axis in self._axes.items() for number in axis[params[key]]])
        values = np.cos(self._waves @ place + self._phases) @ self._heights
        return np.asarray((values - self._shift) / self._size)

    def _weights(self, epochs: int, way: int | None) -> Array:
        """Of the fitted points: one of them, or two that `epochs` lies between on a logarithmic scale."""
        known = {
            point.epoch: index
            for index, point in enumerate(self.fit.points)
            if (point.complete if way is None else point.epochs == way)
        }
        if not known or not min(known) <= epochs <= max(known):
            kind = "complete schedules" if way is None else f"epochs on the way of {way}"
            raise InputError("epochs", epochs, f"the surrogate has {kind} of {', '.join(map(str, sorted(known)))}")
        low = max(epoch for epoch in known if epoch <= epochs)
        high = min(epoch for epoch in known if epoch >= epochs)
        share = 0.0 if low == high else float(np.log(epochs / low) / np.log(high / low))
        weights = np.zeros(len(self.fit.points))
        weights[known[low]] += 1 - share
        weights[known[high]] += share
        return weights


class SurrogateEvaluator:
    """Answers tasks: a rung is a complete schedule of its epochs, and costs those that it adds to the rung below."""

    def __init__(self, surrogate: Surrogate, ladder: Ladder) -> None:
        self.surrogate, self.ladder = surrogate, ladder

    def evaluate(self, task: Task) -> Evaluation:
        epochs = self.ladder.rungs[task.rung].epochs
        paid = epochs - (self.ladder.rungs[task.start_rung].epochs if task.start_rung >= 0 else 0)
        return Evaluation(
            self.surrogate.top1(task.config, task.seed, epochs), self.surrogate.seconds(task.config, paid),
            image_steps=paid * self.surrogate.fit.image_steps,
        )  # fmt: skip


def _noise(table: dict[tuple[str, str, int, int], TableRow], points: Sequence[Point]) -> Array:
    """Covariance between seeds; schedules are trained apart, so between two of them it is 0."""
    deviations = {index: _deviations(table, point) for index, point in enumerate(points)}
    seen = {index: found for index, found in deviations.items() if found}
    if not seen:
        raise InputError("table", None, "no candidate was trained with several seeds")
    covariance = np.zeros((len(points), len(points)))
    for one in seen:
        for other in seen:
            shared = seen[one].keys() & seen[other].keys()
            if points[one].fidelity == points[other].fidelity and shared:
                pairs = np.array([(seen[one][key], seen[other][key]) for key in sorted(shared)])
                freedom = len(pairs) - len({digest for digest, _ in shared})
                covariance[one, other] = pairs[:, 0] @ pairs[:, 1] / freedom
    on_the_way = {points[index].epoch: covariance[index, index] for index in seen if not points[index].complete}
    for index, point in enumerate(points):
        if index not in seen:
            nearest = min((i for i in seen if points[i].complete), key=lambda i: abs(points[i].epoch - point.epoch))
            rungs = on_the_way.get(point.epoch), on_the_way.get(points[nearest].epoch)
            noisier = max(1.0, rungs[0] / rungs[1]) if rungs[0] and rungs[1] else 1.0
            covariance[index, index] = noisier * covariance[nearest, nearest]
    return covariance


def _deviations(table: dict[tuple[str, str, int, int], TableRow], point: Point) -> dict[tuple[str, int], float]:
    """Points of top-1 off the candidate's mean, by digest and seed, of candidates with several seeds."""
    by_digest: dict[str, dict[int, float]] = {}
    for (digest, fidelity, epoch, seed), row in table.items():
        if (fidelity, epoch) == (point.fidelity, point.epoch):
            by_digest.setdefault(digest, {})[seed] = 100 * (row.top1 or 0.0)
    return {
        (digest, seed): value - sum(values.values()) / len(values)
        for digest, values in by_digest.items()
        if len(values) > 1
        for seed, value in values.items()
    }


def _root(covariance: Array) -> Array:
    """p x q, whose product with its transpose is the nearest covariance without negative variances."""
    values, vectors = np.linalg.eigh(covariance)
    kept = values > 1e-9
    return np.asarray(vectors[:, kept] * np.sqrt(values[kept]))


def _axis(values: Sequence[object]) -> dict[object, tuple[float, ...]]:
    """A number by its place in the range; a category by a place of its own."""
    numbers = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if len(numbers) == len(values):
        low, high = min(numbers), max(numbers)
        return {value: ((value - low) / (high - low),) for value in numbers}
    return {value: tuple(0.5**0.5 if value == other else 0.0 for other in values) for value in values}


def _share(points: float) -> float:
    return min(max(points / 100, 0.0), 1.0)
