"""`Record`: the outcome of one candidate, with where each number comes from."""

import statistics
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mvit_search.architecture import MobileViTConfig
from mvit_search.latency import Latency

Origin = Literal["preset", "initial", "sampler", "earlier"]
Outcome = Literal["trained", "scored", "stopped", "failed"]


class LatencyFact(BaseModel):
    """A latency with its interval, source and protocol, in milliseconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    ms: float
    low_ms: float
    high_ms: float
    source: str
    target: str
    protocol: str

    @classmethod
    def of(cls, latency: Latency) -> "LatencyFact":
        return cls(**latency._asdict())

    @property
    def how(self) -> str:
        """`predicted` or `measured`."""
        return self.source.partition(":")[0]


class Evaluated(BaseModel):
    """One valuation of a candidate: a seed, up to a rung of the run's ladder of fidelities.

    Attributes:
        rung: index into the ladder; a run without halving has rung 0 alone.
        epochs: trained when it was valued, those of lower rungs included; 0 of a score.
        value: top-1 (0..1) or score; None if it failed.
        seconds, image_steps: what was spent on it now, lower rungs left out where it went on from their weights.
        begun, ended: places in the run's order of events.
        remembered: taken from an earlier run's training; `seconds` and `image_steps` are that one's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    seed: int
    rung: int = 0
    epochs: int = 0
    value: float | None
    seconds: float = 0.0
    image_steps: int = 0
    begun: int = 0
    ended: int = 0
    remembered: bool = False


class Record(BaseModel):
    """What is known of one candidate of a run.

    Attributes:
        number: place in the run's order of evaluation, from 0; `RUN/number` refers to it.
        name: the preset's name if it is one.
        trial: the Optuna trial that proposed it; None for a preset outside the space.
        origin: where it came from; `initial` = drawn inside the limits for the first generation, `earlier` = taken
            over from another run.
        outcome: `stopped` = valued at lower rungs alone, so that it is no point of a front.
        latency: None only if it could not be had, which makes the record a failed one.
        top1_by_seed: proxy accuracy at full fidelity on held-out images, 0..1, by training seed; else empty.
        score_by_seed: zero-cost score by seed, larger is better, in a run that trains nothing; else empty.
        train_seconds: time its trainings, or its scores, took in total.
        largest_batch: images that fitted in memory at once, where a whole batch did not: trained in parts. Of several
            trainings the least.
        error: why it failed.
        failure: the same in a word, for counting: see `search.task.Failure`.
        within: whether it keeps the limits that only training or measuring shows.
        evaluations: every valuation, in their order, lower rungs and failures included.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    number: int = Field(ge=0)
    name: str | None = None
    trial: int | None = None
    origin: Origin
    outcome: Outcome
    digest: str
    config: MobileViTConfig
    params: int
    macs: int
    weight_bytes: int
    peak_activation_bytes: int
    latency: LatencyFact | None
    top1_by_seed: dict[int, float] = Field(default_factory=dict)
    score_by_seed: dict[int, float] = Field(default_factory=dict)
    train_seconds: float = 0.0
    largest_batch: int | None = None
    error: str | None = None
    failure: str | None = None
    within: bool = True
    evaluations: tuple[Evaluated, ...] = ()

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.outcome == "trained" and (self.latency is None or not self.top1_by_seed):
            raise ValueError("a trained record has a latency and a top-1")
        if self.outcome == "scored" and (self.latency is None or not self.score_by_seed):
            raise ValueError("a scored record has a latency and a score")
        if self.top1_by_seed and self.score_by_seed:
            raise ValueError("a record has top-1 or scores, not both")
        return self

    @property
    def succeeded(self) -> bool:
        """Whether it has its objectives at full fidelity and keeps the limits, so that it may be on a front."""
        return self.outcome in ("trained", "scored") and self.within

    @property
    def value_by_seed(self) -> dict[int, float]:
        """What the run maximises, by seed: top-1, or a zero-cost score."""
        return self.score_by_seed or self.top1_by_seed

    @property
    def value(self) -> float:
        """Mean over seeds of what the run maximises; only for a record that succeeded."""
        return statistics.fmean(self.value_by_seed.values())

    @property
    def value_std(self) -> float | None:
        """Sample standard deviation over seeds; None with fewer than two."""
        values = list(self.value_by_seed.values())
        return statistics.stdev(values) if len(values) > 1 else None

    @property
    def latency_ms(self) -> float:
        """The latency's value; only for a trained record."""
        assert self.latency is not None
        return self.latency.ms

    @property
    def top1(self) -> float:
        """Mean over seeds, 0..1; only for a trained record."""
        return statistics.fmean(self.top1_by_seed.values())

    @property
    def top1_std(self) -> float | None:
        """Sample standard deviation of the top-1 over seeds; None with fewer than two."""
        return self.value_std if self.top1_by_seed else None

    def row(self, run: str) -> dict[str, Any]:
        """The keys of the CLI's JSON contract for a point of the front.

        A scored record has three more, and no top-1: nobody should read a score as an accuracy.
        """
        trained = self.outcome == "trained"
        latency = self.latency
        score = {} if self.outcome != "scored" else {
            "score": self.value,
            "score_std": self.value_std,
            "score_by_seed": {str(seed): value for seed, value in self.score_by_seed.items()},
        }  # fmt: skip
        return {
            "ref": f"{run}/{self.number}",
            "name": self.name,
            "trial": self.trial,
            "origin": self.origin,
            "outcome": self.outcome,
            "params": self.params,
            "macs": self.macs,
            "weight_bytes": self.weight_bytes,
            "peak_activation_bytes": self.peak_activation_bytes,
            "latency_ms": latency.ms if latency else None,
            "latency_low_ms": latency.low_ms if latency else None,
            "latency_high_ms": latency.high_ms if latency else None,
            "latency_source": latency.source if latency else None,
            "top1": self.top1 if trained else None,
            "top1_std": self.top1_std if trained else None,
            "top1_by_seed": {str(seed): value for seed, value in self.top1_by_seed.items()},
            **score,
            "train_seconds": self.train_seconds,
            "largest_batch": self.largest_batch,
            "error": self.error,
            "failure": self.failure,
            "within": self.within,
            "evaluations": [evaluated.model_dump(mode="json") for evaluated in self.evaluations],
            "digest": self.digest,
            "config": self.config.model_dump(mode="json"),
        }
