"""What Prometheus can see of a run: gauges that Ray shows on its nodes' metrics ports as `ray_cnnsearch_…`.

Ray forgets a gauge's value once it has sent it on, and the node forgets it a little later: a gauge that is no longer
set disappears after two to three of Ray's report intervals (half a minute). So the gauges of running trials are set
again and again, and those of ended trials are not: no outdated value stays.

Prometheus keeps a series for each label value, so these are few, however many trials there are. A running trial is
identified by a slot, never by its id or settings; the log and the tasks of its worker say which trial that is.

This module does not import Ray: it is given a function that makes a gauge.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from cnnsearch.execution.context import SharedContext
from cnnsearch.execution.events import EpochDone, Event
from cnnsearch.planning.job import Job
from cnnsearch.planning.queue import Queue
from cnnsearch.planning.trial import EpochRow, Status, Trial

SHOWN_TRIALS = 256
"""Most running trials that have gauges of their own; all are counted."""
STATES = ("waiting", "running", *(str(status.value) for status in Status))


@dataclass(frozen=True)
class Metric:
    """A gauge: its name without Ray's prefix, what it says, and its labels."""

    name: str
    help: str
    labels: tuple[str, ...]


_STAGE = ("sweep", "stage")
_TRIAL = (*_STAGE, "slot")
TRIALS = Metric("cnnsearch_trials", "Trials of a stage by state.", (*_STAGE, "state"))
GPU_SHARE = Metric("cnnsearch_gpu_share", "Share of all GPUs that is set aside for running trials, 0-1.", _STAGE)
EPOCH = Metric("cnnsearch_epoch", "Last epoch that a running trial finished.", _TRIAL)
EPOCHS = Metric("cnnsearch_epochs", "Epochs that a running trial is to train.", _TRIAL)
LOSS = Metric("cnnsearch_loss", "Loss of a running trial's last epoch, mean over examples.", (*_TRIAL, "split"))
ACCURACY = Metric("cnnsearch_accuracy", "Accuracy of a running trial's last epoch, 0-1.", (*_TRIAL, "split"))
SPEED = Metric(
    "cnnsearch_images_per_second", "Training images per second of a running trial's last epoch, validation too.", _TRIAL
)
METRICS = (TRIALS, GPU_SHARE, EPOCH, EPOCHS, LOSS, ACCURACY, SPEED)


class Gauge(Protocol):
    """The part of Ray's gauges that is used here."""

    def set(self, value: float, tags: dict[str, str]) -> None:
        """Set the value of the series with these label values."""


class Metrics:
    """The gauges of one run of a sweep."""

    def __init__(
        self,
        queue: Queue,
        context: SharedContext,
        gpu_share: Callable[[Job], float],
        make_gauge: Callable[[str, str, tuple[str, ...]], Gauge],
        every_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make the gauges.

        Args:
            queue: knows which trials run, and how the others ended.
            context: knows how many images an epoch has.
            gpu_share: returns the share of all GPUs that a job has, 0-1.
            make_gauge: makes a gauge from name, description and label names.
            every_seconds: time between two settings of the gauges; shorter than between two reports of Ray.
            clock: returns seconds.
        """
        self._queue = queue
        self._context = context
        self._gpu_share = gpu_share
        self._gauges = {metric: make_gauge(metric.name, metric.help, metric.labels) for metric in METRICS}
        self._every_seconds = every_seconds
        self._clock = clock
        self._set_at = -math.inf
        self._rows: dict[str, EpochRow] = {}
        """Trial id -> its last epoch, of running trials."""
        self._slots: dict[str, int] = {}
        """Trial id -> slot, of running trials."""

    def hear(self, event: Event) -> None:
        """Note the results of an epoch."""
        if isinstance(event, EpochDone):
            self._rows[event.trial.id] = event.row

    def publish(self) -> None:
        """Set all gauges if `every_seconds` have passed since the last time."""
        if self._clock() - self._set_at < self._every_seconds:
            return
        self._set_at = self._clock()
        running = dict(self._queue.running)
        self._rows = {trial_id: row for trial_id, row in self._rows.items() if trial_id in running}
        self._slots = _assign_slots(self._slots, running)
        for metric, labels, value in [*self._of_stages(), *self._of_trials(running)]:
            if math.isfinite(value):
                self._gauges[metric].set(value, {"sweep": self._queue.sweep.name, **labels})

    def _of_stages(self) -> Iterator[tuple[Metric, dict[str, str], float]]:
        queue = self._queue
        found: Counter[tuple[str, str]] = Counter()
        for trial_id, trial in queue.plan.trials.items():
            if trial_id in queue.running:
                found[trial.stage, "running"] += 1
            elif (outcome := queue.outcomes.get(trial_id)) is not None:
                found[trial.stage, outcome.status.value] += 1
        shares: dict[str, float] = {}
        for job in {job.id: job for job in queue.running.values()}.values():
            stage = job.trials[0].stage
            shares[stage] = shares.get(stage, 0.0) + self._gpu_share(job)
        for planned in queue.plan.stages:
            name = planned.stage.name
            found[name, "waiting"] = planned.total - sum(found[name, state] for state in STATES)
            for state in STATES:
                yield TRIALS, {"stage": name, "state": state}, found[name, state]
            yield GPU_SHARE, {"stage": name}, shares.get(name, 0.0)

    def _of_trials(self, running: dict[str, Job]) -> Iterator[tuple[Metric, dict[str, str], float]]:
        for trial_id, slot in self._slots.items():
            trial = next(one for one in running[trial_id].trials if one.id == trial_id)
            labels = {"stage": trial.stage, "slot": str(slot)}
            yield EPOCHS, labels, trial.settings.epochs
            if (row := self._rows.get(trial_id)) is not None:
                yield EPOCH, labels, row.epoch
                yield from self._of_epoch(trial, row, labels)

    def _of_epoch(
        self, trial: Trial, row: EpochRow, labels: dict[str, str]
    ) -> Iterator[tuple[Metric, dict[str, str], float]]:
        values = ((LOSS, (row.train_loss, row.val_loss)), (ACCURACY, (row.train_accuracy, row.val_accuracy)))
        for metric, of_splits in values:
            for split, value in zip(("train", "val"), of_splits, strict=True):
                if value is not None:
                    yield metric, {**labels, "split": split}, value
        if row.epoch and row.seconds:
            yield SPEED, labels, len(self._context.dataset(trial).indices["train"]) / row.seconds


def _assign_slots(slots: dict[str, int], running: dict[str, Job]) -> dict[str, int]:
    """Assign slots to running trials: trial id -> slot. A trial keeps its slot; new ones get the lowest free slots, as
    long as there are any.
    """
    kept = {trial_id: slot for trial_id, slot in slots.items() if trial_id in running}
    free = iter(sorted(set(range(SHOWN_TRIALS)) - set(kept.values())))
    return kept | dict(zip((trial_id for trial_id in running if trial_id not in kept), free, strict=False))
