"""1,700 images of Fashion-MNIST, small enough to ship: 10 classes of 170 greyscale images, 28×28.

`make.py` makes the file; README.md says where the images come from and what the file hashes to.
"""

from __future__ import annotations

import functools
import io
import lzma
from importlib import resources

import numpy as np
from numpy.typing import NDArray

FILE = "images.npy.xz"
"""An xz-compressed .npy, uint8 [10, 170, 28, 28]: class, example, row, column."""

CLASSES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle-boot",
)
"""Class names in the order of Fashion-MNIST's labels, spelt so that they can be folder names."""

TRAIN_PER_CLASS, VAL_PER_CLASS, TEST_PER_CLASS = 50, 20, 100
"""Images of each class, in file order: the first two from the official training set, the last from the test set."""


@functools.cache
def images() -> NDArray[np.uint8]:
    """Return all images, uint8 [10, 170, 28, 28], classes in the order of `CLASSES`. They cannot be written to."""
    packed = resources.files(__name__).joinpath(FILE).read_bytes()
    array: NDArray[np.uint8] = np.load(io.BytesIO(lzma.decompress(packed)), allow_pickle=False)
    array.flags.writeable = False
    return array
