"""Metrics as numbers: from labels and predictions to a score, also of many resamples of the examples at once.

Definitions are those of scikit-learn, which the tests hold them against; scikit-learn itself takes milliseconds for
each call and each resample, which is more than many heads take to train.

- balanced accuracy: mean recall over the classes that have examples.
- macro F1: mean of 2·tp / (labelled + predicted) over the classes that are labelled or predicted.
- AUROC and average precision: one class against the rest, mean over the classes; classes without examples, or without
  others, are left out.
- top-5 accuracy: share of the examples whose label is among the five most probable classes; with up to five classes it
  makes no sense.
- Brier score: squared distance of the probabilities from the label, summed over classes (halved with two classes), mean
  over examples.
- ECE, expected calibration error (Guo et al. 2017, arXiv:1706.04599): the predictions are put into `BINS` bins of equal
  width by their confidence; the mean over examples of |accuracy - mean confidence| of their bin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cnnsearch.spec.metric import ADDED, METRICS, TOP

BINS = 15
"""Bins of the calibration error."""
DRAWS = 1000
"""Most resamples of the examples."""
_WORK = 4_000_000
"""Examples in all resamples together, times classes where these are resampled, from which on there are fewer resamples;
never fewer than `_LEAST_DRAWS`."""
_LEAST_DRAWS = 200

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Predicted:
    """The labels of a split and what a network predicted, examples in the same order."""

    labels: NDArray[np.int64]
    """[n]"""
    classes: int
    predicted: NDArray[np.integer]
    """[n]"""
    confidence: NDArray[np.float32]
    """[n] probability of the predicted class."""
    probabilities: NDArray[np.float32] | None = None
    """[n, classes]; None where they were not kept."""

    @cached_property
    def right(self) -> Floats:
        """[n] 1 where the prediction is right, else 0."""
        return np.asarray(self.predicted == self.labels, dtype=np.float64)

    def of_label(self) -> Floats:
        """[n] probability of the label."""
        assert self.probabilities is not None
        return self.probabilities[np.arange(len(self.labels)), self.labels].astype(np.float64)


def scores(found: Predicted) -> dict[str, float | None]:
    """Return every metric of `ADDED`: name -> score, None where it makes no sense or cannot be computed."""
    return {name: score(name, found) for name in ADDED}


def score(metric: str, found: Predicted) -> float | None:
    """Return a metric; None where it makes no sense, or takes probabilities that are not there."""
    values = resampled(metric, found, np.ones((1, len(found.labels))))
    return None if values is None or not np.isfinite(values[0]) else float(values[0])


def resampled(metric: str, found: Predicted, weights: Floats) -> Floats | None:
    """Return a metric of each of several resamples of the examples.

    Args:
        metric: name of one of `METRICS`.
        found: of n examples.
        weights: [draws, n] how often each example is in each resample.

    Returns:
        [draws]; None where the metric makes no sense, or takes probabilities that are not there.
    """
    lacks = METRICS[metric].needs_probabilities and found.probabilities is None
    if lacks or not len(found.labels) or (metric == "top5_accuracy" and found.classes <= TOP):
        return None
    return _FUNCTIONS[metric](found, weights)


def resamples(labels: NDArray[np.int64], *, by_class: bool, seed: int = 0) -> Floats:
    """Draw bootstrap resamples of the examples, the same for all networks, so that these stay paired.

    Args:
        labels: [n] true classes.
        by_class: whether each class is resampled by itself, so that all resamples have the same class sizes.
        seed: of the draws.

    Returns:
        [draws, n] how often each example was drawn.
    """
    n = len(labels)
    times = len(np.unique(labels)) if by_class else 1
    draws = int(np.clip(_WORK // max(n * times, 1), _LEAST_DRAWS, DRAWS))
    rng = np.random.default_rng(seed)
    groups = [np.flatnonzero(labels == c) for c in np.unique(labels)] if by_class else [np.arange(n)]
    drawn = np.concatenate([rows[rng.integers(0, len(rows), (draws, len(rows)))] for rows in groups], axis=1)
    flat = (np.arange(draws)[:, None] * n + drawn).ravel()
    return np.bincount(flat, minlength=draws * n).reshape(draws, n).astype(np.float64)


def _mean(values: Callable[[Predicted], Floats]) -> Callable[[Predicted, Floats], Floats]:
    """The metric that is the mean of a number of each example."""
    return lambda found, weights: _weighed(weights, values(found)) / weights.sum(axis=1)


def _weighed(weights: Floats, values: Floats) -> Floats:
    """Sum values [n] times each row of weights [draws, n].

    A single row is summed without BLAS, which adds up in an order that depends on the kind of CPU and on its settings:
    what is recorded of a trial must not.
    """
    summed: Floats = (weights * values).sum(axis=1) if len(weights) == 1 else weights @ values
    return summed


def _negative_logarithm(found: Predicted) -> Floats:
    return -np.log(np.maximum(found.of_label(), np.finfo(np.float32).tiny))


def _squared_distance(found: Predicted) -> Floats:
    assert found.probabilities is not None
    squares = np.einsum("nc,nc->n", found.probabilities, found.probabilities, dtype=np.float64)
    distance: Floats = squares - 2 * found.of_label() + 1
    return distance / 2 if found.classes == 2 else distance


def _in_top(found: Predicted) -> Floats:
    assert found.probabilities is not None
    own = found.probabilities[np.arange(len(found.labels)), found.labels][:, None]
    later = np.arange(found.classes) > found.labels[:, None]  # of equal probabilities the later class comes first
    above = (found.probabilities > own) | ((found.probabilities == own) & later)
    return np.asarray(above.sum(axis=1) < TOP, dtype=np.float64)


def _balanced_accuracy(found: Predicted, weights: Floats) -> Floats:
    recalls = [
        _weighed(weights[:, rows], found.right[rows]) / weights[:, rows].sum(axis=1)
        for rows in (np.flatnonzero(found.labels == c) for c in np.unique(found.labels))
    ]
    return _over_classes(recalls)


def _macro_f1(found: Predicted, weights: Floats) -> Floats:
    each = []
    for c in np.union1d(found.labels, found.predicted):
        is_label, is_predicted = found.labels == c, found.predicted == c
        hits = weights[:, is_label & is_predicted].sum(axis=1)
        total = weights[:, is_label].sum(axis=1) + weights[:, is_predicted].sum(axis=1)
        each.append(_ratio(2 * hits, total))
    return _over_classes(each)


def _auroc(found: Predicted, weights: Floats) -> Floats:
    each = []
    for hits, others in _by_threshold(found, weights):
        below = np.cumsum(others, axis=1) - others / 2  # a tie counts half
        each.append(_ratio((hits * below).sum(axis=1), hits.sum(axis=1) * others.sum(axis=1)))
    return _over_classes(each)


def _average_precision(found: Predicted, weights: Floats) -> Floats:
    each = []
    for hits, others in _by_threshold(found, weights):
        hits, others = hits[:, ::-1], others[:, ::-1]
        above = np.cumsum(hits, axis=1)
        total = above + np.cumsum(others, axis=1)
        precision = np.divide(above, total, out=np.zeros_like(above), where=total > 0)
        each.append(_ratio((hits * precision).sum(axis=1), hits.sum(axis=1)))
    return _over_classes(each)


def _by_threshold(found: Predicted, weights: Floats) -> Iterator[tuple[Floats, Floats]]:
    """Yield, for each class, how many of its examples and of the others have each probability of it, ascending."""
    assert found.probabilities is not None
    for c in range(found.classes):
        of_class = found.labels == c
        if not of_class.any() or of_class.all():
            continue
        order = np.argsort(found.probabilities[:, c], kind="stable")
        ascending = found.probabilities[order, c]
        starts = np.flatnonzero(np.append(True, ascending[1:] != ascending[:-1]))
        drawn = weights[:, order]
        hits = drawn * of_class[order]
        others = drawn - hits
        if len(starts) < len(order):
            hits, others = (np.add.reduceat(counts, starts, axis=1) for counts in (hits, others))
        yield hits, others


def _calibration_error(found: Predicted, weights: Floats) -> Floats:
    confidence = found.confidence.astype(np.float64)
    bins = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], confidence)
    gaps = found.right - confidence
    each = [np.abs(_weighed(weights[:, bins == one], gaps[bins == one])) for one in np.unique(bins)]
    return np.asarray(np.sum(each, axis=0) / weights.sum(axis=1))


def _ratio(parts: Floats, whole: Floats) -> Floats:
    """parts / whole, NaN where the whole is 0."""
    return np.divide(parts, whole, out=np.full_like(parts, np.nan), where=whole > 0)


def _over_classes(each: list[Floats]) -> Floats:
    """Mean over classes [classes, draws], without those that a resample does not have; NaN where it has none."""
    if not each:
        return np.full(1, np.nan)
    values = np.stack(each)
    known = np.isfinite(values)
    return _ratio(np.where(known, values, 0.0).sum(axis=0), known.sum(axis=0).astype(np.float64))


_FUNCTIONS: Mapping[str, Callable[[Predicted, Floats], Floats]] = {
    "accuracy": _mean(lambda found: found.right),
    "loss": _mean(_negative_logarithm),
    "balanced_accuracy": _balanced_accuracy,
    "macro_f1": _macro_f1,
    "auroc": _auroc,
    "average_precision": _average_precision,
    "top5_accuracy": _mean(_in_top),
    "brier": _mean(_squared_distance),
    "ece": _calibration_error,
}
