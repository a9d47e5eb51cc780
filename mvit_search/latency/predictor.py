"""Latency predicted from operator rows by a target's file: plain arithmetic, microseconds beyond the operator table."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mvit_search.architecture import MobileViTConfig, Op
from mvit_search.architecture.layouts import fuse, head, resize_in, separable_layer, softmax_layer
from mvit_search.architecture.ops import Layout, Part, Placed, part_operators, parts
from mvit_search.latency.base import Latency
from mvit_search.latency.features import Features, features_of_network, features_of_operators
from mvit_search.latency.mil import Program
from mvit_search.latency.target_file import TargetFile, read_target_file

_ATTENTION: frozenset[Layout] = frozenset((softmax_layer, separable_layer))
_ATTENTION_WORDS: dict[frozenset[Layout], str] = {
    frozenset((softmax_layer,)): "softmax attention alone",
    frozenset((separable_layer,)): "separable attention alone",
    _ATTENTION: "softmax and separable attention together",
}
_UNKNOWN_AT_MOST = 3
"""An operator of unknown type may take nothing or so many times what its bytes suggest: our own guess."""


@dataclass(frozen=True)
class PredictedTarget:
    """A target that predicts: a non-negative sum of the features, with the interval its file describes.

    At an image size, with a head, or with a combination of attention and fusion that no fitted MobileViT has, the same
    sum extrapolates: its source says so, and its interval is that of any network where that is wider. That depths,
    kernels, ratios and activations differ from the rows' is not said: nearly every candidate's do.
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

    def latency(self, config: MobileViTConfig, num_classes: int = 1000) -> Latency:
        """Predicted latency with an interval of the file's level (80 %), as far as the file's rows reach."""
        return self.latency_of_parts(parts(config, num_classes), config.image_size)

    def latency_of_parts(self, placed: Sequence[Placed], image_size: tuple[int, int]) -> Latency:
        """The same from parts: also of a network with another head, or with dilation, as its source then says."""
        own = self._ms_of_part
        ms = self.file.values.networks + math.fsum(len(names) * part.derive(own) for part, names, _, _ in placed)
        layouts = _layouts(placed)
        # A network without attention is no MobileViT any more: what vouches for it is the other families' rows.
        in_family = bool(layouts & _ATTENTION)
        strange = self._strangeness(placed, layouts, image_size) if in_family else ""
        ratio = self.file.interval_of(in_family=in_family).ratio
        if strange:
            ratio = max(ratio, self.file.interval.ratio)
        source = self._source(in_family=in_family) + strange
        return Latency(ms, ms / ratio, ms * ratio, source, self.name, self.file.words.protocol)

    def latency_of_program(self, program: Program) -> Latency:
        """The same of any Core ML program, with the interval of networks of all families.

        What is of unknown type is counted by its bytes, as moved; the interval reaches from where it costs nothing to
        where it costs three times that, and the source names it.
        """
        ms = self._weigh(features_of_network(program.ops))
        unknown_ms = self.ms_of_operators(op for op in program.ops if op.kind == "unknown")
        ratio = self.file.interval_of(in_family=False).ratio
        low, high = (ms - unknown_ms) / ratio, (ms + (_UNKNOWN_AT_MOST - 1) * unknown_ms) * ratio
        source = self._source(in_family=False)
        if program.unknown:
            kinds = ", ".join(f"{count} {kind}" for kind, count in program.unknown)
            source = f"{source}; lower confidence: operators of unknown type counted by bytes ({kinds})"
        return Latency(ms, low, high, source, self.name, self.file.words.protocol)

    def ms_of_operators(self, ops: Iterable[Op]) -> float:
        """What some operators add to a prediction; with `fixed_ms` the shares of a network add up to it.

        A share has no interval: the error was found on whole networks.
        """
        return self._weigh(features_of_operators(ops))

    @property
    def fixed_ms(self) -> float:
        """What a prediction has beside its operators."""
        return self.file.values.networks

    def ms_by_feature(self, ops: Iterable[Op]) -> Features:
        """What some operators add to a prediction, feature by feature (ms)."""
        amounts = features_of_operators(ops)
        return Features(*(value * amount for value, amount in zip(self.file.values, amounts, strict=True)))

    @cached_property
    def _ms_of_part(self) -> Callable[[Part], float]:
        """One function object a target: a part keeps its result under it, so no candidate pays for it again."""

        def ms_of_part(part: Part) -> float:
            return self.ms_of_operators(part_operators(part))

        return ms_of_part

    def _weigh(self, amounts: Features) -> float:
        return math.fsum(value * amount for value, amount in zip(self.file.values, amounts, strict=True))

    def _source(self, *, in_family: bool) -> str:
        """One phrase: what predicted it and how wrong that was on networks it had not seen."""
        group, file = self.file.group_of(in_family=in_family), self.file
        error = group.regular.network.mape_percent if in_family else group.regular.network.median_percent
        statistic = "MAPE" if in_family else "median error"
        version = f" v{file.version}" if file.version > 1 else ""
        among = "MobileViTs" if in_family and file.family else "networks"
        plural = "s" if group.fallbacks > 1 else ""
        fallbacks = (
            f" but for {group.fallbacks} of {group.rows} rows, fallback{plural} off the Neural Engine"
            if group.fallbacks
            else ""
        )
        return (
            f"predicted: {self.name} calibration {file.date[:7]}{version}, leave-one-out {statistic} {error:.1f} % "
            f"on {group.networks} {among}{fallbacks}"
        )

    @cached_property
    def _fitted(self) -> tuple[tuple[tuple[int, int], frozenset[Layout]], ...]:
        """Image size of every fitted MobileViT, and the layouts of the parts that it is made of."""
        return tuple(
            (row.image_size, _layouts(parts(row.config))) for row in self.file.rows if row.config and not row.fallback
        )

    def _strangeness(self, placed: Sequence[Placed], layouts: frozenset[Layout], size: tuple[int, int]) -> str:
        """In what the network differs from all MobileViTs that the error was found on, to follow the source; or ''."""
        alike = [(of, fitted) for of, fitted in self._fitted if fitted & _ATTENTION == layouts & _ATTENTION]
        sizes = sorted({of for of, _ in alike or self._fitted})
        words = ""
        if size not in sizes:
            words += f" at {' and '.join(map(_size_words, sizes))} px; extrapolated to {size[0]}x{size[1]} px"
        unknown = _unfitted(placed, layouts, frozenset().union(*(fitted for _, fitted in alike)))
        if unknown:
            words += f"; no fitted row has {' or '.join(unknown)}"
        return f"{words}, error unknown" if words else ""


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
