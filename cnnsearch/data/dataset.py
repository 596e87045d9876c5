"""A decoded data set: labels and splits in memory, pixels memory-mapped from one file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnnsearch.data.images import Interpolation

SPLITS = ("train", "val", "test")

Form = tuple[int, Interpolation]
"""Side of the square images, pixels; and how they were resized to it."""


@dataclass(frozen=True)
class Dataset:
    """Images of one size with their labels and split.

    All trials of a node share one copy: pixels stay in `images_path`, which every process maps. Pickling carries
    the path, never the pixels.
    """

    source: str
    """What the user asked for, for people to read."""
    image_size: int
    """Side of the square images, pixels."""
    classes: tuple[str, ...]
    """Class names; a label is an index into them."""
    names: tuple[str, ...]
    """[N] name of each example: its path inside the source, or its index."""
    labels: NDArray[np.int64]
    """[N] label of each example."""
    indices: Mapping[str, NDArray[np.int64]]
    """Split name -> rows of that split, in training order before shuffling."""
    images_path: Path
    """A .npy file, uint8 [N, image_size, image_size, 3], RGB."""
    fingerprint: str
    """16 hex digits over contents, classes and split; not paths and not image size."""
    warnings: tuple[str, ...] = ()
    """Sentences people should read: skipped images, unused images, imbalance."""

    @cached_property
    def images(self) -> NDArray[np.uint8]:
        """[N, S, S, 3] uint8, mapped copy-on-write: shared between processes as long as nobody writes."""
        mapped: NDArray[np.uint8] = np.load(self.images_path, mmap_mode="c")
        return mapped

    def counts(self, split: str) -> list[int]:
        """Images of each class in a split, in the order of `classes`."""
        counted: list[int] = np.bincount(self.labels[self.indices[split]], minlength=len(self.classes)).tolist()
        return counted

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in self.__dict__.items() if key != "images"}
