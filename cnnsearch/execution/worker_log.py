"""A worker's log, which Ray's dashboard shows: which trials it runs, their epochs, and how they ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from cnnsearch.planning.labels import trial_label
from cnnsearch.planning.trial import EpochRow, Trial, shown_epoch
from cnnsearch.results.record import Record
from cnnsearch.words import duration

EPOCH_SECONDS = 10.0
"""Least time between two lines about a trial's epochs: a head trains thousands in a minute."""


class WorkerLog:
    """Writes lines about trials, each with the time and the settings that distinguish the trial from others."""

    def __init__(
        self,
        axes: Sequence[str],
        write: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Args:
        axes: names of the settings that a line shows; see `labels.told_axes`.
        write: takes a line.
        clock: returns seconds; used to leave out lines about epochs that follow each other too fast.
        now: time of day, written in front of every line.
        """
        self._axes = axes
        self._write = write
        self._clock = clock
        self._now = now
        self._told_at: dict[str, float] = {}

    def begins(self, trials: Sequence[Trial]) -> None:
        """Log that this worker begins a job."""
        self._told_at = {trial.id: self._clock() for trial in trials}
        for trial in trials:
            self._line(trial, f"started, {trial.settings.epochs} epochs")

    def hears(self, trial: Trial, event: EpochRow | Record) -> None:
        """Log that a trial finished an epoch, or ended."""
        if isinstance(event, Record):
            self._line(trial, _end(event))
        elif self._clock() - self._told_at[trial.id] >= EPOCH_SECONDS:
            self._told_at[trial.id] = self._clock()
            self._line(trial, _epoch(trial, event))

    def breaks(self, reason: str) -> None:
        """Log that this worker stops in the middle of its job, to be replaced."""
        self._write(f"{self._time()} worker ends: {reason}")

    def _line(self, trial: Trial, text: str) -> None:
        self._write(f"{self._time()} {trial_label(trial, self._axes)}: {text}")

    def _time(self) -> str:
        return f"{self._now():%Y-%m-%d %H:%M:%S}Z"


def _epoch(trial: Trial, row: EpochRow) -> str:
    parts = [f"epoch {row.epoch}/{trial.settings.epochs}"]
    parts += [f"train loss {row.train_loss:.4g}"] if row.train_loss is not None else []
    parts += [f"val loss {row.val_loss:.4g}"] if row.val_loss is not None else []
    score = shown_epoch(trial.settings, row)
    parts += [f"val {score}"] if score else []
    return ", ".join(parts)


def _end(record: Record) -> str:
    parts = [str(record.status.value)]
    if record.best:
        parts.append(f"best val {record.shown()} at epoch {record.best_epoch}")
    parts += [duration(record.seconds)] if record.seconds is not None else []
    return ", ".join(parts) + (f": {record.error}" if record.error else "")
