"""From images of features to vectors, with gradients in the order of memory the features have.

Autograd hands back gradients in the order [B, C, H, W] here. Where the features lie in channels_last order, the ReLU
before has to combine two orders, which on a CPU takes four times as long as the same in one. The numbers are those of
`flatten(1)` and `mean(dim=(2, 3))`, bit for bit.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def flatten(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, C · H · W], channels outermost whatever the order of memory."""
    flat: Tensor = _Flatten.apply(x) if _matters(x) else x.flatten(1)
    return flat


def average(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, C], the mean over all positions."""
    mean: Tensor = _Average.apply(x) if _matters(x) else x.mean(dim=(2, 3))
    return mean


def _matters(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last)


class _Flatten(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.shape = x.shape
        batch, channels, height, width = x.shape
        return _transposed(x.permute(0, 2, 3, 1).reshape(batch, height * width, channels)).view(batch, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        batch, channels, height, width = ctx.shape
        pixels = _transposed(grad.reshape(batch, channels, height * width))
        return pixels.view(batch, height, width, channels).permute(0, 3, 1, 2)


class _Average(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.shape = x.shape
        return x.mean(dim=(2, 3))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        batch, channels, height, width = ctx.shape
        each = (grad / (height * width)).reshape(batch, 1, 1, channels)
        pixels: Tensor = each.expand(batch, height, width, channels).contiguous()
        return pixels.permute(0, 3, 1, 2)


def _transposed(x: Tensor) -> Tensor:
    """[B, n, m] -> [B, m, n], contiguous. One matrix at a time: torch transposes a single one in cache-sized tiles."""
    found = x.new_empty(x.shape[0], x.shape[2], x.shape[1])
    for to, matrix in zip(found, x, strict=True):
        to.copy_(matrix.t())
    return found
