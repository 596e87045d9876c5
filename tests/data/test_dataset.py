"""What identifies a data set, what people are warned of, and pictures of it."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st
from PIL import Image

from cnnsearch.data import load
from cnnsearch.data.dataset import contradictions, fingerprint, imbalance, leakage, png
from cnnsearch.spec.data import DataSpec

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


NAMES = ["t0", "t1", "v0", "v1", "e0", "e1"]
PAIRS = {"train": np.array([0, 1]), "val": np.array([2, 3]), "test": np.array([4, 5])}


def test_different_images_do_not_leak() -> None:
    assert leakage(NAMES, list("abcdef"), PAIRS) == ()
    assert leakage(NAMES, list("aabbcc"), PAIRS) == ()


def test_leakage_is_counted_with_an_example() -> None:
    assert leakage(NAMES, list("abbaea"), PAIRS) == (
        "3 images of validation and test are also in training, byte for byte: accuracy there is too high. "
        "For example v0 (validation) is t1 (training).",
    )
    assert leakage(NAMES, list("abcdbf"), PAIRS) == (
        "1 image of test is also in training, byte for byte: accuracy there is too high. "
        "For example e0 (test) is t1 (training).",
    )


def test_identical_images_of_two_classes_are_said() -> None:
    labels = np.array([0, 0, 1, 1, 0, 1])
    assert contradictions(NAMES, labels, list("aabbcd"), ("cat", "dog")) == ()
    assert contradictions(NAMES, labels, list("abacde"), ("cat", "dog")) == (
        '1 image is identical to one of another class, for example t0 ("cat") and v0 ("dog").',
    )


def test_uneven_classes_are_said_from_three_times_on() -> None:
    labels = np.repeat([0, 1], [2, 5])
    assert imbalance(labels, {"train": np.arange(7)}, ("cat", "dog")) == ()
    labels = np.repeat([0, 1], [2, 6])
    assert imbalance(labels, {"train": np.arange(8), "test": np.arange(1, 3)}, ("cat", "dog")) == (
        'Classes are uneven in training: from 2 images ("cat") to 6 ("dog").',
    )
    assert imbalance(labels[:0], {"train": np.arange(0)}, ("cat", "dog")) == ()  # a split without images


def test_a_picture_is_the_decoded_image_and_at_most_64_wide(tmp_path: Path) -> None:
    data = load(DataSpec(), [32, 100], cache=tmp_path)
    small = Image.open(io.BytesIO(png(data[32], 7)))
    assert small.format == "PNG"
    assert np.array_equal(np.asarray(small), data[32].images[7])
    assert Image.open(io.BytesIO(png(data[100], 7))).size == (64, 64)


def test_rows_outside_are_refused(tmp_path: Path) -> None:
    data = load(DataSpec(), [8], cache=tmp_path)[8]
    for row in (-1, 1700):
        with pytest.raises(IndexError, match="of 1700"):
            png(data, row)
