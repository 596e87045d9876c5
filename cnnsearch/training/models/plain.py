"""The plain CNN: six 3×3 convolutions and one linear layer."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from cnnsearch.training.compute.convolution import Conv3x3
from cnnsearch.training.compute.linear import LongLinear

CHANNELS = (32, 64, 128, 256, 512, 1024)


class Plain(nn.Module):
    """conv, max-pool, then five convs each with ReLU, then one linear layer over every position.

    The second conv follows the pool directly, as in the course assignment this architecture comes from. Dropout
    stands before the second conv. The linear layer's inputs are in the order [H, W, C], as the features lie in memory:
    any other would have to be made at every step.

    Shapes: images [B, 3, S, S] float, S ≥ 2 -> logits [B, classes].
    """

    def __init__(self, classes: int, *, image_size: int, width: float = 1.0, dropout: float = 0.0) -> None:
        super().__init__()
        channels = [scaled(count, width) for count in CHANNELS]
        self.stem = nn.Conv2d(3, channels[0], 3, padding=1)
        self.pool = nn.MaxPool2d(2, 2)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.convs = nn.ModuleList(Conv3x3(before, after) for before, after in pairwise(channels))
        side = image_size // 2
        self.head = LongLinear(channels[-1] * side * side, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.dropout(self.pool(self.stem(images)))
        for conv in self.convs:
            x = torch.relu(conv(x))
        return cast(Tensor, self.head(x.permute(0, 2, 3, 1).flatten(1)))


def scaled(channels: int, width: float) -> int:
    """A number of channels times the width multiplier, at least one."""
    return max(1, round(channels * width))
