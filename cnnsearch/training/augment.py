"""Random changes of training images: drawn for a whole epoch at once, applied to whole batches on their device."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from cnnsearch.spec.settings import Settings
from cnnsearch.training.compute.device import derived_seed
from cnnsearch.training.compute.device_kinds import in_order

CROP = 1 / 8
"""Largest shift of `flip+crop`, as a fraction of the image's side: 4 of 32 pixels, as is usual for CIFAR-10."""
STRONGEST = 10
"""N of the strongest `rand-N`; the weakest is `rand-1`."""
MOST_DEGREES, MOST_SHEAR, MOST_SHIFT, MOST_COLOUR = 30.0, 0.3, 0.33, 0.9
"""Largest changes at the strongest N, after Cubuk et al., RandAugment, arXiv:1909.13719, table 6. Rotation in
degrees, shift as a fraction of the side, brightness in standard deviations of a pixel, contrast as a factor's distance
from 1."""
KINDS = 7
"""Kinds of change of `rand-N`: rotation, shear along each axis, shift along each axis, brightness, contrast."""
ERASED = (0.02, 1 / 3)
"""Least and most area of the rectangle that `erasing` replaces, as a share of the image, after Zhong et al., Random
Erasing Data Augmentation, arXiv:1708.04896."""
MOST_ELONGATED = 3.3
"""Most times that it may be as long as it is wide; after the same."""
CHANGES = 2
"""Changes that `rand-N` draws for each image, independently: if both are of one kind, the second replaces the first."""


@dataclass(frozen=True)
class Augmentation:
    """How each image is changed in the current epoch.

    The change depends on the image's row, the seed and the epoch alone, so trials of one seed see the same images
    whatever their batch size.
    """

    settings: Settings
    flip: Tensor
    """[N] bool: whether an image is mirrored left to right."""
    affine: Tensor | None
    """[N, 2, 3] float32, as `torch.nn.functional.affine_grid` takes them; None if images are not moved."""
    colour: Tensor | None
    """[N, 2] float32: contrast, then brightness; None if colours stay."""
    erased: Tensor | None = None
    """[N, 4] float32: top, left, bottom and right of a rectangle that becomes the mean colour, in pixels, empty where
    there is none; None if no image has one."""

    @classmethod
    def of(cls, settings: Settings, images: int, device: str) -> Augmentation | None:
        """Make room for the changes of an epoch, which `draw` then fills in.

        Args:
            settings: `augment` says which changes are made, `seed` and `image_size` how.
            images: N, the number of all images.
            device: where the images are.

        Returns:
            None if `augment` is none and nothing is erased.
        """
        if settings.augment == "none" and not settings.erasing:
            return None
        moves, colours = settings.augment not in ("none", "flip"), settings.augment.startswith("rand-")
        return cls(
            settings,
            torch.zeros(images, dtype=torch.bool, device=device),
            torch.zeros(images, 2, 3, device=device) if moves else None,
            torch.zeros(images, 2, device=device) if colours else None,
            torch.zeros(images, 4, device=device) if settings.erasing else None,
        )

    def draw(self, epoch: int) -> None:
        """Draw the changes of an epoch, in place: a recorded training step reads them from the same memory."""
        settings = self.settings
        if self.erased is not None:
            self.erased.copy_(_erased(settings, len(self.flip), epoch))
        if settings.augment == "none":
            return
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
        """Change a batch of images. Pixels that come from outside an image are 0, the mean colour.

        Args:
            images: [B, 3, S, S] float32, normalised.
            rows: [B] int64, rows of these images among all N.

        Returns:
            [B, 3, S, S] in the order that their device takes them in.
        """
        images = torch.where(self.flip[rows][:, None, None, None], images.flip(-1), images)
        if self.affine is not None:
            grid = F.affine_grid(self.affine[rows], list(images.shape), align_corners=False)
            images = F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)
        if self.colour is not None:
            contrast, brightness = self.colour[rows][:, :, None, None, None].unbind(1)
            mean = images.mean(dim=(1, 2, 3), keepdim=True)
            images = (images - mean) * contrast + mean + brightness
        if self.erased is not None:
            images = images.masked_fill(inside(self.erased[rows], images.shape[-1]), 0.0)
        return in_order(images)


def inside(boxes: Tensor, side: int) -> Tensor:
    """Return which pixels lie in rectangles.

    Args:
        boxes: [B, 4] top, left, bottom and right, in pixels.
        side: S of the images.

    Returns:
        [B, 1, S, S] bool.
    """
    at = torch.arange(side, device=boxes.device)
    top, left, bottom, right = boxes[:, :, None].unbind(1)
    rows, columns = (at >= top) & (at < bottom), (at >= left) & (at < right)
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def _erased(settings: Settings, n: int, epoch: int) -> Tensor:
    """Draw the rectangles [n, 4] of an epoch that are erased; most are empty."""
    generator = torch.Generator().manual_seed(derived_seed("erasing", settings.seed, epoch))
    is_erased = torch.rand(n, generator=generator) < settings.erasing
    area = ERASED[0] + (ERASED[1] - ERASED[0]) * torch.rand(n, generator=generator)
    ratio = MOST_ELONGATED ** (2 * torch.rand(n, generator=generator) - 1)
    size = settings.image_size * torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], dim=1).clamp(max=1)
    size = size.round()
    low = ((settings.image_size - size) * torch.rand(n, 2, generator=generator)).round()
    return torch.cat([low, low + size], dim=1) * is_erased[:, None]


def _affine(radians: Tensor, shear: Tensor, shift: Tensor) -> Tensor:
    """Return maps [n, 2, 3] from positions in the changed image to positions in the original.

    Args:
        radians: [n] rotation.
        shear: [n, 2] along x and y.
        shift: [n, 2] along x and y, as a fraction of the side.
    """
    cos, sin = radians.cos(), radians.sin()
    rotation = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
    sheared = torch.eye(2).repeat(len(radians), 1, 1)
    sheared[:, 0, 1], sheared[:, 1, 0] = shear[:, 0], shear[:, 1]
    return torch.cat([rotation @ sheared, 2 * shift[:, :, None]], dim=2)
