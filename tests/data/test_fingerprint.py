"""The fingerprint follows contents, classes and split, and nothing else."""

from __future__ import annotations

import hashlib
import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cnnsearch.data.fingerprint import fingerprint

CLASSES = ("cat", "dog")
LABELS = np.array([0, 1, 0, 1])
DIGESTS = ["a", "b", "c", "d"]
INDICES = {"train": np.array([0, 1]), "val": np.array([2]), "test": np.array([3])}
MARK = fingerprint(CLASSES, LABELS, DIGESTS, INDICES)


def test_golden() -> None:
    text = '{"classes":["cat","dog"],"splits":{"test":[[1,"d"]],"train":[[0,"a"],[1,"b"]],"val":[[0,"c"]]}}'
    assert json.loads(text)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == MARK


def test_everything_in_it_counts() -> None:
    others = {
        fingerprint(("cat", "emu"), LABELS, DIGESTS, INDICES),
        fingerprint(CLASSES, LABELS[::-1], DIGESTS, INDICES),
        fingerprint(CLASSES, LABELS, ["a", "b", "c", "e"], INDICES),
        fingerprint(CLASSES, LABELS, DIGESTS, {**INDICES, "train": np.array([1, 0])}),
        fingerprint(CLASSES, LABELS, DIGESTS, {**INDICES, "val": np.array([3]), "test": np.array([2])}),
    }
    assert len(others | {MARK}) == 6


@given(st.permutations(range(4)))
def test_where_rows_are_stored_does_not_count(order: list[int]) -> None:
    place = {row: new for new, row in enumerate(order)}
    moved = {split: np.array([place[int(row)] for row in rows]) for split, rows in INDICES.items()}
    assert fingerprint(CLASSES, LABELS[order], [DIGESTS[row] for row in order], dict(reversed(moved.items()))) == MARK
