"""A trial that trains nothing: it takes its time, and is recorded as a real one would be. Torch stays out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from cnnsearch.execution.context import SharedContext
from cnnsearch.execution.events import Progress
from cnnsearch.planning.job import Job
from cnnsearch.planning.stopping import Orders
from cnnsearch.planning.trial import EpochRow, Status, Trial
from cnnsearch.results.folder import Results
from cnnsearch.results.record import Measures, Record

SPREAD = 0.2
"""Trials take so much more or less than the mean: real ones are uneven, too."""


@dataclass(frozen=True)
class Simulated:
    """Runs jobs in place of `jobs.run_job`."""

    seconds: float
    """Of a trial, on average."""

    def __call__(self, job: Job, context: SharedContext, orders: Orders) -> Iterator[Progress]:
        for trial in job.trials:
            yield from ([(trial, event)] for event in self._run(trial, context))

    def seconds_of(self, trial: Trial) -> float:
        """How long a trial takes; its id decides."""
        return self.seconds * (1 + SPREAD * (2 * np.random.default_rng(int(trial.id, 16)).random() - 1))

    def _run(self, trial: Trial, context: SharedContext) -> Iterator[EpochRow | Record]:
        started_at, epochs = datetime.now(UTC), trial.settings.epochs
        resumed, epoch_seconds = time.monotonic(), self.seconds_of(trial) / epochs
        folder = Results(context.results).trial(trial.id)
        folder.begin(trial, [])
        skill = 0.3 + 0.4 * int(trial.id[:4], 16) / 16**4
        for epoch in range(1, epochs + 1):
            # What is written is a part of an epoch; time until the driver asks for the next one is not made up for.
            time.sleep(max(0.0, resumed + epoch_seconds - time.monotonic()))
            row = EpochRow(epoch, 2.0, 0.5, 2.0 - skill, skill * epoch / epochs, trial.settings.lr, epoch_seconds)
            folder.append_epoch(row)
            yield row
            resumed = time.monotonic()
        best = Measures(val_loss=2 - skill, val_accuracy=skill, test_loss=2 - skill, test_accuracy=skill)
        yield folder.commit(
            Record.of(
                trial,
                Status.DONE,
                best_epoch=epochs,
                train_loss=2.0,
                train_accuracy=0.5,
                best=best,
                epochs_done=epochs,
                seconds=epochs * epoch_seconds,
                images_per_second=100.0,
                precision=context.precision(trial.settings),
                device="cpu",
                threads=1,
                host="simulated",
                started_at=started_at,
            )
        )
