"""The images that a score looks at: plain training images, normalised."""

import math

import numpy as np
import torch
from torch.nn import functional as F

from mvit_search.data import ImageSet
from mvit_search.errors import InputError
from mvit_search.proxy.zero_cost._base import Batch

BATCH_SIZE = 64
"""Images of a batch, as by default in the program of arXiv 2101.08134."""

_STATISTICS_IMAGES = 1000
_SMALLEST_SIDE = 8


def plain_batches(data: ImageSet, count: int, *, seed: int, device: torch.device, share: float = 1.0) -> list[Batch]:
    """`count` disjoint batches of distinct training images, drawn by `seed`, without any random view.

    Channels are normalised by the training images' statistics. `share` of the images' side is what a network sees.
    Small data give smaller batches.

    Raises:
        InputError: fewer than two images for each batch.
    """
    total = len(data.train_images)
    size = min(BATCH_SIZE, total // count)
    if size < 2:
        raise InputError("data", data.name, f"has {total} training images, too few to score networks by", "add images")
    chosen = np.random.default_rng(seed).permutation(total)[: count * size]
    sample = data.train_images[:: math.ceil(total / _STATISTICS_IMAGES)].reshape(-1, 3) / 255.0
    mean, std = sample.mean(axis=0), np.maximum(sample.std(axis=0), 1e-3)  # an image set of one colour
    pixels = (data.train_images[chosen] / 255.0 - mean) / std
    images = torch.from_numpy(pixels.astype(np.float32)).permute(0, 3, 1, 2)
    side = max(_SMALLEST_SIDE, round(share * data.image_size))
    if side < data.image_size:
        images = F.interpolate(images, size=(side, side), mode="bilinear", antialias=True)
    images = images.to(device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.from_numpy(np.asarray(data.train_labels[chosen])).to(device)
    return list(zip(torch.split(images, size), torch.split(labels, size), strict=True))
