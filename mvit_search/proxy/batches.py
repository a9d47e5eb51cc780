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

    Every random number comes from a generator on the CPU, so a seed gives the same batches on any device.
    `share` of the side of the images is what a network sees of them: they are scaled down at the end.
    """

    def __init__(self, data: ImageSet, recipe: Recipe, device: torch.device, share: float = 1.0) -> None:
        self._images, self._labels = _resident(data.train_images, data.train_labels, device)
        self._recipe, self._share = recipe, share
        sample = self._images[:: math.ceil(len(self._images) / _STATISTICS_IMAGES)].float().div_(255)
        self._mean = sample.mean(dim=(0, 2, 3), keepdim=True)
        self._std = sample.std(dim=(0, 2, 3), keepdim=True).clamp_min(1e-3)  # an image set of one colour

    @property
    def images_per_epoch(self) -> int:
        """Images that an epoch shows: whole batches; the few over are others every epoch.

        With several scales it is all of them, up to the last whole batch of the side that is drawn.
        """
        count = len(self._images)
        return count if self._recipe.scales else count // self._recipe.batch_size * self._recipe.batch_size

    def epoch(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass in random order: (images, labels) a batch."""
        order = torch.randperm(len(self._images), generator=generator)
        scales = self._recipe.scales
        start = 0
        while True:
            drawn = int(torch.randint(len(scales), (), generator=generator)) if scales else 0
            side = scales[drawn] if scales else self._recipe.image_size
            count = self._recipe.batch_at(side)
            if start + count > len(order):
                return
            yield self._batch(order[start : start + count], side, generator)
            start += count

    def recalibration(self, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
        """Random views of `recalibration_images` random training images, at most `batch_size` at once.

        The parts are of near-equal size: batch norm averages them evenly, so a short one would weigh too much.
        """
        chosen = torch.randperm(len(self._images), generator=generator)[: self._recipe.recalibration_images]
        for part in torch.tensor_split(chosen, max(1, math.ceil(len(chosen) / batch_size))):
            if len(part) > 1:  # batch norm has no variance over one
                yield self._batch(part, self._recipe.image_size, generator)[0]

    def held_out(self, data: ImageSet, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The held-out images as they are, normalised by the training images' statistics."""
        images, labels = _resident(data.val_images, data.val_labels, torch.device("cpu"))
        device = self._images.device
        for part, part_labels in zip(torch.split(images, batch_size), torch.split(labels, batch_size), strict=True):
            pixels = part.to(device).float().div_(255)
            yield self._normalised(pixels, self._recipe.image_size), part_labels.to(device)

    def _batch(self, chosen: Tensor, side: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = chosen.to(self._images.device)
        images = self._images[chosen].float().div_(255)
        return self._normalised(self._viewed(images, generator), side), self._labels[chosen]

    def _normalised(self, images: Tensor, side: int) -> Tensor:
        seen = max(_SMALLEST_SIDE, round(self._share * side)) if self._share < 1 else side
        if seen != images.shape[-1]:
            images = F.interpolate(images, size=(seen, seen), mode="bilinear", antialias=True)
        return images.sub(self._mean).div_(self._std).contiguous(memory_format=torch.channels_last)

    def _viewed(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Each image through a random affine window of its own."""
        recipe = self._recipe
        whole = recipe.area_low == recipe.area_high == 1 and recipe.max_aspect == 1 and not recipe.max_shift
        if whole and not recipe.max_rotation_degrees and not recipe.flip:
            return images
        turn, size, shape, right, down, mirror = torch.rand(6, len(images), generator=generator).unbind()
        angle = (2 * turn - 1) * math.radians(recipe.max_rotation_degrees)
        area = recipe.area_low + size * (recipe.area_high - recipe.area_low)
        stretch = torch.exp((shape - 0.5) * math.log(recipe.max_aspect))  # square root of width over height
        # Half the sides of the window, with the image from -1 to 1. A crop that is stretched stays inside.
        limit = max(1.0, math.sqrt(recipe.area_high))
        width, height = (area.sqrt() * stretch).clamp(max=limit), (area.sqrt() / stretch).clamp(max=limit)
        x = (2 * right - 1) * ((1 - width).clamp(min=0) + 2 * recipe.max_shift)
        y = (2 * down - 1) * ((1 - height).clamp(min=0) + 2 * recipe.max_shift)
        side = torch.where(mirror < 0.5, -1.0, 1.0) if recipe.flip else torch.ones_like(mirror)
        cos, sin = angle.cos(), angle.sin()
        matrix = torch.stack((cos * width * side, -sin * height, x, sin * width * side, cos * height, y), dim=1)
        grid = F.affine_grid(matrix.reshape(-1, 2, 3).to(images.device), list(images.shape), align_corners=False)
        # A crop that ends at the image's edge repeats its last half pixel, as resizing a crop does; no black line.
        inside = recipe.area_high <= 1 and not recipe.max_shift and not recipe.max_rotation_degrees
        padding = "border" if inside else "zeros"
        if inside and images.device.type == "mps":
            grid, padding = _clamped(grid, images.shape[-1]), "zeros"
        return F.grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=False)


def _clamped(grid: Tensor, side: int) -> Tensor:
    """What "border" does to a grid: no point beyond the outermost pixels' centres. Apple's GPUs have no "border"."""
    return grid.clamp(1 / side - 1, 1 - 1 / side)


def _resident(images: NDArray[np.uint8], labels: NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor]:
    """(N, H, W, 3) bytes as a (N, 3, H, W) tensor; on the CPU it shares the array's memory."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).to(device), torch.from_numpy(labels).to(device)
