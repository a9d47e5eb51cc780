"""`shapes`: generated pictures whose class is a local texture together with a global arrangement. Synthetic.

Every picture shows two parts, a large and a small one, with the same texture, and up to two smaller, fainter parts
that each have another. The class says which texture occurs twice and how that pair lies: 5 textures x 4 arrangements.
So a network must tell fine patterns apart, find the two parts that match, wherever they are, and relate them. The
texture alone leaves four classes to guess among, the arrangement alone five. Colours, outlines, sizes, places,
contrast, a gradient and noise are drawn independently of the class. Mirrored left to right, a picture keeps its class.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from mvit_search.data._base import Images, Labels
from mvit_search.data._catalogue import Catalogue, Side, Unreadable
from mvit_search.errors import InputError

TEXTURES = ("upright stripes", "level stripes", "slanted stripes", "checks", "dots")
ARRANGEMENTS = ("beside", "aslant", "large on top", "small on top")

_VERSION = 1  # of the drawing: part of the fingerprint
_TRAINING, _MAX_TRAINING = 5_000, 10_000_000
_HELD_OUT_SHARE, _MAX_HELD_OUT = 0.2, 2000
_SIDES: Mapping[Side, int] = {"train": 0, "val": 1}
_CHUNK_PIXELS = 2**19  # drawn at once: some 30 MiB of intermediate arrays

# How hard it is. docs/data.md says what networks reach.
_MAX_OTHERS = 2  # parts beside the pair
_OTHERS_CONTRAST = 0.6  # of theirs to the pair's
_CONTRAST = (0.13, 0.35)
_NOISE = (0.01, 0.08)  # standard deviation
_PERIODS = (7.0, 11.0)  # of a texture along the side of the picture
# Both are for 32 px. Up to 64 px they grow with the side: a period keeps its 3 to 5 pixels. Were it larger there, the
# smallest networks would soon be right 97 times in 100, and rank nothing.
_BASE_SIZE, _FINEST_SIZE = 32, 64

_PARTS = 2 + _MAX_OTHERS
_PLACES = 8  # tried for each of the others; the freest is taken
_MARGIN = 0.03
_JITTER = math.radians(10)

_Reals = NDArray[np.float32]
_Integers = NDArray[np.int64]


def shapes(argument: str, seed: int) -> Catalogue:
    """Pictures drawn when asked for, at any resolution; `argument`: how many training images, default 5000.

    A fifth as many are held out, at most 2000. An index is the same scene at every resolution, its
    textures and noise finer up to 64 px; the first pictures of a larger set are those of a smaller one.

    Raises:
        InputError: `argument` is not a count from one image a class up to ten millions.
    """
    classes = len(TEXTURES) * len(ARRANGEMENTS)
    count = int(argument) if argument.isascii() and argument.isdigit() and len(argument) < 10 else 0
    if argument and not classes <= count <= _MAX_TRAINING:
        rule = f"must be a number of training images, {classes} to {_MAX_TRAINING}"
        raise InputError("data", f"shapes:{argument}", rule, f"say shapes, or shapes:{_TRAINING}")
    return ShapesCatalogue(count or _TRAINING, seed)


@dataclass(frozen=True)
class ShapesCatalogue:
    """`count` generated training pictures and their held-out ones; see `Catalogue`."""

    count: int
    seed: int

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(f"{texture}, {arrangement}" for texture, arrangement in product(TEXTURES, ARRANGEMENTS))

    @property
    def labels(self) -> Mapping[Side, Labels]:
        classes = len(self.class_names)
        held_out = max(classes, min(_MAX_HELD_OUT, round(_HELD_OUT_SHARE * self.count)))
        return {"train": np.arange(self.count) % classes, "val": np.arange(held_out) % classes}

    @property
    def description(self) -> str:
        return "generated (synthetic) pictures of textured parts and how they lie"

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"shapes {_VERSION} {self.count} {self.seed}".encode()).hexdigest()

    def pictures(self, side: Side, indices: NDArray[np.int64], size: int) -> Iterator[Images | Unreadable]:
        labels = self.labels[side][indices]
        step = max(1, _CHUNK_PIXELS // size**2)
        for start in range(0, len(indices), step):
            chunk = slice(start, start + step)
            yield from _draw(labels[chunk], [(self.seed, _SIDES[side], int(i)) for i in indices[chunk]], size)


@dataclass(frozen=True)
class _Scene:
    """What the pictures of a chunk show. Lengths are shares of the side; arrays are (n, parts) unless said.

    Attributes:
        x, y, radius: of every part; a part that is not there has radius 0.
        outline: 0 a disc, 1 a square, 2 a diamond.
        texture: an index into `TEXTURES`.
        angle: radians, the direction across stripes.
        frequency: periods along the side.
        phases: (n, parts, 2).
        light, dark: (n, parts, 3), the two colours of a texture, 0..1.
    """

    x: _Reals
    y: _Reals
    radius: _Reals
    outline: _Integers
    texture: _Integers
    angle: _Reals
    frequency: _Reals
    phases: _Reals
    light: _Reals
    dark: _Reals


class _Draws:
    """Uniform numbers, one row a picture, handed out column by column: drawn at once, for single draws are slow."""

    _COLUMNS = 128

    def __init__(self, generators: list[np.random.Generator]) -> None:
        self._numbers = np.stack([generator.random(self._COLUMNS, dtype=np.float32) for generator in generators])
        self._used = 0

    def take(self, *shape: int, low: float = 0.0, high: float = 1.0) -> _Reals:
        """(n, *shape) between `low` and `high`."""
        columns = math.prod(shape)
        taken = self._numbers[:, self._used : self._used + columns]
        self._used += columns
        return (low + (high - low) * taken).reshape(len(taken), *shape)


def _draw(labels: Labels, seeds: list[tuple[int, int, int]], size: int) -> Images:
    """(n, size, size, 3) pictures, each from its own generator, so that any choice of indices gives the same."""
    generators = [np.random.default_rng(seed) for seed in seeds]
    draws = _Draws(generators)
    scene = _scene(labels, draws, size)
    canvas = _background(draws, size)
    _paint(canvas, scene, size)
    strength = _fineness(size) * draws.take(1, 1, 1, low=_NOISE[0], high=_NOISE[1])
    noise = np.stack([generator.standard_normal((size, size, 1), dtype=np.float32) for generator in generators])
    canvas += strength * noise
    return (np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8)


def _fineness(size: int) -> float:
    return min(size, _FINEST_SIZE) / _BASE_SIZE


def _scene(labels: Labels, draws: _Draws, size: int) -> _Scene:
    n = len(labels)
    texture, arrangement = np.divmod(labels, len(ARRANGEMENTS))
    large, small = draws.take(1, low=0.16, high=0.20), draws.take(1, low=0.10, high=0.13)
    radius = np.concatenate([large, small, draws.take(_MAX_OTHERS, low=0.07, high=0.12)], axis=1)
    others = np.floor(draws.take(1, high=_MAX_OTHERS + 1)).astype(np.int64)  # (n, 1)
    radius[:, 2:] *= np.arange(_MAX_OTHERS) < others
    x, y = _places(arrangement, radius, draws)

    # The others show different textures, none of them the pair's: the pair is the one texture seen twice.
    steps = np.argsort(draws.take(len(TEXTURES) - 1), axis=1)[:, :_MAX_OTHERS] + 1
    textures = np.concatenate([texture[:, None], texture[:, None], (texture[:, None] + steps) % len(TEXTURES)], axis=1)
    slant = np.where(draws.take(_PARTS) < 0.5, 1, -1) * math.pi / 4
    turned = np.select([textures == 1, textures == 2], [np.full((n, _PARTS), math.pi / 2), slant], 0.0)

    middle = draws.take(_PARTS, 3, low=0.25, high=0.75)
    contrast = draws.take(_PARTS, 3, low=-1, high=1)
    # Light and dark always differ in brightness, never in hue alone.
    contrast += np.where(contrast.mean(axis=2, keepdims=True) < 0, -0.4, 0.4)
    contrast *= draws.take(_PARTS, 1, low=_CONTRAST[0], high=_CONTRAST[1])
    contrast[:, 2:] *= _OTHERS_CONTRAST
    return _Scene(
        x=x,
        y=y,
        radius=radius,
        outline=np.floor(draws.take(_PARTS, high=3)).astype(np.int64),
        texture=textures,
        angle=(turned + draws.take(_PARTS, low=-_JITTER, high=_JITTER)).astype(np.float32),
        frequency=np.float32(_fineness(size)) * draws.take(_PARTS, low=_PERIODS[0], high=_PERIODS[1]),
        phases=draws.take(_PARTS, 2),
        light=middle + contrast,
        dark=middle - contrast,
    )


def _places(arrangement: _Integers, radius: _Reals, draws: _Draws) -> tuple[_Reals, _Reals]:
    """(x, y) of every part, (n, parts): the pair as its arrangement says, the others where there is room."""
    large, small = radius[:, :1], radius[:, 1:2]
    # Direction from the small to the large part, y upwards: beside, aslant (any corner), above, below.
    corner = (2 * np.floor(draws.take(1, high=4)) + 1) * math.pi / 4
    sideways = np.where(draws.take(1) < 0.5, 0.0, math.pi)
    above, below = np.full_like(corner, math.pi / 2), np.full_like(corner, -math.pi / 2)
    direction = np.choose(arrangement[:, None], [sideways, corner, above, below])
    direction = direction + draws.take(1, low=-_JITTER, high=_JITTER)
    apart = (large + small) * draws.take(1, low=1.25, high=1.7)
    step_x, step_y = apart * np.cos(direction), -apart * np.sin(direction)
    # The pair's box fits inside the margins; where in there it lies is free.
    low_x = _MARGIN + np.maximum(small, large - step_x)
    high_x = 1 - _MARGIN - np.maximum(small, large + step_x)
    low_y = _MARGIN + np.maximum(small, large - step_y)
    high_y = 1 - _MARGIN - np.maximum(small, large + step_y)
    small_x = low_x + draws.take(1) * (high_x - low_x)
    small_y = low_y + draws.take(1) * (high_y - low_y)
    x = [small_x + step_x, small_x]
    y = [small_y + step_y, small_y]
    for part in range(2, _PARTS):
        own = radius[:, part : part + 1]
        inset = _MARGIN + own
        tried_x = inset + draws.take(_PLACES) * (1 - 2 * inset)  # (n, places)
        tried_y = inset + draws.take(_PLACES) * (1 - 2 * inset)
        room = np.full_like(tried_x, np.inf)
        for other in range(part):
            distance = np.hypot(tried_x - x[other], tried_y - y[other])
            room = np.minimum(room, distance - radius[:, other : other + 1])
        best = room.argmax(axis=1)[:, None]
        x.append(np.take_along_axis(tried_x, best, axis=1))
        y.append(np.take_along_axis(tried_y, best, axis=1))
    return np.concatenate(x, axis=1).astype(np.float32), np.concatenate(y, axis=1).astype(np.float32)


def _background(draws: _Draws, size: int) -> _Reals:
    """(n, size, size, 3): a random colour that changes evenly in a random direction."""
    colour = draws.take(1, 1, 3, low=0.2, high=0.8)
    slope_x, slope_y = draws.take(1, 1, 3, low=-0.4, high=0.4), draws.take(1, 1, 3, low=-0.4, high=0.4)
    along = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    canvas = colour + slope_x * along[None, None, :, None] + slope_y * along[None, :, None, None]
    return canvas.astype(np.float32, copy=False)


def _paint(canvas: _Reals, scene: _Scene, size: int) -> None:
    """Lay the parts on the canvas; each pixel takes the texture of one part, so waves are computed once a pixel."""
    n = len(canvas)
    along = (np.arange(size, dtype=np.float32) + 0.5) / size
    depth = np.full((n, size, size), -1.0, dtype=np.float32)  # how far inside a part, negative outside
    owner = np.zeros((n, size, size), dtype=np.int64)
    # The pair is laid last: where there was no room, others are covered.
    for part in reversed(range(_PARTS)):
        dx = np.abs(along - scene.x[:, part, None])[:, None, :]
        dy = np.abs(along - scene.y[:, part, None])[:, :, None]
        # Squares and diamonds are about as large as discs of their radius.
        reach = np.choose(
            scene.outline[:, part, None, None],
            [np.hypot(dx, dy), np.maximum(dx, dy) * np.float32(1.13), (dx + dy) * np.float32(0.8)],
        )
        inside = scene.radius[:, part, None, None] - reach
        covered = (inside > -0.5 / size) & (scene.radius[:, part, None, None] > 0)
        depth = np.where(covered, inside, depth)
        owner = np.where(covered, part, owner)

    rows = np.arange(n)[:, None, None]
    # Cosine and sine times the frequency: how the two phases of a texture grow along the picture.
    across = (scene.frequency * np.cos(scene.angle))[rows, owner]
    down = (scene.frequency * np.sin(scene.angle))[rows, owner]
    phases = scene.phases[rows, owner]
    x, y = along[None, None, :], along[None, :, None]
    first = np.sin(2 * math.pi * (x * across + y * down + phases[..., 0]))
    second = np.sin(2 * math.pi * (y * across - x * down + phases[..., 1]))
    texture = scene.texture[rows, owner]
    checks, dots = 1.6 * first * second, first + second - 0.6
    wave = np.where(texture < 3, first, np.where(texture == 3, checks, dots))
    share = (0.5 + 0.5 * np.clip(wave * 2, -1, 1))[..., None]
    painted = scene.dark[rows, owner] + share * (scene.light - scene.dark)[rows, owner]
    edge = np.clip(depth * size + 0.5, 0, 1)[..., None]
    canvas += edge * (painted - canvas)
