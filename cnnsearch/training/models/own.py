"""This package's own models: the plain CNN and the residual CNN."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, fx, nn

from cnnsearch.training.compute.convolution import Conv3x3
from cnnsearch.training.compute.layout import average
from cnnsearch.training.compute.linear import LongLinear

CHANNELS = (32, 64, 128, 256, 512, 1024)
"""Channels of the stem and of the five layers or blocks after it, in both models at width 1."""


class Plain(nn.Module):
    """conv, max-pool, then five convs each with ReLU, then one linear layer over every position.

    From a course assignment on CNN image classification: six 3×3 convs, no normalisation. As there, the second conv
    follows the pool directly. Dropout is before the second conv. The linear layer's inputs are in the order [H, W, C],
    as the features are in memory; any other order would mean a copy at every step.

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
    """Return a number of channels times the width multiplier, rounded, at least one."""
    return max(1, round(channels * width))


fx.wrap("average")  # one node in a traced graph


class Block(nn.Module):
    """conv-BN-[dropout]-ReLU-conv-BN plus a shortcut, then ReLU (He et al., arXiv:1512.03385, figure 2; stride 1).

    The shortcut is a 1×1 conv-BN where the width changes, else the identity.

    Shapes: [B, before, H, W] -> [B, after, H, W].
    """

    def __init__(self, before: int, after: int, dropout: float) -> None:
        super().__init__()
        self.conv1 = Conv3x3(before, after)
        self.bn1 = nn.BatchNorm2d(after)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.conv2 = Conv3x3(after, after)
        self.bn2 = nn.BatchNorm2d(after)
        self.shortcut = (
            nn.Identity() if before == after else nn.Sequential(nn.Conv2d(before, after, 1), nn.BatchNorm2d(after))
        )

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.dropout(self.bn1(self.conv1(x))))
        out = self.bn2(self.conv2(out))
        return torch.relu(out + self.shortcut(x))


class Residual(nn.Module):
    """conv-BN-[dropout]-ReLU, max-pool, five residual blocks, global average pool, one linear layer.

    From the same course assignment, after He et al., arXiv:1512.03385. Dropout follows the first conv-BN of the network
    and of every block.

    Shapes: images [B, 3, S, S] float, S ≥ 2 -> logits [B, classes].
    """

    def __init__(self, classes: int, *, width: float = 1.0, dropout: float = 0.0) -> None:
        super().__init__()
        channels = [scaled(count, width) for count in CHANNELS]
        self.stem = nn.Conv2d(3, channels[0], 3, padding=1)
        self.bn = nn.BatchNorm2d(channels[0])
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.pool = nn.MaxPool2d(2, 2)
        self.blocks = nn.Sequential(*(Block(before, after, dropout) for before, after in pairwise(channels)))
        self.head = nn.Linear(channels[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.pool(torch.relu(self.dropout(self.bn(self.stem(images)))))
        x = self.blocks(x)
        return cast(Tensor, self.head(average(x)))
