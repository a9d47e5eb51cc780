"""From the rows of a table of trainings to a reference and the proxies that are to rank as it does."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import log
from statistics import median
from typing import NamedTuple

from mvit_search.errors import InputError, UnknownNameError
from mvit_search.records.table import TableRow

SMALLEST_TABLE = 5
ZERO_COST = "zero-cost:"
SIZE, LATENCY, ZERO = "size", "latency", "zero-cost"
RUNG, SHORT, IMAGES = "rung", "short schedule", "fewer images"
RESOLUTION, RECIPE = "other resolution", "other recipe"
TRAINED = (RUNG, SHORT, IMAGES, RESOLUTION, RECIPE)
"""Families whose scores come from a training."""

BySeed = Mapping[int, Mapping[str, float]]
"""Seed -> digest -> value."""

_LABEL = re.compile(r"(?P<size>\d+)px-(?P<images>\d+)(?:img)?-\d+ep(?P<rest>.*)")
_COUNTED = ("params", "macs")
_UNSAID = "as the table gives it; it does not say whether predicted or measured"


class Shape(NamedTuple):
    """What a label such as `32px-5000img-12ep-ema` says of a schedule; `rest` is what follows."""

    size: int
    images: int
    rest: str


class Schedule(NamedTuple):
    """What makes trainings comparable: label of the fidelity, digests of recipe and data, epochs in all."""

    fidelity: str
    recipe: str
    data: str
    epochs: int

    @property
    def shape(self) -> Shape | None:
        match = _LABEL.fullmatch(self.fidelity)
        return Shape(int(match["size"]), int(match["images"]), match["rest"]) if match else None


@dataclass(frozen=True)
class Proxy:
    """Something that gives every candidate a score, the higher the better.

    Attributes:
        scores: one mapping a seed. A score without a seed has seed 0 alone.
        cpu_seconds, image_steps: what one candidate costs, the median over candidates; trained images with repeats.
        source: where the scores come from, in words.
        fitted: the reference took part in making the scores, by cross-validation.
        weights: of a combination, the partner's share of the weight in each fit (-1..1).
        shares_trainings: the scores are from the very trainings that the reference is made of.
    """

    name: str
    family: str
    scores: BySeed
    cpu_seconds: float
    image_steps: float
    source: str
    fitted: bool = False
    weights: tuple[float, ...] = ()
    shares_trainings: bool = False


@dataclass(frozen=True)
class Candidate:
    """What the table says of a candidate besides its trainings."""

    digest: str
    name: str
    params: int
    macs: int
    latency_ms: float | None


@dataclass(frozen=True)
class Measured:
    """Everything a table holds, ordered for ranking.

    Attributes:
        reference: the schedule that proxies are held to; `top1` its final accuracies by seed and digest.
        rungs: epoch of the reference's trainings -> seed -> digest -> top-1, the last epoch included.
        rung_costs: epoch -> (CPU seconds, image steps) of a candidate.
        failed: trainings that ended in an error, of any fidelity.
    """

    reference: Schedule
    top1: BySeed
    rungs: Mapping[int, BySeed]
    rung_costs: Mapping[int, tuple[float, float]]
    candidates: Mapping[str, Candidate]
    proxies: tuple[Proxy, ...]
    failed: int
    means: Mapping[str, float] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "means", mean_over_seeds(self.top1))

    @property
    def cost(self) -> tuple[float, float]:
        """(CPU seconds, image steps) of one training of the reference."""
        return self.rung_costs[self.reference.epochs]


def measured(rows: Iterable[TableRow], reference: str | None = None, latency_source: str = _UNSAID) -> Measured:
    """Order a table's rows: the longest schedule (or `reference`, a fidelity's label) against everything else.

    A row that stands twice counts as its last. A failed training has no score; it is counted.

    Raises:
        InputError: no finished long schedule, or fewer than 5 candidates with one.
    """
    rows = tuple(rows)
    trained, scored = _latest(rows), [row for row in rows if row.score is not None]
    chosen = _reference(trained, reference)
    candidates = _candidates(rows)
    rungs = {epoch: _scores(found) for epoch, found in trained[chosen].items()}
    costs = {epoch: _cost(found) for epoch, found in trained[chosen].items()}
    found = _trained_proxies(trained, chosen)
    found += _zero_cost(scored) + _sizes(candidates, latency_source)
    failed = len({(row.digest, row.seed, row.fidelity, row.recipe) for row in rows if row.error})
    return Measured(chosen, rungs[chosen.epochs], rungs, costs, candidates, tuple(found), failed)


def mean_over_seeds(values: BySeed) -> dict[str, float]:
    """Digest -> mean over the seeds it has."""
    gathered = defaultdict(list)
    for by_digest in values.values():
        for digest, value in by_digest.items():
            gathered[digest].append(value)
    return {digest: sum(found) / len(found) for digest, found in gathered.items()}


def seeds_of(values: BySeed, digests: Iterable[str]) -> list[list[float]]:
    """The values of each of `digests`, by seed."""
    return [[values[seed][digest] for seed in sorted(values) if digest in values[seed]] for digest in digests]


def covering(proxy: Proxy, digests: Iterable[str]) -> tuple[list[str], list[int]]:
    """(digests, seeds): which of the candidates `proxy` scores, and the seeds that score all of those.

    The seed that scores most candidates decides, the lowest of several; a seed with gaps is left out.
    """
    known = [digest for digest in digests if any(digest in scores for scores in proxy.scores.values())]
    if not known:
        return [], []
    scored = {seed: {digest for digest in known if digest in scores} for seed, scores in proxy.scores.items()}
    first = max(sorted(scored), key=lambda seed: len(scored[seed]))
    seeds = [seed for seed in sorted(scored) if scored[first] <= scored[seed]]
    return [digest for digest in known if digest in scored[first]], seeds


Rungs = dict[int, list[TableRow]]


def _latest(rows: Iterable[TableRow]) -> dict[Schedule, Rungs]:
    """Schedule -> epoch -> rows with an accuracy, one a candidate and seed."""
    last: dict[Schedule, dict[int, dict[tuple[str, int], TableRow]]] = {}
    for row in rows:
        if row.top1 is not None and row.epoch > 0:
            schedule = Schedule(row.fidelity, row.recipe, row.data, row.epochs)
            last.setdefault(schedule, {}).setdefault(row.epoch, {})[row.digest, row.seed] = row
    return {key: {epoch: list(found[epoch].values()) for epoch in sorted(found)} for key, found in last.items()}


def _reference(trained: Mapping[Schedule, Rungs], asked: str | None) -> Schedule:
    names = sorted({schedule.fidelity for schedule in trained})
    if asked is not None and asked not in names:
        raise UnknownNameError("--reference", asked, names)
    among = [key for key in trained if asked in (None, key.fidelity)]
    if not among:
        raise InputError("table", None, "holds no training", "run the check that writes it")
    finished = {key: {row.digest for row in trained[key].get(key.epochs, ())} for key in among}
    enough = [key for key in among if len(finished[key]) >= SMALLEST_TABLE]
    if not enough:
        most = max(among, key=lambda key: (len(finished[key]), key.epochs))
        if not finished[most]:
            longest = max(among, key=lambda key: key.epochs)
            rule = f"no training of {longest.fidelity} reached its last epoch ({longest.epochs})"
            raise InputError("table", None, rule, "carry the check on")
        rule = f"the long schedule ({most.fidelity}) was finished for {len(finished[most])} candidates"
        raise InputError("table", None, f"{rule}, fewer than {SMALLEST_TABLE}", "carry the check on")
    return max(enough, key=lambda key: _length(key, trained[key][key.epochs]))


def _length(schedule: Schedule, rows: Sequence[TableRow]) -> tuple[float, int, int, int, str]:
    """The more image steps the longer; of equal ones the larger images, more candidates, the plainer name."""
    size = schedule.shape.size if schedule.shape else 0
    steps = median(row.image_steps for row in rows)
    return steps, size, len(rows), -len(schedule.fidelity), schedule.recipe


def _cost(rows: Sequence[TableRow]) -> tuple[float, float]:
    return median(row.cpu_seconds for row in rows), median(row.image_steps for row in rows)


def _scores(rows: Iterable[TableRow], *, loss: bool = False) -> dict[int, dict[str, float]]:
    found: dict[int, dict[str, float]] = {}
    for row in rows:
        value = row.top1 if not loss else None if row.loss is None else -row.loss
        if value is not None:
            found.setdefault(row.seed, {})[row.digest] = value
    return found


def _candidates(rows: Iterable[TableRow]) -> dict[str, Candidate]:
    found: dict[str, Candidate] = {}
    for row in rows:
        known = found.get(row.digest)
        latency = row.latency_ms if row.latency_ms is not None or known is None else known.latency_ms
        name = row.name or (known.name if known else "")
        found[row.digest] = Candidate(row.digest, name, row.params, row.macs, latency)
    return found


def _trained_proxies(trained: Mapping[Schedule, Rungs], reference: Schedule) -> list[Proxy]:
    """Every rung and every end of every schedule but the reference's own end, by accuracy and by loss."""
    names = _distinct_names(trained)
    found = []
    for schedule, rungs in trained.items():
        for epoch, rows in rungs.items():
            if (schedule, epoch) != (reference, reference.epochs):
                found += _both(schedule, epoch, rows, names[schedule], _family(schedule, reference))
    return found


