"""Random changes of training images: drawn for a whole epoch, made on whole batches where the images are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from cnnsearch.spec.settings import Settings
from cnnsearch.training.compute.device import derived_seed

CROP = 1 / 8
"""Most that `flip+crop` shifts an image, in parts of its side: 4 of 32 pixels, as is usual for CIFAR-10."""
STRONGEST = 10
"""Of `rand-1` to `rand-10`."""
MOST_DEGREES, MOST_SHEAR, MOST_SHIFT, MOST_COLOUR = 30.0, 0.3, 0.33, 0.9
"""At that strength, after Cubuk et al., RandAugment, arXiv:1909.13719, table 6; shift in parts of the side, brightness
in deviations of a pixel, contrast as a factor's distance from 1."""
KINDS = 7
"""Rotation; shear and shift, each along both axes; brightness; contrast."""
CHANGES = 2
"""Kinds made of each image by `rand-N`, without one another's knowledge."""


@dataclass(frozen=True)
class Augmentation:
    """What an epoch does to each image. What is done to one depends on its row, the seed and the epoch alone, so trials
    of one seed see the same images whatever their batch size."""

    settings: Settings
    flip: Tensor
    """[N] bool: mirrored left to right."""
    affine: Tensor | None
    """[N, 2, 3] float32, as `torch.nn.functional.affine_grid` takes them; None where nothing moves."""
    colour: Tensor | None
    """[N, 2] float32: contrast, then brightness."""

    @classmethod
    def of(cls, settings: Settings, images: int, device: str) -> Augmentation | None:
        """For so many images; None where there is nothing to do. `draw` says what."""
        if settings.augment == "none":
            return None
        moves, colours = settings.augment != "flip", settings.augment.startswith("rand-")
        return cls(
            settings,
            torch.zeros(images, dtype=torch.bool, device=device),
            torch.zeros(images, 2, 3, device=device) if moves else None,
            torch.zeros(images, 2, device=device) if colours else None,
        )

    def draw(self, epoch: int) -> None:
        """Draw an epoch's changes, in place: a recorded step finds them where they were."""
        settings = self.settings
        generator = torch.Generator().manual_seed(derived_seed("augment", settings.seed, epoch))
        n = len(self.flip)
        self.flip.copy_(torch.rand(n, generator=generator) < 0.5)
        if self.affine is None:
            return
        if self.colour is None:
            pixels = round(CROP * settings.image_size)
            shift = torch.randint(-pixels, pixels + 1, (n, 2), generator=generator) / settings.image_size
            self.affine.copy_(_affine(torch.zeros(n), torch.zeros(n, 2), shift))
            return
        strength = int(settings.augment.removeprefix("rand-")) / STRONGEST
        amounts = torch.zeros(n, KINDS)
        for _ in range(CHANGES):
            kind = torch.randint(KINDS, (n, 1), generator=generator)
            amounts.scatter_(1, kind, strength * (2 * torch.rand(n, 1, generator=generator) - 1))
        angle, shear, shift, brightness, contrast = amounts.split([1, 2, 2, 1, 1], dim=1)
        radians = math.radians(MOST_DEGREES) * angle[:, 0]
        self.affine.copy_(_affine(radians, MOST_SHEAR * shear, MOST_SHIFT * shift))
        self.colour.copy_(torch.cat([1 + MOST_COLOUR * contrast, MOST_COLOUR * brightness], dim=1))

    def __call__(self, images: Tensor, rows: Tensor) -> Tensor:
        """Changed images, in channels_last order; what comes in from outside an image is its mean colour, 0.

        Args:
            images: [B, 3, S, S] normalised.
            rows: [B] int64, of the images among all.
        """
        images = torch.where(self.flip[rows][:, None, None, None], images.flip(-1), images)
        if self.affine is not None:
            grid = F.affine_grid(self.affine[rows], list(images.shape), align_corners=False)
            images = F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)
        if self.colour is not None:
            contrast, brightness = self.colour[rows][:, :, None, None, None].unbind(1)
            mean = images.mean(dim=(1, 2, 3), keepdim=True)
            images = (images - mean) * contrast + mean + brightness
        return images.contiguous(memory_format=torch.channels_last)


def _affine(radians: Tensor, shear: Tensor, shift: Tensor) -> Tensor:
    """[n, 2, 3]: from places in the changed image to places in the original.

    Args:
        radians: [n] rotation.
        shear: [n, 2] along x and y.
        shift: [n, 2] along x and y, in parts of the side.
    """
    cos, sin = radians.cos(), radians.sin()
    rotation = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
    sheared = torch.eye(2).repeat(len(radians), 1, 1)
    sheared[:, 0, 1], sheared[:, 1, 0] = shear[:, 0], shear[:, 1]
    return torch.cat([rotation @ sheared, 2 * shift[:, :, None]], dim=2)
