"""`Catalogue`: what a data source tells before a picture is decoded, and how the chosen ones are had.

A source is one function `(argument, seed) -> Catalogue` in a file of its own. Choosing, splitting, decoding once
into the cache, counting what cannot be read and the `ImageSet` are the same for all sources (`_preparing.py`).
"""

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mvit_search.data._base import Images, Labels

Side = Literal["train", "val"]


class Unreadable(NamedTuple):
    """A picture that could not be decoded: which (a path, `archive.tar:member`, `train[17]`), and why."""

    name: str
    reason: str


class Catalogue(Protocol):
    """Labelled pictures of one source, in a fixed order; listing them decodes none.

    Attributes:
        class_names: at least one name; labels are indices into it.
        labels: those of "train", and of "val" where the source has a split of its own (validation, else test).
            Without "val", a fifth of every class is held out by the caller's seed.
        description: a few words for people: "image folder with train/ and test/".
        fingerprint: changes whenever the content may have changed; cheap: names, sizes and modification times of
            files, or a digest of arrays that are in memory anyway; and the seed, where it draws the pictures. Part
            of the cache's key. Empty: not worth caching.
    """

    # Read only, so that a frozen dataclass or a named tuple is one.
    @property
    def class_names(self) -> tuple[str, ...]: ...

    @property
    def labels(self) -> Mapping[Side, Labels]: ...

    @property
    def description(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    def pictures(self, side: Side, indices: NDArray[np.int64], size: int) -> Iterator[Images | Unreadable]:
        """The pictures at `indices` (ascending), in that order, each (size, size, 3) RGB or `Unreadable`."""
        ...
