"""Columns of words as numbers: a table of predictions has millions of rows and few different words."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def coded(column: pd.Series[Any]) -> tuple[NDArray[np.integer[Any]], list[str]]:
    """Return a code for each row of a column of words, -1 for an empty one, and the words that the codes stand for."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        codes: NDArray[np.integer[Any]] = column.cat.codes.to_numpy()
        words = column.cat.categories
        used = set(np.unique(codes).tolist())
        if len(words) == len(used - {-1}):
            return codes, [str(word) for word in words]
    factorized, unique = pd.factorize(column)
    return np.asarray(factorized), [str(word) for word in unique]


def places(column: pd.Series[Any], words: Sequence[str], dtype: Any = np.int16) -> NDArray[Any]:
    """Return the index of each value in `words`, -1 for a value that is not among them."""
    codes, unique = coded(column)
    found: NDArray[Any] = np.append(pd.Index(words).get_indexer(pd.Index(unique, dtype=object)), -1).astype(dtype)
    taken: NDArray[Any] = found[codes]
    return taken


def runs(frame: pd.DataFrame) -> Iterator[tuple[tuple[str, str, str], slice | NDArray[np.intp]]]:
    """Yield each (trial_id, split, moment) with its rows: a slice if they are adjacent, else their row numbers."""
    columns = [coded(frame[name]) for name in ("trial_id", "split", "moment")]
    if not len(frame):
        return
    changes = np.zeros(len(frame) - 1, dtype=bool)
    for codes, _ in columns:
        changes |= codes[1:] != codes[:-1]
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1, [len(frame)]])
    runs: dict[tuple[int, ...], list[slice]] = {}
    for start, end in itertools.pairwise(starts.tolist()):
        runs.setdefault(tuple(int(codes[start]) for codes, _ in columns), []).append(slice(start, end))
    for key, slices in runs.items():
        trial_id, split, moment = (words[code] for code, (_, words) in zip(key, columns, strict=True))
        whole = slices[0] if len(slices) == 1 else np.concatenate([np.arange(s.start, s.stop) for s in slices])
        yield (trial_id, split, moment), whole
