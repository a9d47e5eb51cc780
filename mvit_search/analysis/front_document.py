"""The front document (`front.json`, what `run --json` prints) as typed, validated data."""

import re
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from mvit_search.architecture import MobileViTConfig
from mvit_search.errors import InputError
from mvit_search.records import DEFAULT_OBJECTIVES, OBJECTIVES, Record

# Bounded as the command line bounds what it reads, so that no figure of a foreign file is beyond printing.
Count = Annotated[int, Field(ge=0, lt=10**18)]
Milliseconds = Annotated[float, Field(ge=0, lt=1e18, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Score = Annotated[float, Field(gt=-1e300, lt=1e300, allow_inf_nan=False)]
# With a bound pydantic also refuses half a surrogate pair, which no page could be written with.
Text = Annotated[str, Field(max_length=1_000_000)]

CUT_SHORT = "cut short"
"""State of a run whose process was killed: `front.json` still says `running`, and nothing runs."""

_FAMILY_NAMES = {"mobilevit": "MobileViT", "mobilevitv2": "MobileViTv2"}


class Valuation(BaseModel):
    """One valuation of a candidate, as `records.Evaluated` has it, at a rung of the run's ladder."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    rung: Count = 0
    epochs: Count = 0
    value: Score | None = None


class Point(BaseModel):
    """A row of the document: a front point, a candidate or a preset. The keys are those of `Record.row`.

    A preset that was not trained has no `top1`, and its own name as `ref`. Where a run scored its candidates and
    trained none, they have `score` in the place of `top1`. One that was stopped at a lower rung has neither, only what
    `evaluations` say.

    Attributes:
        within: whether it keeps the limits that only training or measuring shows.
        indistinguishable_from: references of neighbours on the front that its seeds do not tell it apart from; None
            where that is not known.
    """

    # Other keys may join the contract, so unknown ones are no error.
    model_config = ConfigDict(frozen=True, extra="ignore")
    ref: Text | None = None
    name: Text | None = None
    outcome: Text = "trained"
    params: Count
    macs: Count
    weight_bytes: Count | None = None
    peak_activation_bytes: Count | None = None
    latency_ms: Milliseconds | None = None
    latency_low_ms: Milliseconds | None = None
    latency_high_ms: Milliseconds | None = None
    latency_source: Text | None = None
    top1: Share | None = None
    top1_std: Share | None = None
    top1_by_seed: dict[str, Share] = Field(default_factory=dict)
    score: Score | None = None
    score_std: Annotated[Score, Field(ge=0)] | None = None
    score_by_seed: dict[str, Score] = Field(default_factory=dict)
    error: Text | None = None
    failure: Text | None = None
    within: bool = True
    evaluations: tuple[Valuation, ...] = ()
    indistinguishable_from: tuple[Text, ...] | None = None
    digest: Text | None = None
    config: MobileViTConfig | None = None

    @property
    def plotted(self) -> bool:
        """Whether it has a latency and a value at full fidelity."""
        return self.latency_ms is not None and self.value is not None

    @property
    def stopped_at(self) -> Valuation | None:
        """What a candidate that was stopped reached, at the highest rung that it was valued at; else None.

        Never to be shown as a `value`: it comes from a shorter training than the values of others.
        """
        valued = [valuation for valuation in self.evaluations if valuation.value is not None]
        if self.outcome != "stopped" or not valued:
            return None
        return max(valued, key=lambda valuation: valuation.rung)

    @property
    def value(self) -> float | None:
        """What the run maximised: top-1, 0..1, or a score."""
        return self.top1 if self.score is None else self.score

    @property
    def value_std(self) -> float | None:
        """Its sample standard deviation over seeds."""
        return self.top1_std if self.score is None else self.score_std

    @property
    def value_by_seed(self) -> dict[str, float]:
        return self.top1_by_seed if self.score is None else self.score_by_seed

    @property
    def title(self) -> str:
        """What a person calls it: the preset's name as the papers print it, else the reference."""
        return display_name(self.name) if self.name else self.ref or "unnamed"

    @property
    def latency_how(self) -> str:
        """`predicted` or `measured`; empty where the row does not say."""
        return self.latency_source.partition(":")[0] if self.latency_source else ""

    def same_network(self, other: "Point") -> bool:
        """Whether both describe one candidate."""
        if self.digest and other.digest:
            return self.digest == other.digest
        return self.ref is not None and self.ref == other.ref


class FrontDocument(BaseModel):
    """`front.json`.

    Attributes:
        directory: the run's folder, as it was written when the run began.
        state: `running`, `finished`, `stopped` (by its user), `failed` (by an error); `CUT_SHORT` if it was killed.
        proxy: what values come from: `training`, `zero-cost:NAME` or `table:FILE`.
        latency_measured: whether the latencies were measured; None where some were, or the document does not say.
        objectives: what the run optimised, the value (`top1`, also where that is a score) first.
        limits: hard limits by name; shares (0..1), counts, bytes, or milliseconds.
        ladder: the rungs of a run with successive halving, the full fidelity last; `eta`: of so many one went on.
        stopped: candidates valued at lower rungs alone; `failures`: how many failed for which reason.
        remembered: trainings taken over from earlier runs.
        hypervolume_reference: what the box ends at, for each cost.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    run: Text
    directory: Text | None = None
    target: Text = ""
    latency_measured: bool | None = None
    budget: Count | None = None
    objectives: tuple[Text, ...] = DEFAULT_OBJECTIVES
    limits: dict[Text, Milliseconds | None] = Field(default_factory=dict)
    ladder: tuple[Text, ...] = ()
    eta: Count | None = None
    state: Text = "finished"
    ended_by: Text | None = None
    proxy: Text = "training"
    trained: Count = 0
    scored: Count = 0
    prescreened: Count = 0
    rejected: Count = 0
    duplicates: Count = 0
    failed: Count = 0
    stopped: Count = 0
    failures: dict[Text, Count] = Field(default_factory=dict)
    remembered: Count = 0
    hypervolume: Share | None = None
    hypervolume_reference: dict[str, Milliseconds] = Field(default_factory=dict)
    front: tuple[Point, ...] = ()
    baselines: tuple[Point, ...] = ()

    @field_validator("objectives")
    @classmethod
    def _known(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        if "top1" not in keys or len(keys) < 2 or len({*keys}) < len(keys) or not OBJECTIVES.keys() >= {*keys}:
            raise ValueError(f"must hold top1 and others of {', '.join(OBJECTIVES)}, each once")
        return ("top1", *(key for key in keys if key != "top1"))

    @property
    def evaluated(self) -> int:
        """Candidates that have a value: trained, or scored where none is trained."""
        return self.trained + self.scored

    @property
    def rungs(self) -> int:
        """How many fidelities there are."""
        return max(1, len(self.ladder))

    @property
    def found(self) -> tuple[Point, ...]:
        """Front points that are no preset."""
        return tuple(p for p in self.front if p.name is None)

    @property
    def latency_word(self) -> str:
        """`predicted` or `measured`; from the rows' sources, both or nothing, where the document does not say."""
        if self.latency_measured is not None and not self.mixed:
            return "measured" if self.latency_measured else "predicted"
        return " and ".join(sorted(self._ways, reverse=True))

    @property
    def mixed(self) -> bool:
        """Whether some rows were measured and others predicted, so that each must say which."""
        return len(self._ways) > 1

    @property
    def _ways(self) -> set[str]:
        return {p.latency_how for p in (*self.front, *self.baselines) if p.latency_how}

    def known(self, point: Point, latency: str) -> str:
        """`7.3 ms` -> `predicted 7.3 ms`: no latency stands without the way it is known."""
        word = point.latency_how if self.mixed else self.latency_word
        return f"{word} {latency}".lstrip()

    @property
    def latency_sources(self) -> tuple[str, ...]:
        """Every distinct source that a row names, in words."""
        rows = (*self.front, *self.baselines)
        return tuple(dict.fromkeys(p.latency_source for p in rows if p.latency_source))


def read_document(document: dict[str, Any]) -> FrontDocument:
    """Validate a front document.

    Raises:
        InputError: naming the first key that is missing or has a wrong value.
    """
    try:
        return FrontDocument.model_validate(document)
    except ValidationError as error:
        raise _broken("front document", error) from None


def candidate_points(records: Iterable[Record], run: str) -> tuple[Point, ...]:
    """Every finished candidate, in the order of evaluation.

    Raises:
        InputError: a record holds a figure that cannot be.
    """
    try:
        return tuple(Point.model_validate(record.row(run)) for record in sorted(records, key=lambda r: r.number))
    except ValidationError as error:
        raise _broken("candidate", error) from None


def display_name(preset: str) -> str:
    """`mobilevit-xs` -> `MobileViT-XS`; any other name stays."""
    family, dash, size = preset.partition("-")
    return f"{_FAMILY_NAMES[family]}-{size.upper()}" if dash and family in _FAMILY_NAMES else preset


_TARGET_WORDS = {"cpu": "CPU", "cpu-torch": "CPU (torch)", "cpu-onnx": "CPU (ONNX Runtime)"}


def display_target(target: str) -> str:
    """`iphone12` -> `iPhone 12`; `cpu-torch` -> `CPU (torch)`; any other name stays."""
    if match := re.fullmatch(r"(iphone|ipad)[-_: ]?(.*)", target, re.IGNORECASE):
        return f"{'iPhone' if match[1].lower() == 'iphone' else 'iPad'} {match[2]}".strip()
    return _TARGET_WORDS.get(target, target)


def _broken(what: str, error: ValidationError) -> InputError:
    """Names the first key that is missing or has a wrong value."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return InputError(f"{what}: {where}", None, first["msg"], "write it anew with `mvit-search run --resume`")
