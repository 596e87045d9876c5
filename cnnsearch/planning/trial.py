"""A trial, how it ended, and the results of one of its epochs. Does not import torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from cnnsearch.planning.identity import trial_id
from cnnsearch.planning.stopping import MAX_SECONDS
from cnnsearch.spec.metric import MEASURES, METRICS
from cnnsearch.spec.settings import Settings
from cnnsearch.spec.stage import StopEarly


class Status(StrEnum):
    """How a trial ended."""

    DONE = "done"
    FAILED = "failed"
    DIVERGED = "diverged"
    PRUNED = "pruned"

    @property
    def is_final(self) -> bool:
        """Whether running the same trial again could only end the same way, in any sweep.

        A failure may have been the machine's fault. Whether a pruned trial continues depends on the sweep: see
        `counts`.
        """
        return self in (Status.DONE, Status.DIVERGED)


@dataclass(frozen=True)
class Outcome:
    """What planning needs to know about a trial that ended."""

    status: Status
    val_accuracy: float | None = None
    val_loss: float | None = None
    added: Mapping[str, float | None] = field(default_factory=dict)
    """Column -> value, of the other metrics on validation."""
    seconds: float | None = None
    """Seconds it trained."""
    parameters: int | None = None
    """Parameters that train."""
    bytes: int | None = None
    """Size of all the model's weights."""
    stopped_by: str | None = None
    """What stopped it early: the method of `stop_early`, or `max_seconds`."""

    def measured(self, column: str) -> float | None:
        """Return a metric on validation, or another number, by the name of its column; None where it is not known."""
        value: float | None = self.added[column] if column in self.added else getattr(self, column, None)
        return value

    def worth(self, measure: str) -> float:
        """Return what trials are ranked by: the metric in this column so that more is better, the least if unknown."""
        value = self.measured(measure)
        return -math.inf if value is None else MEASURES[measure].sign * value

    @property
    def is_comparable(self) -> bool:
        """Whether its scores may be compared with those of trials that trained to the end.

        True also for a trial stopped by `patience`, which looks only at the trial's own curve.
        """
        return self.status is Status.DONE or self.stopped_by == "patience"

    def counts(self, rule: StopEarly | None, max_seconds: float | None) -> bool:
        """Say whether this outcome is final in a sweep with this rule and time limit, so that the trial need not run.

        That of a pruned trial is final in a sweep that stops trials early; in any other the trial runs to its end.
        """
        if self.status is not Status.PRUNED:
            return True
        if self.stopped_by == MAX_SECONDS:
            return max_seconds is not None and (self.seconds or 0.0) > max_seconds
        return rule is not None


@dataclass(frozen=True)
class Trial:
    """One set of hyperparameters, to train and evaluate once."""

    stage: str
    settings: Settings
    data: str
    """Fingerprint of the data's contents and split."""
    parent_id: str | None = None
    """The trial whose best weights this one starts from."""
    weights: str | None = None
    """Digest of the pretrained weights it starts from; None where its parent's weights take their place."""

    @cached_property
    def id(self) -> str:
        """See `identity.trial_id`; the stage's name is not part of it."""
        return trial_id(self.settings.deciding(), data=self.data, parent_id=self.parent_id, weights=self.weights)


@dataclass(frozen=True)
class EpochRow:
    """Results of one epoch. Epoch 0 is before training and has no training numbers.

    Training loss and accuracy are means over the epoch's examples as they were trained on, with dropout on and weights
    changing. Validation is measured after the epoch.
    """

    epoch: int
    train_loss: float | None
    train_accuracy: float | None
    val_loss: float | None
    val_accuracy: float | None
    lr: float
    seconds: float
    val_balanced_accuracy: float | None = None
    """This and the next: that of the sweep's metric; the others are not computed after every epoch."""
    val_macro_f1: float | None = None
    val_auroc: float | None = None
    val_average_precision: float | None = None
    val_top5_accuracy: float | None = None
    val_brier: float | None = None
    val_ece: float | None = None

    @property
    def is_finite(self) -> bool:
        """Whether the losses are finite numbers; if not, the trial has diverged."""
        return all(math.isfinite(loss) for loss in (self.train_loss, self.val_loss) if loss is not None)


def shown_epoch(settings: Settings, row: EpochRow) -> str:
    """Word the metric of a trial after an epoch: "71.5 %", "macro F1 71.5 %"; empty where it was not measured."""
    metric = METRICS[settings.metric]
    value: float | None = getattr(row, metric.measure)
    return "" if value is None or not math.isfinite(value) else metric.shown(value)
