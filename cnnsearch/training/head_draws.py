"""Random draws for heads that train side by side: the order of the examples, and dropout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cnnsearch.spec.settings import Settings
from cnnsearch.training.compute.device import derived_seed

BLOCK_STEPS = 32
"""Steps whose logits are kept, so that one call computes losses and accuracies for all of them."""

_NOISE_LEVELS = 1 << 16
"""Possible values of one draw of dropout. One 64-bit number of the generator gives four draws."""


@dataclass
class Dropout:
    """Dropout masks for one epoch of the trials that have dropout, drawn step by step.

    Trials of one seed compare the same noise with their own thresholds, which is what each would draw from a generator
    of its own. Dropout's probability is rounded to a multiple of 2⁻¹⁶, and kept inputs are scaled by the rounded one,
    so that means are preserved. A draw takes 16 of the generator's 64 bits: that is seven times faster than
    `bernoulli_`, which would take several times as long as the rest of a step.
    """

    generators: list[torch.Generator]
    """[G] one for each distinct seed."""
    bits: Tensor
    """[G, W] int64, on the CPU like the next two: each generator's draws for a full batch."""
    noise: Tensor
    """[G, B, D] int16: the same memory, one number per input."""
    which: Tensor
    """[k] int64: index of each trial's generator."""
    threshold: Tensor
    """[k, 1, 1] float32: an input is kept if its noise is above it."""
    scale: Tensor
    """[k, 1, 1] float32: 1 / probability that an input is kept."""
    mask: Tensor
    """[k, B, D] float32: 0 for dropped inputs, `scale` for the others."""

    @classmethod
    def of(cls, settings: list[Settings], epoch: int, size: int, width: int, device: torch.device) -> Dropout | None:
        """Seed the draws of an epoch.

        Args:
            settings: of the trials in a bundle, those with dropout first.
            epoch: number of the epoch.
            size: B, examples in a full batch.
            width: D, inputs of an example, without the one for the bias.
            device: where the batches are.

        Returns:
            None if no trial has dropout.
        """
        dropped = [s for s in settings if s.dropout > 0]
        if not dropped:
            return None
        seeds = list(dict.fromkeys(s.seed for s in dropped))
        bits = torch.empty(len(seeds), -(-size * width // 4), dtype=torch.int64)
        levels = torch.tensor([min(round(s.dropout * _NOISE_LEVELS), _NOISE_LEVELS - 1) for s in dropped])
        lowest = torch.iinfo(torch.int16).min
        return cls(
            [torch.Generator().manual_seed(derived_seed("dropout", seed, epoch)) for seed in seeds],
            bits,
            bits.view(torch.int16)[:, : size * width].view(-1, size, width),
            torch.tensor([seeds.index(s.seed) for s in dropped]),
            (levels + (lowest - 1)).float()[:, None, None].to(device),
            (_NOISE_LEVELS / (_NOISE_LEVELS - levels)).float()[:, None, None].to(device),
            torch.empty(len(dropped), size, width, device=device),
        )

    def apply(self, batch: Tensor) -> None:
        """Drop and scale the D inputs of the first k trials in a batch [T, B, K], in place; not those for the bias."""
        for bits, generator in zip(self.bits, self.generators, strict=True):
            bits.random_(-(2**63), None, generator=generator)
        mask = self.mask.copy_(self.noise.index_select(0, self.which)).gt_(self.threshold).mul_(self.scale)
        trials, _, width = mask.shape
        batch[:trials, :, :width].mul_(mask[:, : batch.shape[1]])


def example_orders(settings: list[Settings], epoch: int, n: int) -> Tensor:
    """Draw each trial's order of the n training examples in an epoch: [T, n] int64."""
    of_seed = {
        seed: torch.randperm(n, generator=torch.Generator().manual_seed(derived_seed("order", seed, epoch)))
        for seed in {s.seed for s in settings}
    }
    return torch.stack([of_seed[s.seed] for s in settings])


def blocks(order: Tensor, batch_size: int) -> Iterator[Tensor]:
    """Cut orders [T, n] into batches, and yield those in blocks [S, T, B] of up to `BLOCK_STEPS` steps.

    What is left at the end is a block of one smaller batch.
    """
    trials, n = order.shape
    whole = n - n % batch_size
    for start in range(0, whole, BLOCK_STEPS * batch_size):
        block = order[:, start : min(start + BLOCK_STEPS * batch_size, whole)]
        yield block.view(trials, -1, batch_size).transpose(0, 1).contiguous()
    if whole < n:
        yield order[:, whole:].unsqueeze(0).contiguous()
