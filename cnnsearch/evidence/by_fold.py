"""Means and differences over the folds of a cross-validation.

Every fold has a score from its own validation images, so the spread of the scores holds the luck of the images, of the
seed and of what was trained on. But the folds train on almost the same images, so their scores are alike, and the naive
variance of their mean, s² / J, is too small. Nadeau and Bengio (2003, Mach. Learn. 52:239) correct it to
(1 / J + n_val / n_train) s²; of k folds n_val / n_train is 1 / (k − 1), and with repeats J counts all of them
(Bouckaert and Frank 2004, PAKDD). Two settings are compared fold by fold: what is hard about a fold is so for both.

Of few images the folds may by luck agree. So s² is taken to be at least what so many images leave undecided.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from cnnsearch.evidence.crossed import Answered, Crossed, differs_from_zero
from cnnsearch.stats import LEVEL

NO_MORE = 2**40
"""The number of images that a fold's score stands for: so many that they add nothing to the spread of the folds."""


def condensed(scores: NDArray[np.float64], folds: int, images: float) -> Answered:
    """Condense the scores of one setting, or differences between two, with the corrected variance of their mean.

    Args:
        scores: [J] of each fold, or of the folds of all repeats; two or more.
        folds: k, in how many parts the images were dealt.
        images: validation images of a fold; 0 where scores are no shares of them.
    """
    found = Answered.of(scores[:, None], NO_MORE)
    mean, count = min(1.0, abs(float(scores.mean()))), len(scores)
    least = mean * (1 - mean) / images if images else 0.0
    variance = max(found.between * count, least)
    return found._replace(between=variance * (1 / count + 1 / (folds - 1)), single=0.0)


def corrected(side: Answered, folds: int) -> Answered:
    """Correct the spread of networks of several folds that answered the same images, as those of the test set."""
    return side._replace(between=side.between * (1 + side.replicates / (folds - 1)))


def difference(
    a: NDArray[np.float64], b: NDArray[np.float64], folds: int, images: float, level: float = LEVEL
) -> Crossed:
    """Mean of A minus mean of B over the same folds, both [J]; see `condensed`."""
    return differs_from_zero(condensed(a - b, folds, images), level)


def between_all(
    scores: Sequence[dict[int, float]], folds: int, images: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The `difference` of every two sides over the folds that both have: values and p-values, [sides, sides].

    `scores` has for each side the score of each fold. p is 1 on the diagonal, and where too few are shared.
    """
    value, p_values = np.zeros((len(scores), len(scores))), np.ones((len(scores), len(scores)))
    for i, j in combinations(range(len(scores)), 2):
        a, b = shared([scores[i], scores[j]])
        if len(a) > 1:
            found = difference(a, b, folds, images)
            value[i, j], p_values[i, j] = found.estimate.value, found.p_value
            value[j, i], p_values[j, i] = -found.estimate.value, found.p_value
    return value, p_values


def shared(scores: Sequence[dict[int, float]]) -> list[NDArray[np.float64]]:
    """Return the scores of the folds that all sides have, in the same order for each."""
    folds = sorted(set.intersection(*(set(one) for one in scores)))
    return [np.array([one[fold] for fold in folds]) for one in scores]


def without_the_folds(scores: Sequence[dict[int, float]]) -> list[NDArray[np.float64]]:
    """Take from each side what all sides share in a fold, and keep its mean and the spread that is its own."""
    table = np.stack(shared(scores))
    own = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    own *= np.sqrt(len(table) / max(1, len(table) - 1))  # the mean over the sides takes some of each with it
    return list(own + table.mean(axis=1, keepdims=True))


def over_pairs(differences: NDArray[np.float64], level: float = LEVEL) -> Crossed:
    """Mean of differences of matched pairs of settings, [pairs], as it would vary with other pairs."""
    return differs_from_zero(Answered.of(differences[:, None], NO_MORE), level)
