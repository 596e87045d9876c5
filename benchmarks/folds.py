"""How often comparisons over folds call equal learners different: `python -m benchmarks.folds [--times 1000]`.

Two learners see six features each of the same points, all features as good. So over all data sets they are equally
good, while on one data set either may be ahead in every fold: that is what the naive variance of a mean over folds does
not know. Printed are the shares of data sets in which a test at 5 % calls one better, where there is nothing and where
one has somewhat better features, by the report's own code and by a t-test over the folds.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from cnnsearch.data.folds import deal
from cnnsearch.evidence import by_fold
from cnnsearch.spec.data import FoldsSplit

CASES = ((60, 3, 1), (60, 5, 1), (60, 5, 4), (200, 5, 1), (200, 5, 3), (200, 10, 1), (400, 5, 5))
"""Images, folds, repeats."""
FEATURES, DISTANCE, BETTER = 6, 0.35, 0.2


def nearest_mean(train: NDArray[np.float64], labels: NDArray[np.int64], val: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Classify by the nearest of two means.

    Args:
        train: [N, features].
        labels: [N] class of each, 0 or 1.
        val: [M, features].

    Returns:
        [M] whether each is nearer to class 1.
    """
    means = [train[labels == one].mean(axis=0) for one in (0, 1)]
    return np.asarray((val - (means[0] + means[1]) / 2) @ (means[1] - means[0]) > 0)


def scores(seed: int, split: FoldsSplit, images: int, better: float = 0.0) -> list[NDArray[np.float64]]:
    """Return the scores of both learners in each fold of one data set.

    Args:
        seed: of the data set.
        split: how it is dealt.
        images: points, half of each class.
        better: by how much farther apart the classes are in the features of the first learner.
    """
    rng = np.random.default_rng([seed, images, split.k, split.repeats])
    labels = np.repeat([0, 1], images // 2)
    apart = np.repeat([DISTANCE + better, DISTANCE], FEATURES)
    points = rng.normal(size=(images, 2 * FEATURES)) + apart * (2 * labels[:, None] - 1)
    found: list[list[float]] = [[], []]
    for repeat in range(split.repeats):
        folds = deal(labels, ("a", "b"), split.model_copy(update={"seed": seed}), repeat)
        for fold in range(split.k):
            val = folds == fold
            for side, columns in enumerate((slice(0, FEATURES), slice(FEATURES, None))):
                said = nearest_mean(points[~val][:, columns], labels[~val], points[val][:, columns])
                found[side].append(float((said == labels[val]).mean()))
    return [np.array(side) for side in found]


def told_apart(split: FoldsSplit, images: int, times: int, better: float = 0.0) -> tuple[float, float]:
    """Return the shares of data sets in which the learners are told apart: by the report's code, and naively."""
    corrected = naive = 0
    for seed in range(times):
        a, b = scores(seed, split, images, better)
        corrected += by_fold.difference(a, b, split.k, images / split.k).p_value < 0.05
        if np.ptp(a - b) > 1e-9:
            naive += bool(stats.ttest_1samp(a - b, 0).pvalue < 0.05)
    return corrected / times, naive / times


def main() -> None:
    """Print a line for each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=1000, help="simulated data sets")
    times = parser.parse_args().times
    print(f"{'images':>6} {'folds':>5} {'repeats':>7}   told apart: equal, corrected and naive   one better, corrected")
    for images, k, repeats in CASES:
        split = FoldsSplit(k=k, repeats=repeats)
        (right, wrong), (power, _) = told_apart(split, images, times), told_apart(split, images, times, BETTER)
        print(f"{images:>6} {k:>5} {repeats:>7}   {right:>29.1%} {wrong:>9.1%}   {power:>21.1%}")


if __name__ == "__main__":
    main()
