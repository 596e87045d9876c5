"""Images as tensors: from the shared uint8 file to normalised batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cnnsearch.data.ahead import ReadAhead
from cnnsearch.data.dataset import Dataset
from cnnsearch.training.compute.device_kinds import in_order

_CHUNK = 1024
"""Images whose sums are computed at a time, to save memory."""


@dataclass(frozen=True)
class Pixels:
    """The images of a data set as tensors on a device, uint8 until a batch is taken.

    On a CPU `images` maps the data set's file, of which all processes share one copy.
    """

    images: Tensor
    """[N, S, S, 3] uint8."""
    labels: Tensor
    """[N] int64."""
    rows: dict[str, Tensor]
    """Split name -> [n] int64 rows of that split."""
    mean: Tensor
    """[3] float32 mean of each channel, in 0–255."""
    std: Tensor
    """[3] float32 standard deviation of each channel, in 0–255."""
    reader: ReadAhead | None = None
    """Reads images that are not in memory before they are used."""

    @classmethod
    def of(
        cls, dataset: Dataset, device: str, statistics: tuple[Sequence[float], Sequence[float]] | None = None
    ) -> Pixels:
        """Put a data set on a device.

        Args:
            dataset: its pixels are mapped, and copied only to a GPU.
            device: cpu, cuda, xpu or mps.
            statistics: (mean, standard deviation) of each channel in 0–255 to normalise by; by default those of the
                data set's training images.
        """
        mean, std = statistics or channel_statistics(dataset)
        return cls(
            torch.from_numpy(dataset.images).to(device),
            # Copied: in a worker these lie in Ray's store and are read-only, and torch would log a warning of that.
            torch.tensor(dataset.labels, device=device),
            {split: torch.tensor(rows, device=device) for split, rows in dataset.indices.items()},
            torch.tensor(mean, dtype=torch.float32, device=device),
            torch.tensor(std, dtype=torch.float32, device=device),
            ReadAhead.of(dataset.images) if device == "cpu" else None,
        )

    @classmethod
    def shared(
        cls, dataset: Dataset, device: str, statistics: tuple[Sequence[float], Sequence[float]] | None = None
    ) -> Pixels:
        """Like `of`, but made once and kept for all trials of this process."""
        key = (dataset.images_path, dataset.fingerprint, device, statistics)
        if key not in _SHARED:
            made = cls.of(dataset, device, statistics)
            same = (other for known, other in _SHARED.items() if known[0] == dataset.images_path and known[2] == device)
            images = next((other.images for other in same), made.images)  # those of another fold
            _SHARED[key] = replace(made, images=images)
        return _SHARED[key]

    @property
    def numbers(self) -> int:
        """How many numbers one image has."""
        return self.images[0].numel()

    @property
    def device(self) -> str:
        """cpu, cuda, xpu or mps."""
        return self.images.device.type

    def ahead(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """See `features.Examples`."""
        return iter(batches) if self.reader is None else self.reader.through(batches, Tensor.numpy)

    def batch(self, rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Take a batch; see `features.Examples`.

        Args:
            rows: [B] int64.

        Returns:
            Normalised images [B, 3, S, S] float32, as the one input; and labels [B] int64.
        """
        return (normalised(self.images[rows], self.mean, self.std),), self.labels[rows]


_SHARED: dict[tuple[object, ...], Pixels] = {}


def normalised(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Make the inputs of a network of decoded images.

    Args:
        images: [B, S, S, 3] uint8.
        mean: [3] float32 mean of each channel, in 0–255.
        std: [3] float32 standard deviation of each channel, in 0–255.

    Returns:
        [B, 3, S, S] float32, in the order that their device takes them in.
    """
    return in_order(images.float().sub_(mean).div_(std).permute(0, 3, 1, 2))


def channel_statistics(dataset: Dataset) -> tuple[list[float], list[float]]:
    """Compute mean and standard deviation of each channel over the training images, in 0–255, from exact integer sums.

    A standard deviation is at least 1.
    """
    rows = dataset.indices["train"]
    total, squares = np.zeros(3, np.int64), np.zeros(3, np.int64)
    for start in range(0, len(rows), _CHUNK):
        pixels = dataset.images[rows[start : start + _CHUNK]].reshape(-1, 3)
        total += pixels.sum(axis=0, dtype=np.int64)
        squares += (pixels.astype(np.uint16) ** 2).sum(axis=0, dtype=np.int64)
    count = len(rows) * dataset.image_size**2
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 1.0))
    return mean.tolist(), std.tolist()
