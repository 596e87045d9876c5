"""Folds as data.json describes them: which of its validation images each fold validates on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Fold(NamedTuple):
    """One fold of a results folder."""

    repeat: int
    """Counted from 0."""
    fold: int
    """Within its repeat, counted from 0."""
    validates: NDArray[np.int64]
    """Places of its images among `examples.val` of data.json, ascending."""


def fold_fingerprints(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the fingerprint of each fold, given what data.json says; none where images are split once."""
    return tuple((data.get("folds") or {}).get("fingerprints", ()))


def folds_of(data: Mapping[str, Any]) -> dict[str, Fold]:
    """Return each fold by its fingerprint, given what data.json says."""
    return dict(zip(fold_fingerprints(data), _folds(data), strict=False))


def _folds(data: Mapping[str, Any]) -> Iterator[Fold]:
    for repeat, dealt in enumerate((data.get("folds") or {}).get("dealt", ())):
        numbers = np.asarray(dealt, np.int64)
        for fold in range(int(numbers.max(initial=-1)) + 1):
            yield Fold(repeat, fold, np.flatnonzero(numbers == fold))
