"""A device that never was: hidden coefficients, noise, and a term that no predictor here knows.

It is a `Runtime`, so that planning, measuring and calibrating can be tried, and their gain told, without a phone.
"""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mvit_search.architecture import MobileViTConfig, Op, operators
from mvit_search.latency.cpu_torch import CpuTorchRuntime, read_network
from mvit_search.latency.features import BALANCE, FEATURE_NAMES, Features, features_of_network
from mvit_search.latency.runtime import Measurement, MeasuringProtocol
from mvit_search.latency.target_file import TargetFile

_LANES = 32
_RUNS = 100
_BYTES_PER_NUMBER = 2


@dataclass(frozen=True)
class Hidden:
    """How far a simulated device is from the target that it is drawn around.

    Attributes:
        level: standard deviation of the common factor of all coefficients, as a natural log.
        spread: the same of each coefficient's own factor.
        noise: the same of a measurement around the device's true latency.
        padding: how much of the work on channels that fill up the last 32 a convolution takes time for: a term that
            no feature counts. At 1 it is 7 % of a candidate's latency (3 to 15 %) around iphone12.
    """

    level: float = 0.15
    spread: float = 0.3
    noise: float = 0.03
    padding: float = 0.5


@dataclass(frozen=True)
class SimulatedDevice:
    """Runs nothing: a latency is the hidden coefficients' sum over the features, the padding, and noise by `seed`."""

    coefficients: Features
    hidden: Hidden
    seed: int
    device: str = "device"

    @classmethod
    def near(
        cls, file: TargetFile, seed: int, hidden: Hidden | None = None, device: str = "device"
    ) -> "SimulatedDevice":  # fmt: skip
        """A device drawn around a target. A coefficient that its fit left at nothing is drawn around half its prior."""
        hidden = hidden or Hidden()
        random = np.random.default_rng(seed)
        common = random.normal(0, hidden.level)
        own = random.normal(0, hidden.spread, len(FEATURE_NAMES))
        middle = np.array([max(c.value, c.prior / 2) for c in file.coefficients.values()])
        return cls(Features(*(middle * np.exp(common + own)).tolist()), hidden, seed, device)

    @property
    def name(self) -> str:
        return "simulated"

    @property
    def suffix(self) -> str:
        return ".json"

    @property
    def identity(self) -> str:
        return f"simulated-{self.seed}-{self.protocol.digest}"

    @property
    def protocol(self) -> MeasuringProtocol:
        """What is recorded with each number, so that nobody takes it for a phone's."""
        return MeasuringProtocol(
            runtime="simulation", device=f"{self.device} (simulated {self.seed})", system="simulation",
            compute_units="ALL", precision="fp16", io="none", threads=None, warmup=0, rule=f"{_RUNS} draws",
        )  # fmt: skip

    def require_device(self) -> None:
        """Nothing to require."""

    def write(self, config: MobileViTConfig, num_classes: int, path: Path) -> None:
        """Write the config and its class count, as `cpu-torch` does.

        Raises:
            InputError: `path` cannot be written.
        """
        CpuTorchRuntime().write(config, num_classes, path)

    def measure(self, path: Path) -> Measurement:
        """A draw around the network's true latency; the same network gives the same draw.

        Raises:
            InputError: the file is no such document.
        """
        middle = self.measured_ms(*read_network(path))
        tail = 1 + self.hidden.noise
        return Measurement(
            p10_ms=middle / tail, p50_ms=middle, p90_ms=middle * tail, low_ms=middle / tail, high_ms=middle * tail,
            runs=_RUNS, drift_percent=0.0, settled=True, protocol=self.protocol,
        )  # fmt: skip

    def measured_ms(self, config: MobileViTConfig, num_classes: int = 1000) -> float:
        """What a measurement gives, milliseconds."""
        word = hashlib.sha256(f"{self.seed} {num_classes} {config.digest()}".encode()).digest()
        noise = np.random.default_rng(int.from_bytes(word[:8])).normal(0, self.hidden.noise)
        return self.true_ms(config, num_classes) * math.exp(noise)

    def true_ms(self, config: MobileViTConfig, num_classes: int = 1000) -> float:
        """What no measurement quite gives, milliseconds."""
        ops = operators(config, num_classes)
        modelled = sum(
            value * amount for value, amount in zip(self.coefficients, features_of_network(ops), strict=True)
        )
        return modelled + self.hidden.padding * self.coefficients.conv_work_gmacs * padded_work_gmacs(ops)


def padded_work_gmacs(ops: Iterable[Op]) -> float:
    """What convolutions would work besides on channels that fill up their last 32, in the unit of `conv_work_gmacs`."""
    return math.fsum(_padding(op) * _work_gmacs(op) for op in ops if op.kind == "conv")


def _padding(op: Op) -> float:
    """Work on channels that fill up, as a share of the work on the others; of a depthwise convolution on one side."""
    inside = 1.0 if op.groups > 1 else _filled(op.in_shape[0])
    return inside * _filled(op.shape[0]) - 1


def _filled(channels: int) -> float:
    return math.ceil(channels / _LANES) * _LANES / channels


def _work_gmacs(op: Op) -> float:
    moved_mib = _BYTES_PER_NUMBER * (op.read + op.elements) / 2**20
    return max(op.macs / 1e9, BALANCE * moved_mib)