def _both(schedule: Schedule, epoch: int, rows: Sequence[TableRow], name: str, family: str) -> list[Proxy]:
    whole = epoch == schedule.epochs
    place = name if whole else f"{name}, epoch {epoch}"
    words = "after the whole schedule" if whole else f"at epoch {epoch} of {schedule.epochs}"
    seconds, steps = _cost(rows)
    found = []
    for kind, loss in (("top-1", False), ("loss", True)):
        if scores := _scores(rows, loss=loss):
            title = f"{place} (loss)" if loss else place
            source = f"held-out {kind} {words}"
            found.append(Proxy(title, family, scores, seconds, steps, source, shares_trainings=family == RUNG))
    return found


def _distinct_names(trained: Iterable[Schedule]) -> dict[Schedule, str]:
    """The label, with a piece of a digest where a label alone would name two schedules."""
    by_label = defaultdict(list)
    for schedule in trained:
        by_label[schedule.fidelity].append(schedule)
    names = {}
    for label, schedules in by_label.items():
        parts = [
            (word, position)
            for word, position in (("recipe", 1), ("data", 2), ("epochs", 3))
            if len({schedule[position] for schedule in schedules}) > 1
        ]
        for schedule in schedules:
            told = ", ".join(f"{word} {str(schedule[position])[:6]}" for word, position in parts)
            names[schedule] = f"{label} ({told})" if told else label
    return names


