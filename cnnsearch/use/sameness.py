"""How two trainings of the same trial compare: the recorded one, and one that was made now."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from cnnsearch import stats, told
from cnnsearch.evidence.comparisons import LEAST_SEEDS
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.planning.trial import Status
from cnnsearch.results.record import Measures, Record

Row = Mapping[str, Any]
Predictions = Mapping[tuple[str, str], tuple[NDArray[np.int32], NDArray[np.float32]]]
"""(split, moment) -> class and confidence of each image."""
_SPLITS: dict[str, Literal["validation", "test"]] = {"val": "validation", "test": "test"}
_TIMES = ("seconds",)
"""What rows of epochs hold beside numbers of the training."""


class Training(NamedTuple):
    """What is recorded of one training of a trial."""

    record: Record
    rows: Sequence[Row]
    predictions: Predictions


class Comparison(NamedTuple):
    """What came of comparing two trainings."""

    verdict: told.Sameness
    reason: str | None
    """Why they are different; None where they are not."""
    accuracy: told.Apart | None
    loss: told.Apart | None
    answers: list[told.Repeated]


def compare(
    then: Training,
    now: Training,
    labels: Callable[[str], NDArray[np.int64]],
    seeds_allow: Callable[[str], float | None] = lambda split: None,
) -> Comparison:
    """Compare the training of a trial now with the recorded one.

    Args:
        then: as recorded.
        now: the training now.
        labels: split -> true class of each of its images.
        seeds_allow: split -> see `allowed_by_seeds`.
    """
    splits = [split for split in _SPLITS if _both_answer(split, then, now, len(labels(split)))]
    # One error rate for both splits: Holm's correction.
    p_values = stats.holm([_p_value(split, then, now, labels(split)) for split in splits])
    answers = [
        _repeated(split, then, now, labels(split), seeds_allow(split), p_value)
        for split, p_value in zip(splits, p_values, strict=True)
    ]
    is_identical = are_identical(then, now)
    reason = None if is_identical else _reason(then, now, answers)
    verdict: told.Sameness = "different" if reason else "identical" if is_identical else "within"
    return Comparison(verdict, reason, _apart(then, now, "val_accuracy"), _apart(then, now, "val_loss"), answers)


def are_identical(then: Training, now: Training) -> bool:
    """Whether every number of every epoch, every prediction and every score have the same bits."""
    if [_numbers(row) for row in then.rows] != [_numbers(row) for row in now.rows]:
        return False
    if any((getattr(then.record, name) != getattr(now.record, name)) for name in ("status", "best_epoch")):
        return False
    if any(_measured(then.record, key) != _measured(now.record, key) for key in _shared_measures(then, now)):
        return False
    shared = then.predictions.keys() & now.predictions.keys()
    if {key for key in then.predictions if key[0] == "val"} - shared:
        return False
    return all(
        np.array_equal(a.view(np.uint32), b.view(np.uint32))
        for key in shared
        for a, b in zip(then.predictions[key], now.predictions[key], strict=True)
    )


def _shared_measures(then: Training, now: Training) -> list[tuple[str, str]]:
    """(moment, name) of the scores that both have: those of a sealed test set may be missing in one."""
    keys = [(moment, name) for moment in ("before", "best") for name in Measures.model_fields]
    return [key for key in keys if None not in (_measured(then.record, key), _measured(now.record, key))]


def _measured(record: Record, key: tuple[str, str]) -> float | None:
    return getattr(getattr(record, key[0]), key[1], None)


def allowed_by_seeds(evidence: Evidence, trial_id: str, split: str) -> float | None:
    """The largest difference that two seeds of a trial's setting are likely to have; None with too few seeds.

    Seeds are taken to vary normally: two of them then differ by no more, in 95 % of cases.
    """
    found = next((one for one in evidence.configurations if trial_id in one.trial_ids), None)
    if found is None or split not in evidence.measured:
        return None
    trials = evidence.tables.trials
    scores = trials.loc[trials["trial_id"].isin(found.trial_ids), f"{split}_accuracy"].dropna().to_numpy(np.float64)
    if len(scores) < LEAST_SEEDS:
        return None
    quantile = float(special.stdtrit(len(scores) - 1, (1 + stats.LEVEL) / 2))
    return quantile * math.sqrt(2) * float(scores.std(ddof=1))


def _numbers(row: Row) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in _TIMES}


def _reason(then: Training, now: Training, answers: Sequence[told.Repeated]) -> str | None:
    """Why two trainings that are not identical are different; None where they are within what chance explains."""
    was, is_ = then.record, now.record
    if was.status is not is_.status:
        return f"it {ENDED[was.status]} then, and {ENDED[is_.status]} now" + (f": {is_.error}" if is_.error else "")
    if was.status is not Status.DIVERGED and was.epochs_done != is_.epochs_done:
        return f"it trained {was.epochs_done} epochs then, and {is_.epochs_done} now"
    if was.best is not None and not answers:
        return "there are no predictions of both trainings to compare"
    apart = [one.split for one in answers if not one.is_within]
    if apart:
        return f"neither other images nor other seeds explain how far the accuracy on {' and '.join(apart)} is apart"
    return None


ENDED = {
    Status.DONE: "trained to its end",
    Status.FAILED: "failed",
    Status.DIVERGED: "diverged",
    Status.PRUNED: "was stopped early",
}


def _apart(then: Training, now: Training, key: str) -> told.Apart | None:
    ours = {row["epoch"]: row.get(key) for row in now.rows}
    both = [
        (abs(ours[row["epoch"]] - row[key]), row["epoch"])
        for row in then.rows
        if row.get(key) is not None and ours.get(row["epoch"]) is not None
    ]
    if not both:
        return None
    value, epoch = max(both, key=lambda one: (one[0], -one[1]))
    return told.Apart(value=value, epoch=epoch)


def _right(split: str, training: Training, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    predicted = training.predictions[split, "best"][0]
    return np.asarray(predicted == labels).astype(np.int64)


def _both_answer(split: str, then: Training, now: Training, images: int) -> bool:
    known = [one.predictions[split, "best"][0] for one in (then, now) if (split, "best") in one.predictions]
    return images > 0 and [len(predicted) for predicted in known] == [images, images]


def _p_value(split: str, then: Training, now: Training, labels: NDArray[np.int64]) -> float:
    """Of the hypothesis that both answer other images equally well: McNemar's exact test."""
    return stats.sign_flip_exact(_right(split, now, labels) - _right(split, then, labels))


def _repeated(
    split: str, then: Training, now: Training, labels: NDArray[np.int64], allowed: float | None, p_value: float
) -> told.Repeated:
    was, is_ = (_right(split, one, labels) for one in (then, now))
    found = stats.paired_difference(is_, was)
    explained = p_value >= stats.SIGNIFICANCE or (allowed is not None and abs(found.value) <= allowed)
    same = then.predictions[split, "best"][0] == now.predictions[split, "best"][0]
    return told.Repeated(
        split=_SPLITS[split],
        images=len(labels),
        same=float(np.mean(same)),
        then=float(was.mean()),
        now=float(is_.mean()),
        low=found.low,
        high=found.high,
        allowed_by_seeds=allowed,
        is_within=explained,
    )
