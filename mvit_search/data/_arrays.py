"""`ArrayCatalogue`: a catalogue over pictures that are arrays in memory already."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mvit_search.data._base import Images, Labels
from mvit_search.data._catalogue import Side, Unreadable
from mvit_search.data._decoding import square, to_rgb

Pixels = NDArray[Any]


@dataclass(frozen=True, eq=False)
class ArrayCatalogue:
    """Pictures of any whole-number, truth or real type as they were stored; see `Catalogue`.

    Attributes:
        images: of every side (N, H, W), (N, H, W, 1), (N, H, W, 3) or (N, H, W, 4).
        scale: what a pixel is multiplied with to become 0..255.
    """

    class_names: tuple[str, ...]
    labels: Mapping[Side, Labels]
    description: str
    images: Mapping[Side, Pixels]
    scale: float = 1.0
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.blake2b(repr((self.class_names, self.scale)).encode(), digest_size=32)
        for side, images in self.images.items():
            digest.update(f"{side} {images.shape} {images.dtype}".encode())
            digest.update(np.ascontiguousarray(images).data)
            digest.update(np.ascontiguousarray(self.labels[side]).data)
        object.__setattr__(self, "fingerprint", digest.hexdigest())

    def pictures(self, side: Side, indices: NDArray[np.int64], size: int) -> Iterator[Images | Unreadable]:
        for index in indices:
            pixels = self.images[side][index]
            if pixels.dtype != np.uint8:
                # Half is added before the fraction is cut off: rounding to the nearest.
                pixels = (pixels.astype(np.float64) * self.scale + 0.5).astype(np.uint8)
            if pixels.ndim == 3 and pixels.shape[2] == 1:
                pixels = pixels[..., 0]
            yield square(to_rgb(Image.fromarray(np.ascontiguousarray(pixels))), size)
