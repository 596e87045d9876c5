"""k-fold cross-validation: a test set apart, and the other images dealt into folds, once for every repeat.

Fold number i of a data set is fold i modulo k of repeat i // k. In it the images of that fold validate, and those of
the other folds of the same repeat train.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cnnsearch.data.groups import deal_groups
from cnnsearch.errors import DataError
from cnnsearch.spec.data import FoldsSplit
from cnnsearch.words import plural, printable, shortened

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Folds:
    """How the images that do not test are dealt."""

    split: FoldsSplit
    classes: tuple[str, ...]
    rows: Rows
    """[n] rows of the images that are dealt, ascending."""
    labels: Rows
    """[n] label of each."""
    groups: Rows | None = None
    """[n] group of each; None if there are no groups."""
    whole: str = ""
    """Fingerprint of all images, and of which of them test."""
    _dealt: dict[int, Rows] = field(default_factory=dict, compare=False, repr=False)

    def dealt(self, repeat: int) -> Rows:
        """Return the fold of each image in a repeat, [n], 0 to k − 1. Raises DataError as `deal`."""
        if repeat not in self._dealt:
            self._dealt[repeat] = deal(self.labels, self.classes, self.split, repeat, self.groups)
        return self._dealt[repeat]

    def _validates(self, index: int) -> NDArray[np.bool_]:
        repeat, fold = divmod(index, self.split.k)
        return np.asarray(self.dealt(repeat) == fold)

    def parts(self, index: int) -> tuple[Rows, Rows]:
        """Return the rows that train and those that validate in a fold."""
        validates = self._validates(index)
        return self.rows[~validates], self.rows[validates]

    def validation_images(self, fingerprint: str) -> int:
        """Return the number of images that validate in the fold with a fingerprint."""
        return int(self._validates(self.fingerprints.index(fingerprint)).sum())

    def fingerprint(self, index: int) -> str:
        """Return what identifies a fold, whatever k, the seed and its number: which images train and which validate."""
        marks = np.packbits(self._validates(index)).tobytes()
        return hashlib.sha256(f"{self.whole} {marks.hex()}".encode()).hexdigest()[:16]

    @cached_property
    def fingerprints(self) -> tuple[str, ...]:
        """Those of all folds."""
        return tuple(self.fingerprint(index) for index in range(self.split.count))


def keep_apart(labels: Rows, classes: Sequence[str], split: FoldsSplit, groups: Rows | None = None) -> dict[str, Rows]:
    """Choose the test images: "train" are then all others, which are dealt into folds.

    Args:
        labels: [N] label of each row, an index into `classes`.
        classes: class names.
        split: says how many of each class test.
        groups: [N] group of each row; None if there are no groups. Groups stay together.

    Raises:
        DataError: a class has too few images.
    """
    if split.test >= 1 and split.test != int(split.test):
        raise DataError(
            f"data.split.test is {split.test}; give a fraction below 1, or a whole number of images a class."
        )
    sizes = np.bincount(labels, minlength=len(classes))
    testing = np.array([int(split.test) if split.test >= 1 else max(1, _half_up(split.test * n)) for n in sizes])
    short = [
        f'class "{printable(name)}" has {plural(int(has), "image")}; the split needs {test + split.k:,} '
        f"({split.k:,} folds + {plural(int(test), 'test image')})."
        for name, has, test in zip(classes, sizes, testing, strict=True)
        if has < test + split.k
    ]
    if short:
        raise DataError("\n".join(shortened(short, "class")))
    if groups is not None:
        return deal_groups(labels, classes, groups, {"train": sizes - testing, "test": testing}, split.seed)
    chosen = [
        np.random.default_rng([split.seed, label]).permutation(np.flatnonzero(labels == label))[:test]
        for label, test in enumerate(testing)
    ]
    rows = np.sort(np.concatenate(chosen)).astype(np.int64)
    return {"train": np.setdiff1d(np.arange(len(labels), dtype=np.int64), rows), "test": rows}


def deal(labels: Rows, classes: Sequence[str], split: FoldsSplit, repeat: int, groups: Rows | None = None) -> Rows:
    """Deal images into k folds, each with its share of every class.

    Every class is shuffled by itself and dealt in turn, each beginning where the one before has ended, so that the
    sizes of two folds differ by one image at most. Groups go to one fold as a whole, which makes sizes approximate.

    Args:
        labels: [n] label of each image.
        classes: class names.
        split: says into how many folds; its seed and the number of the repeat decide how.
        repeat: counted from 0.
        groups: [n] group of each image; None if there are no groups.

    Returns:
        [n] fold of each image, 0 to k − 1.

    Raises:
        DataError: a class would have no image in some fold.
    """
    folds = np.empty(len(labels), np.int64)
    sizes = np.bincount(labels, minlength=len(classes))
    if groups is None:
        if (sizes < split.k).any():
            name, has = classes[int(sizes.argmin())], int(sizes.min())
            raise DataError(f'class "{printable(name)}" has {plural(has, "image")} for {split.k:,} folds.')
        start = 0
        for label, size in enumerate(sizes.tolist()):
            shuffled = np.random.default_rng([split.seed, label, 1 + repeat]).permutation(
                np.flatnonzero(labels == label)
            )
            folds[shuffled] = (start + np.arange(size)) % split.k
            start = (start + size) % split.k
        return folds
    shares = {f"fold {fold + 1}": sizes / split.k for fold in range(split.k)}
    dealt = deal_groups(labels, classes, groups, shares, [split.seed, 1 + repeat])
    for fold, rows in enumerate(dealt.values()):
        folds[rows] = fold
    return folds


def _half_up(amount: float) -> int:
    return math.floor(amount + 0.5)
