"""Latency predicted from the operator table by a target's file: plain arithmetic, half a millisecond."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mvit_search.architecture import MobileViTConfig, Op
from mvit_search.architecture.layouts import fuse, head, resize_in, separable_layer, softmax_layer
from mvit_search.architecture.ops import Layout, Part, Placed, part_operators, parts
from mvit_search.latency.base import Latency
from mvit_search.latency.features import Features, features, features_of_operators
from mvit_search.latency.target_file import TargetFile, read_target_file

_ATTENTION: frozenset[Layout] = frozenset((softmax_layer, separable_layer))
_ATTENTION_WORDS: dict[frozenset[Layout], str] = {
    frozenset(): "a network without attention",
    frozenset((softmax_layer,)): "softmax attention alone",
    frozenset((separable_layer,)): "separable attention alone",
    _ATTENTION: "softmax and separable attention together",
}


@dataclass(frozen=True)
class PredictedTarget:
    """A target that predicts: a non-negative sum of the features, with the interval its file describes.

    At an image size, with a head, or with a combination of attention and fusion that no fitted row has, the same sum
    extrapolates, and its source says so. That depths, kernels, ratios and activations differ from the rows' is not
    said: nearly every candidate's do.
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
    def _fitted(self) -> tuple[tuple[tuple[int, int], frozenset[Layout]], ...]:
        """Image size of every fitted row, and the layouts of the parts that its network is made of."""
        return tuple((row.image_size, _layouts(parts(row.config))) for row in self.file.rows)

    def _source_of(self, placed: Sequence[Placed], size: tuple[int, int]) -> str:
        """The error that was found, and in what the network differs from all rows it was found on."""
        source, layouts = self.source, _layouts(placed)
        alike = [(of, fitted) for of, fitted in self._fitted if fitted & _ATTENTION == layouts & _ATTENTION]
        sizes = sorted({of for of, _ in alike or self._fitted})
        resized = size not in sizes
        if resized:
            fitted = " and ".join(map(_size_words, sizes))
            source = f"{source} at {fitted} px; extrapolated to {size[0]}x{size[1]} px"
        unknown = _unfitted(placed, layouts, frozenset().union(*(fitted for _, fitted in alike)))
        if unknown:
            source = f"{source}; no fitted row has {' or '.join(unknown)}"
        return f"{source}, error unknown" if resized or unknown else source

    def latency(self, config: MobileViTConfig, num_classes: int = 1000) -> Latency:
        """Predicted latency with an interval of the file's level (80 %), as far as the file's rows reach."""
        return self.latency_of_parts(parts(config, num_classes), config.image_size)

    def latency_of_parts(self, placed: Sequence[Placed], image_size: tuple[int, int]) -> Latency:
        """The same from parts: also of a network with another head, or with dilation, as its source then says."""
        ms = self._weigh(features(placed))
        ratio = self.file.interval.ratio
        source = self._source_of(placed, image_size)
        return Latency(ms, ms / ratio, ms * ratio, source, self.name, self.file.protocol)

    def ms_of_operators(self, ops: Sequence[Op]) -> float:
        """What some operators add to a prediction: the features are sums, so the shares of a network add up to it.

        `ops` is a table of its own, inputs counted from its first operator. A share has no interval: the error
        was found on whole networks.
        """
        return self._weigh(features_of_operators(ops))

    def _weigh(self, amounts: Features) -> float:
        return math.fsum(value * amount for value, amount in zip(self.file.values, amounts, strict=True))


def _layouts(placed: Iterable[Placed]) -> frozenset[Layout]:
    return frozenset(row.part.layout for row in placed)


def _unfitted(placed: Sequence[Placed], layouts: frozenset[Layout], fitted: frozenset[Layout]) -> list[str]:
    """What the network has and no fitted row of its kinds of attention; `fitted` is empty if there is no such row."""
    found = [] if fitted else [_ATTENTION_WORDS[layouts & _ATTENTION]]
    if fitted and fuse in layouts - fitted:
        found.append("fusion around separable attention")
    if resize_in in layouts - fitted:
        found.append("a resize around separable attention")
    if placed[-1].part.layout is not head:
        found.append("this head")
    if any(row.part.derive(_is_dilated) for row in placed):
        found.append("dilation")
    return found


def _is_dilated(part: Part) -> bool:
    return any(op.dilation > 1 for op in part_operators(part))


def _size_words(size: tuple[int, int]) -> str:
    """`256` for a square image, else `256x192` (height x width)."""
    return str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"
