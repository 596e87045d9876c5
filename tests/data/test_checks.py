"""Warnings about leakage, contradictions and imbalance, in words."""

from __future__ import annotations

import numpy as np

from cnnsearch.data.checks import contradictions, imbalance, leakage

NAMES = ["t0", "t1", "v0", "v1", "e0", "e1"]
INDICES = {"train": np.array([0, 1]), "val": np.array([2, 3]), "test": np.array([4, 5])}


def test_different_images_do_not_leak() -> None:
    assert leakage(NAMES, list("abcdef"), INDICES) == ()
    assert leakage(NAMES, list("aabbcc"), INDICES) == ()


def test_leakage_is_counted_with_an_example() -> None:
    assert leakage(NAMES, list("abbaea"), INDICES) == (
        "3 images of validation and test are also in training, byte for byte: accuracy there is too high. "
        "For example v0 (validation) is t1 (training).",
    )
    assert leakage(NAMES, list("abcdbf"), INDICES) == (
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