def _family(schedule: Schedule, reference: Schedule) -> str:
    if schedule == reference:
        return RUNG
    ours, theirs = schedule.shape, reference.shape
    if ours is None or theirs is None:
        return SHORT
    if ours.size != theirs.size:
        return RESOLUTION
    if ours.images != theirs.images:
        return IMAGES
    return SHORT if ours.rest == theirs.rest else RECIPE


def _zero_cost(rows: Iterable[TableRow]) -> list[Proxy]:
    by_name = defaultdict(list)
    for row in rows:
        by_name[row.fidelity.removeprefix(ZERO_COST)].append(row)
    for name in [name for name in by_name if name.lower() in _COUNTED]:
        del by_name[name]  # every row says these, and they are baselines
    found = []
    for name, scored in by_name.items():
        values: dict[int, dict[str, float]] = {}
        for row in scored:
            if row.score is not None:
                values.setdefault(row.seed, {})[row.digest] = row.score
        seconds, steps = _cost(scored)
        found.append(Proxy(name, ZERO, values, seconds, steps, "computed at initialisation, nothing is trained"))
    return found


def _sizes(candidates: Mapping[str, Candidate], latency_source: str) -> list[Proxy]:
    listed = candidates.values()
    counted = "counted from the architecture: the larger ranks higher"
    params = {one.digest: log(max(1, one.params)) for one in listed}
    macs = {one.digest: log(max(1, one.macs)) for one in listed}
    found = [
        Proxy("params", SIZE, {0: params}, 0.0, 0.0, counted),
        Proxy("MACs", SIZE, {0: macs}, 0.0, 0.0, counted),
    ]
    latencies = {one.digest: one.latency_ms for one in listed if one.latency_ms is not None}
    if latencies:
        source = f"the slower ranks higher; latency {latency_source}"
        found.append(Proxy("latency", LATENCY, {0: latencies}, 0.0, 0.0, source))
    return found
