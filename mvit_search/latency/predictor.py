"""Latency predicted from the operator table by a target's file: plain arithmetic, half a millisecond."""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mvit_search.architecture import MobileViTConfig
from mvit_search.architecture.ops import parts
from mvit_search.latency.base import Latency
from mvit_search.latency.features import features
from mvit_search.latency.target_file import TargetFile, read_target_file


@dataclass(frozen=True)
class PredictedTarget:
    """A target that predicts: a non-negative sum of the features, with the interval its file describes.

    At an image size that no fitted row has, the same sum extrapolates, and its source says so: the interval
    and the error were found at the fitted sizes and vouch for no other.
    """

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

    @cached_property
    def _fitted_sizes(self) -> frozenset[tuple[int, int]]:
        return frozenset(row.image_size for row in self.file.rows)

    def _source_at(self, size: tuple[int, int]) -> str:
        if size in self._fitted_sizes:
            return self.source
        fitted = " and ".join(map(_size_words, sorted(self._fitted_sizes)))
        return f"{self.source} at {fitted} px; extrapolated to {size[0]}x{size[1]} px, error unknown"

    def latency(self, config: MobileViTConfig, num_classes: int = 1000) -> Latency:
        """Predicted latency with an interval of the file's level (80 %), as far as the file's rows reach."""
        amounts = features(parts(config, num_classes))
        ms = math.fsum(value * amount for value, amount in zip(self.file.values, amounts, strict=True))
        ratio = self.file.interval.ratio
        return Latency(ms, ms / ratio, ms * ratio, self._source_at(config.image_size), self.name, self.file.protocol)


def _size_words(size: tuple[int, int]) -> str:
    """`256` for a square image, else `256x192` (height x width)."""
    return str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"
