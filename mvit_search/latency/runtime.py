"""Measuring: the seam between whoever wants a measured latency and whatever can run a network.

A runtime writes what it runs (a Core ML package, an ONNX file, a config), which needs no device, and measures
such a file on its device, which needs nothing of this project's networks. So a file can be written on one
machine and measured on another: by hand with a manifest, or through a measurement server.
"""

import hashlib
import json
import math
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from mvit_search.architecture import MobileViTConfig
from mvit_search.errors import InputError
from mvit_search.latency.base import Latency


@dataclass(frozen=True)
class MeasuringProtocol:
    """How a latency was measured; recorded with every number.

    Attributes:
        runtime: library and version, for instance `ONNX Runtime 1.22.0`.
        device: the machine or phone, as exactly as it tells.
        system: operating system and version.
        compute_units: what may run the operators: `CPU`, `CPU_AND_NE`, `ALL`, ...
        precision: `fp32` or `fp16`.
        io: what goes in, for instance `float32 array` or `image`.
        threads: threads of a processor runtime; None where the runtime decides.
        warmup: runs before the first that counts.
        rule: when measuring ends.
    """

    runtime: str
    device: str
    system: str
    compute_units: str
    precision: str
    io: str
    threads: int | None
    warmup: int
    rule: str

    @property
    def words(self) -> str:
        """The protocol in one line."""
        threads = "" if self.threads is None else f", {self.thread_words}"
        return (
            f"{self.runtime} on {self.device} ({self.system}), {self.compute_units}{threads}, {self.precision}, "
            f"batch 1, {self.io} input; {self.warmup} warm-up runs, then {self.rule}; median, 10th and 90th percentile"
        )

    @property
    def thread_words(self) -> str:
        """`1 thread`, `2 threads`; empty where the runtime decides."""
        return "" if self.threads is None else f"{self.threads} thread{'s' if self.threads > 1 else ''}"

    @property
    def digest(self) -> str:
        """Identity of the protocol: results of two digests do not belong in one table."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Placement:
    """What one compute unit is to run, as the runtime plans it; shares add up to 1 over the units.

    Attributes:
        unit: `Neural Engine`, `GPU` or `CPU`.
        operators: number of operators.
        operator_share: their share of all.
        cost_share: their share of the runtime's own estimate of the work; an estimate, not a time.
    """

    unit: str
    operators: int
    operator_share: float
    cost_share: float


@dataclass(frozen=True)
class Measurement:
    """What timing one network gave.

    Attributes:
        p10_ms, p50_ms, p90_ms: percentiles over the runs, milliseconds for one image.
        low_ms, high_ms: 95 % interval of the median.
        runs: runs that counted.
        drift_percent: how much slower (above zero) the last third of the runs was than the first, by medians.
        settled: whether the median's interval came under the goal before the time limit.
        protocol: how.
        notes: what a reader must know, one phrase each: an interval too wide, a drifting clock, operators that
            ran on another unit than asked.
        placement: which unit was to run what, where the runtime tells; else empty.

    Raises:
        InputError: a time that cannot be: not finite, not above zero, or percentiles out of order.
    """

    p10_ms: float
    p50_ms: float
    p90_ms: float
    low_ms: float
    high_ms: float
    runs: int
    drift_percent: float
    settled: bool
    protocol: MeasuringProtocol
    notes: tuple[str, ...] = ()
    placement: tuple[Placement, ...] = ()

    def __post_init__(self) -> None:
        for field in ("p10_ms", "p50_ms", "p90_ms", "low_ms", "high_ms", "runs"):
            value = getattr(self, field)
            if not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise InputError(f"measurement: {field}", value, "must be finite and above zero", "measure it anew")
        for smaller, middle, larger in (("p10_ms", "p50_ms", "p90_ms"), ("low_ms", "p50_ms", "high_ms")):
            if not getattr(self, smaller) <= getattr(self, middle) <= getattr(self, larger):
                rule = f"must lie between {smaller} and {larger}"
                raise InputError(f"measurement: {middle}", getattr(self, middle), rule, "measure it anew")

    def latency(self, target: str) -> Latency:
        """The same as a latency of `target`."""
        where = self.protocol
        words = [f"measured: {where.device}", where.system, where.runtime, where.compute_units]
        if where.threads is not None:
            words.append(where.thread_words)
        words.append(f"median of {self.runs}")
        source = "; ".join([", ".join(words), *self.notes])
        return Latency(self.p50_ms, self.p10_ms, self.p90_ms, source, target, where.words)

    def document(self) -> dict[str, Any]:
        """The same for JSON; `Measurement.of` reads it back."""
        return asdict(self)

    @classmethod
    def of(cls, document: dict[str, Any]) -> "Measurement":
        """A measurement from its document.

        Raises:
            TypeError: a field is missing or unknown, or holds another kind of value.
            InputError: a time that cannot be.
        """
        try:
            protocol = MeasuringProtocol(**document["protocol"])
            placement = tuple(Placement(**share) for share in document.get("placement", ()))
            notes = tuple(document["notes"])
        except (KeyError, AttributeError) as error:
            raise TypeError(f"a measurement's document lacks {error}") from None
        return cls(**{**document, "protocol": protocol, "notes": notes, "placement": placement})


class Runtime(Protocol):
    """Something that can run a network and be timed.

    What is local to this machine can also say early that it cannot: see `LocalRuntime`.
    """

    @property
    def name(self) -> str:
        """The name of its target."""

    @property
    def suffix(self) -> str:
        """What it runs: `.mlpackage` (a folder), `.onnx`, or `.json` (a config and its class count)."""

    @property
    def identity(self) -> str:
        """Runtime, versions and settings as one word: runs and caches are pinned to it."""

    def write(self, config: MobileViTConfig, num_classes: int, path: Path) -> None:
        """Write the network, with random weights, to `path`, which ends in `suffix`. Needs no device.

        Raises:
            InputError: what it takes to write is not installed; names the extra.
            WorkError: the network could not be written.
        """

    def measure(self, path: Path) -> Measurement:
        """Time one image through the network at `path`.

        Raises:
            InputError: this machine or this file cannot be measured, with the remedy.
            WorkError: the runtime failed on it.
        """


class LocalRuntime(Runtime, Protocol):
    """A runtime on this machine or on what is connected to it, from the table of the door."""

    def require_device(self) -> None:
        """Say before any work that this machine cannot measure; `write` may work all the same.

        Raises:
            InputError: with the remedy: another system, a missing extra, no phone.
        """


@dataclass(frozen=True)
class MeasuredTarget:
    """A target that measures each network with a runtime on this machine, or on what is connected to it."""

    runtime: Runtime

    @property
    def name(self) -> str:
        return self.runtime.name

    @property
    def measured(self) -> bool:
        return True

    @property
    def calibration(self) -> str:
        return self.runtime.identity

    def latency(self, config: MobileViTConfig, num_classes: int = 1000) -> Latency:
        """Write the network to a temporary folder and measure it.

        Raises:
            InputError, WorkError: as the runtime says.
        """
        with tempfile.TemporaryDirectory(prefix="mvit-search-") as folder:
            path = Path(folder) / f"network{self.runtime.suffix}"
            self.runtime.write(config, num_classes, path)
            return self.runtime.measure(path).latency(self.name)
