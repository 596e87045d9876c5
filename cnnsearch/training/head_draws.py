"""What is drawn for heads that train side by side: the order of the examples, and dropout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cnnsearch.spec.settings import Settings
from cnnsearch.training.compute.device import derived_seed

BLOCK_STEPS = 32
"""Steps whose logits are kept, so that losses and accuracies are computed for all of them in one call."""

_NOISE_LEVELS = 1 << 16
"""Values of one draw of dropout: four of them come from one 64-bit number of the generator."""


@dataclass
class Dropout:
    """Masks of the trials with dropout in one epoch, drawn step by step.

    Trials of one seed use the same noise, each against its own threshold: what they would draw from generators of their
    own. The probability is rounded to a multiple of 2⁻¹⁶ (and kept inputs are scaled by the rounded one, so that means
    are preserved): 16 bits a draw, cut from the generator's 64, take a seventh of the time of `bernoulli_`, which would
    take several times as long as the rest of a step.
    """

    generators: list[torch.Generator]
    """One for each distinct seed."""
    bits: Tensor
    """[G, W] int64, on the CPU like the next two: room for a full batch's draws of each generator."""
    noise: Tensor
    """[G, B, D] int16: the same memory."""
    which: Tensor
    """[k] int64: the generator of each trial."""
    threshold: Tensor
    """[k, 1, 1] float32: noise above it keeps an input."""
    scale: Tensor
    """[k, 1, 1] float32: one over the probability to keep."""
    mask: Tensor
    """[k, B, D] float32."""

    @classmethod
    def of(cls, settings: list[Settings], epoch: int, size: int, width: int, device: torch.device) -> Dropout | None:
        """For trials in the order of a bundle and batches [T, at most `size`, K]; None where no trial has dropout."""
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
        """Drop and scale the D inputs of the first k trials of a batch [T, B, K], in place; the bias has none."""
        for bits, generator in zip(self.bits, self.generators, strict=True):
            bits.random_(-(2**63), None, generator=generator)
        mask = self.mask.copy_(self.noise.index_select(0, self.which)).gt_(self.threshold).mul_(self.scale)
        trials, _, width = mask.shape
        batch[:trials, :, :width].mul_(mask[:, : batch.shape[1]])


def example_orders(settings: list[Settings], epoch: int, n: int) -> Tensor:
    """[T, n] int64: each trial's order of the training examples."""
    of_seed = {
        seed: torch.randperm(n, generator=torch.Generator().manual_seed(derived_seed("order", seed, epoch)))
        for seed in {s.seed for s in settings}
    }
    return torch.stack([of_seed[s.seed] for s in settings])


def blocks(order: Tensor, batch_size: int) -> Iterator[Tensor]:
    """Cut orders [T, n] into batches, given as blocks [S, T, B] of S steps; the rest is a smaller last batch."""
    trials, n = order.shape
    whole = n - n % batch_size
    for start in range(0, whole, BLOCK_STEPS * batch_size):
        block = order[:, start : min(start + BLOCK_STEPS * batch_size, whole)]
        yield block.view(trials, -1, batch_size).transpose(0, 1).contiguous()
    if whole < n:
        yield order[:, whole:].unsqueeze(0).contiguous()
