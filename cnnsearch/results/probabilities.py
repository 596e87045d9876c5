"""The file with the probability of every class for every validation and test example, by a trial's best epoch.

It is kept where weights are kept, and where the sweep's metric takes probabilities: settings are compared by them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnnsearch.errors import ResultsError
from cnnsearch.results.arrays import read_arrays
from cnnsearch.storage.durable import write_whole
from cnnsearch.words import printable

MOST_BYTES = 8 * 2**30
"""Most bytes of the file."""

Probabilities = dict[str, NDArray[np.float32]]
"""Split -> [examples, classes]."""


def write(file: Path, probabilities: Mapping[str, NDArray[np.float32]]) -> None:
    """Write them: float32, so that scores computed from them are those that were recorded. Raises DiskError."""
    from safetensors.numpy import save

    arrays = {split: np.ascontiguousarray(found, dtype=np.float32) for split, found in probabilities.items()}
    write_whole(file, save(arrays), synced=False)


def read(file: Path) -> Probabilities:
    """Read what `write` wrote; {} where there is no file. Raises ResultsError for other content."""
    arrays = read_arrays(file, MOST_BYTES)
    for split, found in arrays.items():
        if split not in ("val", "test") or not _are_probabilities(found):
            raise ResultsError(f"{file} holds {printable(split)[:20]}, which is no probabilities of classes")
    return arrays


def _are_probabilities(found: NDArray[np.float32]) -> bool:
    return found.dtype == np.float32 and found.ndim == 2 and bool(((found >= 0) & (found <= 1 + 1e-3)).all())
