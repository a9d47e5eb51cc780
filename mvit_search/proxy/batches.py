"""Batches out of resident `uint8` images: order, random views, normalisation."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mvit_search.data import ImageSet
from mvit_search.proxy.recipe import Recipe

_STATISTICS_IMAGES = 1000
_SMALLEST_SIDE = 8


class Batches:
    """Turns images of an `ImageSet` into network inputs on `device`, (B, 3, H, W) channels-last.

    Every random number comes from `generator`, on the CPU, so a seed gives the same batches on any device.
    `share` of the side of the images is what a network sees of them: they are scaled down at the end.
    """

    def __init__(
        self, data: ImageSet, recipe: Recipe, device: torch.device, generator: torch.Generator, share: float = 1.0
    ) -> None:
        side = max(_SMALLEST_SIDE, round(share * data.image_size))
        self._side = side if side < data.image_size else None
        self._images, self._labels = _resident(data.train_images, data.train_labels, device)
        self._recipe = recipe
        self._generator = generator
        sample = self._images[:: math.ceil(len(self._images) / _STATISTICS_IMAGES)].float().div_(255)
        self._mean = sample.mean(dim=(0, 2, 3), keepdim=True)
        self._std = sample.std(dim=(0, 2, 3), keepdim=True).clamp_min(1e-3)  # an image set of one colour

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches; the few images over are others every epoch."""
        return len(self._images) // self._recipe.batch_size

    def epoch(self) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass in random order: (images, labels) a batch."""
        order = torch.randperm(len(self._images), generator=self._generator)
        for step in range(self.steps_per_epoch):
            chosen = order[step * self._recipe.batch_size : (step + 1) * self._recipe.batch_size]
            yield self._batch(chosen)

    def recalibration(self, batch_size: int) -> Iterator[Tensor]:
        """Random views of `recalibration_images` random training images, at most `batch_size` at once.

        The parts are of near-equal size: batch norm averages them evenly, so a short one would weigh too much.
        """
        chosen = torch.randperm(len(self._images), generator=self._generator)[: self._recipe.recalibration_images]
        for part in torch.tensor_split(chosen, max(1, math.ceil(len(chosen) / batch_size))):
            if len(part) > 1:  # batch norm has no variance over one
                yield self._batch(part)[0]

    def held_out(self, data: ImageSet, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The held-out images as they are, normalised by the training images' statistics."""
        images, labels = _resident(data.val_images, data.val_labels, self._images.device)
        for part, part_labels in zip(torch.split(images, batch_size), torch.split(labels, batch_size), strict=True):
            yield self._normalised(part.float().div_(255)), part_labels

    def _batch(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        chosen = chosen.to(self._images.device)
        images = self._images[chosen].float().div_(255)
        return self._normalised(self._viewed(images)), self._labels[chosen]

    def _normalised(self, images: Tensor) -> Tensor:
        if self._side is not None:
            images = F.interpolate(images, size=(self._side, self._side), mode="bilinear", antialias=True)
        return images.sub(self._mean).div_(self._std).contiguous(memory_format=torch.channels_last)

    def _viewed(self, images: Tensor) -> Tensor:
        """Each image through a random affine window of its own."""
        recipe = self._recipe
        still = recipe.view_low == recipe.view_high == 1 and not recipe.max_shift and not recipe.max_rotation_degrees
        if still and not recipe.flip:
            return images
        turn, view, right, down, mirror = torch.rand(5, len(images), generator=self._generator).unbind()
        angle = (2 * turn - 1) * math.radians(recipe.max_rotation_degrees)
        scale = recipe.view_low + view * (recipe.view_high - recipe.view_low)
        side = torch.where(mirror < 0.5, -1.0, 1.0) if recipe.flip else torch.ones_like(mirror)
        cos, sin = scale * angle.cos(), scale * angle.sin()
        # Coordinates run from -1 to 1, so a share of the side counts twice.
        x, y = (2 * recipe.max_shift * (2 * share - 1) for share in (right, down))
        matrix = torch.stack((cos * side, -sin, x, sin * side, cos, y), dim=1).reshape(-1, 2, 3)  # (B, 2, 3)
        grid = F.affine_grid(matrix.to(images.device), list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _resident(images: NDArray[np.uint8], labels: NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor]:
    """(N, H, W, 3) bytes as a (N, 3, H, W) tensor; on the CPU it shares the array's memory."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).to(device), torch.from_numpy(labels).to(device)
