"""3×3 convolutions whose gradient of wide weights is computed in blocks, in bf16 on a CPU with AMX."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from cnnsearch.training.compute.device import is_bf16_on_cpu

BLOCK = 256
"""Channels of a block, in and out. Its sums, 9 · 256² fp32 numbers, take about what the second-level cache of a core
holds (2 MiB on the CPUs that have AMX)."""
MOST_AT_ONCE = 9 * 512 * 512
"""With more weights than this, blocks are faster: `python -m benchmarks.convolutions` shows it."""


class Conv3x3(nn.Conv2d):
    """`nn.Conv2d` of kernel 3, stride 1 and padding 1, with the same parameters, initial values and results.

    oneDNN adds up the gradient of all of a layer's weights image after image, and where those sums no longer fit the
    cache it takes up to four times as long as the forward pass. Here it is asked for one block of channels at a time.
    What is added up, and in which order, stays the same, and so do the numbers, bit for bit.

    Shapes: [B, before, H, W] -> [B, after, H, W].
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if not _in_blocks(x, self.weight):
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            y: Tensor = _Blocked.apply(x.bfloat16(), self.weight, self.bias)
        return y


def _in_blocks(x: Tensor, weight: Tensor) -> bool:
    """Decided by what is computed and how, never by a timing. Several threads would cut the sums at other places."""
    return (
        weight.numel() > MOST_AT_ONCE
        and is_bf16_on_cpu(x)
        and torch.is_grad_enabled()
        and weight.requires_grad
        and weight.is_contiguous(memory_format=torch.channels_last)
        and torch.get_num_threads() == 1
        and has_amx()
    )


@functools.cache
def has_amx() -> bool:
    """Whether this CPU has matrix units. On others blocks gain nothing, and oneDNN's sums depend on the shape."""
    return bool(torch.cpu._is_amx_tile_supported())


class _Blocked(torch.autograd.Function):
    """A bf16 convolution with fp32 weights."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        rounded = weight.bfloat16()
        ctx.save_for_backward(x, rounded)
        return F.conv2d(x, rounded, bias.bfloat16(), padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        grad_x = gradients(x, grad, weight, [True, False, False])[0] if ctx.needs_input_grad[0] else None
        return grad_x, *weight_gradient(x, grad, weight.shape)


def weight_gradient(x: Tensor, grad: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Gradients of a convolution's weight and bias, block by block.

    Args:
        x: [B, before, H, W] bf16.
        grad: [B, after, H, W] bf16, of what the convolution gave.
        shape: of the weight, (after, before, 3, 3).

    Returns:
        [after, before, 3, 3] in channels_last order and [after], both fp32.
    """
    weights, biases = torch.empty(shape, memory_format=torch.channels_last), []
    inputs = [part.contiguous(memory_format=torch.channels_last) for part in x.split(BLOCK, dim=1)]
    for rows, grads in zip(weights.split(BLOCK), grad.split(BLOCK, dim=1), strict=True):
        grads = grads.contiguous(memory_format=torch.channels_last)
        for block, part in zip(rows.split(BLOCK, dim=1), inputs, strict=True):
            anything = torch.empty(block.shape, dtype=x.dtype, memory_format=torch.channels_last)  # isn't read
            _, found, bias = gradients(part, grads, anything, [False, True, True])
            block.copy_(found)
        biases.append(bias)
    return weights, torch.cat(biases).float()


def gradients(x: Tensor, grad: Tensor, weight: Tensor, wanted: list[bool]) -> tuple[Tensor, Tensor, Tensor]:
    """Those wanted of a 3×3 convolution's gradients, as oneDNN computes them: of its input, weight and bias."""
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        grad, x, weight, [len(weight)], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, wanted
    )
    return found
