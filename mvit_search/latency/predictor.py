"""Latency predicted from the operator table by a target's file: plain arithmetic, half a millisecond."""

import math
from dataclasses import dataclass
from pathlib import Path

from mvit_search.architecture import MobileViTConfig, operators
from mvit_search.latency.base import Latency
from mvit_search.latency.features import features
from mvit_search.latency.target_file import TargetFile, read_target_file


@dataclass(frozen=True)
class PredictedTarget:
    """A target that predicts: a non-negative sum of the features, with the interval its file describes."""

    file: TargetFile

    @classmethod
    def load(cls, path: Path) -> "PredictedTarget":
        """The target that `path` describes.

        Raises:
            InputError: the file is missing or breaks a rule.
        """
        return cls(read_target_file(path))

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def measured(self) -> bool:
        return False

    @property
    def calibration(self) -> str:
        return self.file.calibration

    @property
    def source(self) -> str:
        """One phrase: what predicted it and how wrong that was on networks it had not seen."""
        error = self.file.errors.leave_one_network_out_mape_percent
        return f"predicted: {self.name} calibration {self.file.date[:7]}, leave-one-out MAPE {error:.1f} %"

    def latency(self, config: MobileViTConfig, num_classes: int = 1000) -> Latency:
        """Predicted latency with an interval of the file's level (80 %)."""
        amounts = features(operators(config, num_classes))
        ms = math.fsum(value * amount for value, amount in zip(self.file.values, amounts, strict=True))
        ratio = self.file.interval.ratio
        return Latency(ms, ms / ratio, ms * ratio, self.source, self.name, self.file.protocol)
