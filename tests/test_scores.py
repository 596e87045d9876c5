"""Metrics against scikit-learn, on the same predictions and on resamples of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as reference
from sklearn.calibration import calibration_curve

from cnnsearch.scores import BINS, Predicted, resampled, resamples, score, scores
from cnnsearch.spec.metric import ADDED, MEASURES, METRICS, Measure, MetricName, problem


def made(classes: int = 7, n: int = 300, seed: int = 0, *, ties: bool = False) -> Predicted:
    """Predictions that are better than chance, of unevenly large classes."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), np.minimum(rng.geometric(0.4, n - classes) - 1, classes - 1)])
    logits = rng.normal(size=(n, classes)) + 1.5 * np.eye(classes)[labels]
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    if ties:
        chances = np.round(chances, 1) + 1e-3
        chances /= chances.sum(axis=1, keepdims=True)
    chances = chances.astype(np.float32)
    return Predicted(labels, classes, chances.argmax(axis=1), chances.max(axis=1), chances)


def one_against_rest(
    of_class: Callable[..., float], found: Predicted, weights: NDArray[np.float64] | None = None
) -> float:
    chances, labels = found.probabilities, found.labels
    assert chances is not None
    return float(np.mean([of_class(labels == c, chances[:, c], sample_weight=weights) for c in range(found.classes)]))


def expected_calibration_error(found: Predicted, weights: NDArray[np.float64] | None = None) -> float:
    """From scikit-learn's calibration curve of repeated examples, and the number of examples in each of its bins."""
    times = np.ones(len(found.labels), dtype=int) if weights is None else weights.astype(int)
    right, confidence = np.repeat(found.right, times), np.repeat(found.confidence.astype(np.float64), times)
    accuracy, mean = calibration_curve(right, confidence, n_bins=BINS, strategy="uniform")
    in_bin = np.bincount(np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], confidence), minlength=BINS)
    return float(np.sum(in_bin[in_bin > 0] * np.abs(accuracy - mean)) / len(right))


REFERENCES: dict[str, Callable[..., float]] = {
    "accuracy": lambda p, w: reference.accuracy_score(p.labels, p.predicted, sample_weight=w),
    "loss": lambda p, w: reference.log_loss(p.labels, p.probabilities, sample_weight=w, labels=range(p.classes)),
    "balanced_accuracy": lambda p, w: reference.balanced_accuracy_score(p.labels, p.predicted, sample_weight=w),
    "macro_f1": lambda p, w: reference.f1_score(p.labels, p.predicted, average="macro", sample_weight=w),
    "auroc": lambda p, w: one_against_rest(reference.roc_auc_score, p, w),
    "average_precision": lambda p, w: one_against_rest(reference.average_precision_score, p, w),
    "top5_accuracy": lambda p, w: reference.top_k_accuracy_score(
        p.labels, p.probabilities, k=5, sample_weight=w, labels=range(p.classes)
    ),
    "brier": lambda p, w: reference.brier_score_loss(
        p.labels, p.probabilities if p.classes > 2 else p.probabilities[:, 1], sample_weight=w, labels=range(p.classes)
    ),
    "ece": expected_calibration_error,
}


def test_each_metric_has_a_reference_and_a_column() -> None:
    assert set(get_args(MetricName)) == set(METRICS) == set(REFERENCES)
    assert set(get_args(Measure)) == set(MEASURES)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("metric", METRICS)
def test_a_metric_is_scikit_learns(metric: str, ties: bool) -> None:
    found = made(ties=ties)
    assert score(metric, found) == pytest.approx(REFERENCES[metric](found, None), rel=1e-5)


@pytest.mark.parametrize("metric", [name for name in METRICS if name != "top5_accuracy"])
def test_two_classes_are_no_exception(metric: str) -> None:
    found = made(classes=2)
    assert score(metric, found) == pytest.approx(REFERENCES[metric](found, None), rel=1e-5)


def test_macro_auroc_is_that_of_scikit_learns_own_averaging() -> None:
    found = made()
    known = reference.roc_auc_score(found.labels, found.probabilities, multi_class="ovr", average="macro")
    assert score("auroc", found) == pytest.approx(known, rel=1e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_a_resample_scores_as_its_examples_repeated_do(metric: str) -> None:
    found = made(n=150)
    weights = resamples(found.labels, by_class=True)[:4]
    values = resampled(metric, found, weights)
    assert values is not None
    assert values.tolist() == pytest.approx([REFERENCES[metric](found, one) for one in weights], rel=1e-5)


def test_resamples_by_class_keep_the_sizes_of_classes_and_others_do_not() -> None:
    labels = made().labels
    sizes = np.bincount(labels)
    by_class = resamples(labels, by_class=True)
    assert all(np.array_equal(np.bincount(labels, one), sizes) for one in by_class)
    plain = resamples(labels, by_class=False)
    assert (plain.sum(axis=1) == len(labels)).all()
    assert any(not np.array_equal(np.bincount(labels, one), sizes) for one in plain)
    assert np.array_equal(plain, resamples(labels, by_class=False))


def test_what_makes_no_sense_or_is_not_there_is_none() -> None:
    few = made(classes=4)
    assert scores(few)["top5_accuracy"] is None
    assert problem("top5_accuracy", 4) == "top5_accuracy needs more than 5 classes; the data has 4"
    assert problem("top5_accuracy", 6) is None
    bare = Predicted(few.labels, 4, few.predicted, few.confidence)
    known = {name for name, value in scores(bare).items() if value is not None}
    assert known == {name for name in ADDED if not METRICS[name].needs_probabilities}
    one = Predicted(
        np.zeros(3, np.int64), 2, np.zeros(3, np.int64), np.ones(3, np.float32), np.eye(2, dtype="f4")[[0] * 3]
    )
    assert score("auroc", one) is None


def test_a_class_without_examples_is_left_out() -> None:
    found = made()
    without = found.labels != 6
    chances = found.probabilities
    assert chances is not None
    part = Predicted(found.labels[without], 7, found.predicted[without], found.confidence[without], chances[without])
    wanted = np.mean([reference.roc_auc_score(part.labels == c, chances[without][:, c]) for c in range(6)])
    assert score("auroc", part) == pytest.approx(wanted, rel=1e-6)


def test_what_is_recorded_does_not_depend_on_the_kind_of_cpu_that_blas_finds() -> None:
    code = """
import numpy as np
from cnnsearch.scores import Predicted, scores
rng = np.random.default_rng(0)
chances = rng.dirichlet(np.ones(10), 1600).astype(np.float32)
found = Predicted(rng.integers(0, 10, 1600), 10, chances.argmax(axis=1), chances.max(axis=1), chances)
print({name: value.hex() for name, value in scores(found).items()})
"""
    kinds: list[dict[str, str]] = [
        {},
        {"OPENBLAS_CORETYPE": "Prescott"},
    ]  # the oldest that there is, which every x86 can be taken for
    told = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, **kind}, check=True, capture_output=True, text=True
        ).stdout
        for kind in kinds
    }
    assert len(told) == 1
