"""Sums in float64 of what devices compute in float32, also where a device has no float64."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnnsearch.training.compute.device_kinds import DEVICES


class Total:
    """A sum of numbers as a device computes them, without waiting for the device.

    It is kept on the device. Where that has no float64, the numbers themselves are kept there, and the processor sums
    them when it is asked: four bytes for each number until then.
    """

    def __init__(self, device: str, *shape: int) -> None:
        """Begin with 0.

        Args:
            device: where the numbers are computed.
            shape: of the sum; without it, a single number.
        """
        self._dims = len(shape)
        self._kept: list[Tensor] = []
        self._sum = torch.zeros(shape, dtype=torch.float64, device=device) if DEVICES[device].has_float64 else None
        self._none = np.zeros(shape)

    def clear(self) -> None:
        """Begin anew with 0, in place: a recorded training step adds to the same memory."""
        self._kept.clear()
        if self._sum is not None:
            self._sum.zero_()

    def add(self, numbers: Tensor) -> None:
        """Add numbers [*shape], or the sums of numbers [*shape, n] over the last dimension; float32.

        They must not be changed in place afterwards.
        """
        if self._sum is None:
            self._kept.append(numbers)
        elif numbers.dim() == self._dims:
            self._sum.add_(numbers)
        else:
            self._sum.add_(numbers.sum(dim=-1, dtype=torch.float64))

    @property
    def value(self) -> NDArray[np.float64]:
        """[*shape] the sum; waits for the device."""
        if self._sum is not None:
            return self._sum.cpu().numpy().copy()
        if not self._kept:
            return self._none.copy()
        if self._kept[0].dim() == self._dims:
            each = torch.stack(self._kept).cpu().numpy().astype(np.float64)
        else:
            each = np.stack([some.cpu().numpy().sum(axis=-1, dtype=np.float64) for some in self._kept])
        return np.asarray(each.cumsum(axis=0)[-1])  # one after another, as a device adds them
