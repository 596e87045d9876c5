"""3×3 convolutions that compute the gradient of wide weights in blocks: faster in bf16 on a CPU with AMX."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from cnnsearch.training.compute.device import is_bf16_on_cpu

BLOCK = 256
"""Input and output channels of a block. Its sums, 9 · 256² fp32 numbers, about fill the second-level cache of a core
(2 MiB on the CPUs that have AMX)."""
MOST_AT_ONCE = 9 * 512 * 512
"""Most weights that are not split into blocks. With more, blocks are faster: `python -m benchmarks.convolutions`."""


class Conv3x3(nn.Conv2d):
    """`nn.Conv2d` of kernel 3, stride 1 and padding 1, with the same parameters, initial values and results.

    oneDNN adds up the gradient of all of a layer's weights image by image. If those sums do not fit the cache, that
    takes up to four times as long as the forward pass. Here oneDNN computes one block of channels at a time. The same
    numbers are added in the same order, so the results are the same bit for bit.

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
    """Whether to compute in blocks. Decided by what is computed and how, never by a timing.

    Only on one thread: several would divide the sums at other places.
    """
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
    """Whether this CPU has matrix units. Without them blocks gain nothing, and oneDNN's sums depend on the shape."""
    return bool(torch.cpu._is_amx_tile_supported())


class _Blocked(torch.autograd.Function):
    """Autograd function of a convolution that computes the gradient of its weights in blocks of channels.

    It computes in bf16; the weights and their gradients are fp32.
    """

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
    """Compute the gradients of a convolution's weight and bias, block by block.

    Args:
        x: [B, before, H, W] bf16.
        grad: [B, after, H, W] bf16, gradient of the convolution's output.
        shape: shape of the weight, (after, before, 3, 3).

    Returns:
        [after, before, 3, 3] in channels_last order and [after], both fp32.
    """
    weights, biases = torch.empty(shape, memory_format=torch.channels_last), []
    inputs = [part.contiguous(memory_format=torch.channels_last) for part in x.split(BLOCK, dim=1)]
    for rows, grads in zip(weights.split(BLOCK), grad.split(BLOCK, dim=1), strict=True):
        grads = grads.contiguous(memory_format=torch.channels_last)
        for block, part in zip(rows.split(BLOCK, dim=1), inputs, strict=True):
            anything = torch.empty(block.shape, dtype=x.dtype, memory_format=torch.channels_last)  # not read
            _, found, bias = gradients(part, grads, anything, [False, True, True])
            block.copy_(found)
        biases.append(bias)
    return weights, torch.cat(biases).float()


def gradients(x: Tensor, grad: Tensor, weight: Tensor, wanted: list[bool]) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of a 3×3 convolution with oneDNN.

    Args:
        x: [B, before, H, W] input.
        grad: [B, after, H, W] gradient of the output.
        weight: [after, before, 3, 3].
        wanted: whether to compute the gradient of the input, of the weight, and of the bias.

    Returns:
        The three gradients; those that are not wanted are None.
    """
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        grad, x, weight, [len(weight)], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, wanted
    )
    return found
