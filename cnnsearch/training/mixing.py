"""Mixup and cutmix: training images that are made of two, drawn for a whole epoch at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cnnsearch.spec.settings import Settings
from cnnsearch.training.augment import inside
from cnnsearch.training.compute.device import derived_seed
from cnnsearch.training.compute.device_kinds import in_order


@dataclass(frozen=True)
class Mixing:
    """What each training image is mixed with in the current epoch, and how.

    Mixup (Zhang et al., arXiv:1710.09412) adds two images; cutmix (Yun et al., arXiv:1905.04899) puts a rectangle of
    one into the other. The share of the first is drawn from Beta(α, α). Where both are asked for, each image gets
    either with the same probability. All draws depend on the seed and the epoch alone, not on the batch size.
    """

    settings: Settings
    rows: Tensor
    """[n] int64, the training images among all N."""
    partner: Tensor
    """[N] int64: the row of the image that is mixed in."""
    share: Tensor
    """[N] float32, in [0, 1]: the part of the image that is its own."""
    box: Tensor
    """[N, 4] float32: top, left, bottom and right of the rectangle that is replaced, in pixels; empty for mixup."""

    @classmethod
    def of(cls, settings: Settings, rows: Tensor, images: int) -> Mixing | None:
        """Make room for what is drawn in an epoch, which `draw` then fills in; None where nothing is mixed.

        Args:
            settings: `mixup` and `cutmix` are α of each, 0 for none.
            rows: [n] int64, rows of the training images.
            images: N, the number of all images.
        """
        if not settings.mixup and not settings.cutmix:
            return None
        return cls(
            settings,
            rows,
            torch.zeros(images, dtype=torch.int64, device=rows.device),
            torch.ones(images, device=rows.device),
            torch.zeros(images, 4, device=rows.device),
        )

    def draw(self, epoch: int) -> None:
        """Draw for an epoch, in place: a recorded training step reads it from the same memory."""
        settings, n, side = self.settings, len(self.rows), self.settings.image_size
        rng = np.random.default_rng(derived_seed("mixing", settings.seed, epoch))
        order = torch.from_numpy(rng.permutation(n)).to(self.rows.device)
        self.partner[self.rows] = self.rows[order]
        is_cut = rng.random(n) < (0.5 if settings.mixup and settings.cutmix else float(settings.cutmix > 0))
        share = np.where(is_cut, _beta(rng, settings.cutmix, n), _beta(rng, settings.mixup, n))
        half = side * np.sqrt(1 - share) / 2
        centre = rng.uniform(0, side, (n, 2))
        low, high = (np.clip(np.rint(centre + sign * half[:, None]), 0, side) for sign in (-1, 1))
        box = np.where(is_cut[:, None], np.concatenate([low, high], axis=1), 0.0)
        share = np.where(is_cut, 1 - (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]) / side**2, share)
        self.share[self.rows] = torch.from_numpy(share.astype(np.float32)).to(self.share.device)
        self.box[self.rows] = torch.from_numpy(box.astype(np.float32)).to(self.box.device)

    def __call__(self, images: Tensor, others: Tensor, rows: Tensor) -> Tensor:
        """Mix a batch of images.

        Args:
            images: [B, 3, S, S] float32.
            others: [B, 3, S, S] float32, those at `partner[rows]`.
            rows: [B] int64, rows of the images among all N.

        Returns:
            [B, 3, S, S] in the order that their device takes them in.
        """
        box = self.box[rows]
        is_cut = (box[:, 2] > box[:, 0]) & (box[:, 3] > box[:, 1])
        share = torch.where(is_cut, 1.0, self.share[rows])[:, None, None, None]
        mixed = share * images + (1 - share) * others
        mixed = torch.where(inside(box, images.shape[-1]), others, mixed)
        return in_order(mixed)


def _beta(rng: np.random.Generator, alpha: float, n: int) -> np.ndarray:
    return rng.beta(alpha, alpha, n) if alpha else np.ones(n)
