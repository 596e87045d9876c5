"""How an epoch is divided into batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def batches(order: Tensor, size: int, *, joins_last: bool) -> list[Tensor]:
    """Divide the rows of an epoch [n] int64 into batches of `size`; the last one may be smaller.

    With `joins_last`, a single row that is left over goes into the batch before it.
    """
    split = list(order.split(size))
    if joins_last and len(split) > 1 and len(split[-1]) == 1:
        split[-2:] = [order[-size - 1 :]]
    return split


def normalises_one_value(model: nn.Module, train_mode: Callable[[], object], inputs: tuple[Tensor, ...]) -> bool:
    """Whether a layer of batch normalisation would train on one value per channel, which it cannot normalise.

    That is so for one image whose maps are a single pixel. Nothing that training uses is changed by asking.

    Args:
        model: the part that runs in training; it is left in eval mode.
        train_mode: puts the layers that train into training mode.
        inputs: of a single example, each [1, ...].
    """
    found = False

    def look(layer: nn.Module, given: tuple[Any, ...]) -> None:
        nonlocal found
        found |= given[0].numel() == given[0].shape[1]

    train_mode()
    norms = [layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.training]
    if not norms:
        return False
    hooks = [layer.register_forward_pre_hook(look) for layer in norms]
    model.eval()
    try:
        with torch.no_grad():
            model(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found
