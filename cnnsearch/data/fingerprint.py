"""What makes two data sets the same data."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cnnsearch.storage.checksums import canonical_json


def fingerprint(
    classes: Sequence[str],
    labels: NDArray[np.int64],
    digests: Sequence[str],
    indices: Mapping[str, NDArray[np.int64]],
) -> str:
    """The first 16 hex digits of the SHA-256 over classes and, per split in row order, labels and contents.

    Paths, file names and image size do not count; the order within a split does.

    Args:
        classes: class names.
        labels: [N] label of each example.
        digests: [N] SHA-256 of each example's contents, hex.
        indices: split name -> rows of that split.
    """
    facts = {
        "classes": list(classes),
        "splits": {split: [[int(labels[row]), digests[row]] for row in rows] for split, rows in indices.items()},
    }
    return hashlib.sha256(canonical_json(facts).encode()).hexdigest()[:16]
