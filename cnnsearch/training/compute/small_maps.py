"""Convolutions over small maps on a CPU: wide ones as one matrix product, and a workaround for a fault in oneDNN."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from cnnsearch.training.compute.convolution import has_amx
from cnnsearch.training.compute.device import is_bf16_on_cpu

MOST_POSITIONS = {torch.bfloat16: 64, torch.float32: 16}
"""Dtype -> positions of the output map up to which a product is faster. `python -m benchmarks.small_maps` shows the
measurements for this and for the constants below."""
FEWEST_WEIGHTS = 2**19
"""Weights from which a product is faster for a layer that trains in bf16: its gradient gains most. In fp32, or if only
outputs are wanted, it takes twice as many. A frozen layer in fp32 would gain too, but its outputs are the
same bit for bit in batches of any size, and must stay so."""
MOST_ROWS = 16_384
"""Output positions in a batch up to which a product is used, so that patches of a large batch do not fill memory."""
MOST_KEPT = 2**23
"""Numbers up to which a layer's patches are kept for its gradient; larger patches are written out again."""
CHANNELS = 32
"""Channels must be a multiple of this: oneDNN fills up other inner dimensions with whatever lies behind them."""


class SmallMapConv2d(nn.Conv2d):
    """`nn.Conv2d` with the same parameters and, but for the last bit of a number, the same results.

    oneDNN's convolutions put positions of one row of a map into a matrix unit, sixteen at a time. In a map that is four
    wide most of the unit stays idle: a weight gradient of 512 × 512 channels runs at a tenth of the possible rate, and
    in fp32, on vector units, at half of it. Here the patches under the kernel are written out as the left side of a
    matrix product, for which rows of the map do not matter.

    Besides, oneDNN 3.12 leaves part of a weight gradient unset in bf16 if a map is narrower than the stride, as in the
    last stage of a ResNet-18 for images of 16×16. Such a layer is computed in fp32.

    Shapes: [B, C, H, W] -> [B, K, Ho, Wo].
    """

    @classmethod
    def of(cls, layer: nn.Conv2d) -> SmallMapConv2d:
        """Make a layer that shares the parameters of another."""
        names = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
        facts: dict[str, Any] = {name: getattr(layer, name) for name in names}
        facts |= {"bias": layer.bias is not None, "device": "meta"}
        made = cls(layer.in_channels, layer.out_channels, **facts)
        made.weight, made.bias = layer.weight, layer.bias
        return made

    def forward(self, x: Tensor) -> Tensor:
        if is_bf16_on_cpu(x) and x.shape[3] < self.stride[1]:
            with torch.autocast("cpu", enabled=False):
                return super().forward(x.float()).bfloat16()
        if not self.gains(x):
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            y: Tensor = _Product.apply(x.to(_computed_in(x)), self.weight, self)
            return y if self.bias is None else y + self.bias.to(y.dtype)[:, None, None]

    def gains(self, x: Tensor) -> bool:
        """Whether this input is computed as a product. Decided by what is computed and how, never by a timing."""
        if (dtype := _computed_in(x)) is None or not _is_plain(self):
            return False
        in_order = torch.channels_last
        if not (x.is_contiguous(memory_format=in_order) and self.weight.is_contiguous(memory_format=in_order)):
            return False
        trains = torch.is_grad_enabled() and self.weight.requires_grad
        if not trains and dtype == torch.float32:
            return False
        positions = math.prod(self.map_size(x))
        enough = self.weight.numel() >= FEWEST_WEIGHTS * (1 if trains and dtype == torch.bfloat16 else 2)
        return enough and positions <= MOST_POSITIONS[dtype] and len(x) * positions <= MOST_ROWS

    def map_size(self, x: Tensor) -> tuple[int, int]:
        """Return height and width of the output."""
        sides = zip(x.shape[2:], self.kernel_size, self.stride, _padding(self), strict=True)
        height, width = ((side + 2 * pad - kernel) // stride + 1 for side, kernel, stride, pad in sides)
        return height, width


def for_small_maps(model: nn.Module) -> None:
    """Replace, in a model, the convolutions that can gain from `SmallMapConv2d`. Names and parameters stay the same."""
    for module in list(model.modules()):
        for name, layer in list(module.named_children()):
            if type(layer) is nn.Conv2d and (layer.stride[1] > 1 or (_is_plain(layer) and _is_wide(layer))):
                setattr(module, name, SmallMapConv2d.of(layer))


def _computed_in(x: Tensor) -> torch.dtype | None:
    """Return the dtype that a convolution of this input computes in; None if a product cannot be faster."""
    if is_bf16_on_cpu(x):
        return torch.bfloat16 if has_amx() else None
    plain = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return torch.float32 if plain and has_vectors() else None


@functools.cache
def has_vectors() -> bool:
    """Whether this CPU has the vector units that fp32 was measured on."""
    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


def _is_plain(layer: nn.Conv2d) -> bool:
    """Whether a product can compute this convolution."""
    even = layer.in_channels % CHANNELS == 0 and layer.out_channels % CHANNELS == 0
    once = layer.groups == 1 and layer.dilation == (1, 1)
    return even and once and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


def _is_wide(layer: nn.Conv2d) -> bool:
    return layer.weight.numel() >= FEWEST_WEIGHTS


class _Product(torch.autograd.Function):
    """Autograd function of a convolution without bias, computed as a matrix product of patches and weights.

    It computes in the dtype of the input; the weights and their gradient are fp32.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, layer: SmallMapConv2d) -> Tensor:
        rounded = weight.to(x.dtype)
        found = patches(x, weight.shape[2:], layer.stride, _padding(layer))
        ctx.patches_kept = found.numel() <= MOST_KEPT
        ctx.save_for_backward(found if ctx.patches_kept else x, rounded)
        ctx.layer, ctx.shape = layer, x.shape
        return convolve(found, rounded)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        kept, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        grad_x = input_gradient(ctx.shape, grad, weight, ctx.layer) if ctx.needs_input_grad[0] else None
        grad_weight = None
        if ctx.needs_input_grad[1]:
            kernel, layer = weight.shape[2:], ctx.layer
            found = kept if ctx.patches_kept else patches(kept, kernel, layer.stride, _padding(layer))
            grad_weight = weight_gradient(found, grad)
        return grad_x, grad_weight, None


def convolve(found: Tensor, weight: Tensor) -> Tensor:
    """Multiply patches by weights of the same dtype.

    Args:
        found: patches [B, Ho, Wo, h, w, C].
        weight: [K, C, h, w] in channels_last order.

    Returns:
        [B, K, Ho, Wo] in channels_last order.
    """
    matrix = weight.permute(0, 2, 3, 1).flatten(1)  # [K, h · w · C], the same memory
    return _as_map(_as_rows(found) @ matrix.t(), found)


def weight_gradient(found: Tensor, grad: Tensor) -> Tensor:
    """Compute the gradient of the weight, [K, C, h, w] fp32 in channels_last order.

    Args:
        found: patches [B, Ho, Wo, h, w, C].
        grad: [B, K, Ho, Wo] gradient of the output, in channels_last order.
    """
    # Made contiguous, since a product with a transposed left side runs at half the rate.
    matrix = grad.permute(0, 2, 3, 1).flatten(0, 2).t().contiguous() @ _as_rows(found)
    return matrix.float().view(len(matrix), *found.shape[3:]).permute(0, 3, 1, 2)


def input_gradient(shape: torch.Size, grad: Tensor, weight: Tensor, layer: nn.Conv2d) -> Tensor:
    """Compute the gradient of the input, [B, C, H, W].

    It is the sum of the gradients of the patches; in bf16 at stride 1 it is computed as a convolution with the kernel
    turned by 180° instead. Turning the kernel takes a seventh of a step in fp32. In bf16 the kernel has half as many
    bytes, and the gradients of patches would be rounded before they are added.

    Args:
        shape: of the input.
        grad: [B, K, Ho, Wo] gradient of the output, in channels_last order.
        weight: [K, C, h, w] in channels_last order, in the dtype of `grad`.
        layer: says stride and padding.
    """
    if layer.stride != (1, 1) or weight.dtype == torch.float32:
        rows = grad.permute(0, 2, 3, 1)
        products = rows.flatten(0, 2) @ weight.permute(0, 2, 3, 1).flatten(1)
        return fold(products.view(*rows.shape[:3], *weight.shape[2:], -1), shape, layer.stride, _padding(layer))
    padding = [side - 1 - pad for side, pad in zip(weight.shape[2:], _padding(layer), strict=True)]
    found = patches(grad, weight.shape[2:], (1, 1), padding)
    turned = weight.flip(2, 3).permute(2, 3, 0, 1).flatten(0, 2)  # [h · w · K, C]
    return _as_map(_as_rows(found) @ turned, found)


def _padding(layer: nn.Conv2d) -> tuple[int, ...]:
    assert not isinstance(layer.padding, str)
    return layer.padding


def patches(x: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]) -> Tensor:
    """Write out what is under the kernel at each position: [B, C, H, W] -> [B, Ho, Wo, h, w, C], contiguous."""
    high, wide = padding
    image = F.pad(x.permute(0, 2, 3, 1), (0, 0, wide, wide, high, high))
    windows = image.unfold(1, kernel[0], stride[0]).unfold(2, kernel[1], stride[1])  # [B, Ho, Wo, C, h, w]
    return windows.permute(0, 1, 2, 4, 5, 3).contiguous()


def fold(found: Tensor, shape: torch.Size, stride: Sequence[int], padding: Sequence[int]) -> Tensor:
    """Add up, in fp32, what `patches` took from the same place: [B, Ho, Wo, h, w, C] -> [B, C, H, W] of that dtype."""
    batch, channels, height, width = shape
    high, wide = padding
    total = torch.zeros(batch, height + 2 * high, width + 2 * wide, channels)
    for row in range(found.shape[3]):
        for column in range(found.shape[4]):
            reached = total[:, row :: stride[0], column :: stride[1]]
            reached[:, : found.shape[1], : found.shape[2]].add_(found[:, :, :, row, column])
    inner = total[:, high : high + height, wide : wide + width].to(found.dtype)
    return inner.contiguous().permute(0, 3, 1, 2)


def _as_rows(found: Tensor) -> Tensor:
    """Patches [B, Ho, Wo, h, w, C] as rows [B · Ho · Wo, h · w · C]."""
    return found.flatten(3).flatten(0, 2)


def _as_map(rows: Tensor, found: Tensor) -> Tensor:
    """Rows [B · Ho · Wo, K] as a map [B, K, Ho, Wo]; `found` says its shape."""
    return rows.view(*found.shape[:3], -1).permute(0, 3, 1, 2)
