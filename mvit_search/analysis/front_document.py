"""The front document (`front.json`, what `run --json` prints) as typed, validated data."""

import re
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mvit_search.architecture import MobileViTConfig
from mvit_search.errors import InputError
from mvit_search.records import Record

_FAMILY_NAMES = {"mobilevit": "MobileViT", "mobilevitv2": "MobileViTv2"}


class Point(BaseModel):
    """A row of the document: a front point, a candidate or a preset. The keys are those of `Record.row`.

    A preset that was not trained has no `top1`, and its own name as `ref`.
    """

    # Other keys may join the contract, so unknown ones are no error.
    model_config = ConfigDict(frozen=True, extra="ignore")
    ref: str | None = None
    name: str | None = None
    outcome: str = "trained"
    params: int
    macs: int
    peak_activation_bytes: int | None = None
    latency_ms: float | None = None
    latency_low_ms: float | None = None
    latency_high_ms: float | None = None
    latency_source: str | None = None
    top1: float | None = None
    top1_std: float | None = None
    top1_by_seed: dict[str, float] = Field(default_factory=dict)
    error: str | None = None
    digest: str | None = None
    config: MobileViTConfig | None = None

    @property
    def plotted(self) -> bool:
        """Whether it has both coordinates."""
        return self.latency_ms is not None and self.top1 is not None

    @property
    def title(self) -> str:
        """What a person calls it: the preset's name as the papers print it, else the reference."""
        return display_name(self.name) if self.name else self.ref or "unnamed"

    def same_network(self, other: "Point") -> bool:
        """Whether both describe one candidate."""
        if self.digest and other.digest:
            return self.digest == other.digest
        return self.ref is not None and self.ref == other.ref


class FrontDocument(BaseModel):
    """`front.json`. `hypervolume_reference` holds the `latency_ms` that the box ends at."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    run: str
    target: str = ""
    budget: int | None = None
    state: str = "finished"
    ended_by: str | None = None
    trained: int = 0
    rejected: int = 0
    duplicates: int = 0
    failed: int = 0
    hypervolume: float | None = None
    hypervolume_reference: dict[str, float] = Field(default_factory=dict)
    front: tuple[Point, ...] = ()
    baselines: tuple[Point, ...] = ()

    @property
    def found(self) -> tuple[Point, ...]:
        """Front points that are no preset."""
        return tuple(p for p in self.front if p.name is None)

    @property
    def latency_word(self) -> str:
        """`predicted`, `measured`, both, or nothing where no row has a latency."""
        sources = {p.latency_source.partition(":")[0] for p in (*self.front, *self.baselines) if p.latency_source}
        return " and ".join(sorted(sources, reverse=True))

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
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"front document: {where}", None, first["msg"], "write it anew with `mvit-search run`"
        ) from None


def candidate_points(records: Iterable[Record], run: str) -> tuple[Point, ...]:
    """Every finished candidate, in the order of evaluation."""
    return tuple(Point.model_validate(record.row(run)) for record in sorted(records, key=lambda r: r.number))


def display_name(preset: str) -> str:
    """`mobilevit-xs` -> `MobileViT-XS`; any other name stays."""
    family, dash, size = preset.partition("-")
    return f"{_FAMILY_NAMES[family]}-{size.upper()}" if dash and family in _FAMILY_NAMES else preset


def display_target(target: str) -> str:
    """`iphone12` -> `iPhone 12`; `cpu` -> `CPU`; any other name stays."""
    if match := re.fullmatch(r"(iphone|ipad)[-_ ]?(.*)", target, re.IGNORECASE):
        return f"{'iPhone' if match[1].lower() == 'iphone' else 'iPad'} {match[2]}".strip()
    return "CPU" if target == "cpu" else target
