"""A linear layer over very many features that avoids a fault in oneDNN."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnnsearch.training.compute.device import is_bf16_on_cpu

PIECE = 16_384
"""Features that are multiplied at once, where more could end the process."""
FEW = 4_194_304
"""Numbers in the input (batch × features) below which a whole product could end the process: it did at 3 · 2^19."""


class LongLinear(nn.Linear):
    """`nn.Linear` with the same parameters and initial values.

    oneDNN 3.12 ends the process with SIGFPE for a bf16 product whose left side has 49,152 columns or more and fills one
    and a half times a core's second-level cache, as a last batch of 6 images does in `plain` at 32×32. Such products
    are computed in pieces that are added in fp32. Larger ones, which are most of those in training, are computed whole.

    Shapes: [B, in_features] -> [B, out_features].
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.in_features <= 2 * PIECE or not is_bf16_on_cpu(x) or x.numel() >= FEW:
            return super().forward(x)
        parts = zip(x.split(PIECE, dim=1), self.weight.split(PIECE, dim=1), strict=True)
        return torch.stack([F.linear(part, weight) for part, weight in parts]).float().sum(0) + self.bias
