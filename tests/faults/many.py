"""A results folder of thousands of finished trials, made in seconds: real records of trials that were never trained."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from cnnsearch import data as images
from cnnsearch.data.dataset import Dataset
from cnnsearch.planning.plan import make_plan
from cnnsearch.planning.trial import EpochRow, Outcome, Status, Trial
from cnnsearch.results.folder import Results
from cnnsearch.results.record import Measures, Record
from cnnsearch.spec.sweep import Sweep


def finish_all(sweep: Sweep, root: Path) -> int:
    """Record every trial of a sweep as done, in the folder its command uses; how many there are."""
    dataset = images.load(sweep.data, [sweep.data.image_size])[sweep.data.image_size]
    results = Results(root / sweep.name)
    outcomes: dict[str, Outcome] = {}
    with _quickly():
        while left := [
            trial
            for trial in make_plan(sweep, dataset.fingerprint, outcomes).trials.values()
            if trial.id not in outcomes
        ]:
            for trial in left:
                outcomes[trial.id] = finish(results, trial, dataset).outcome
    return len(outcomes)


def finish(results: Results, trial: Trial, dataset: Dataset) -> Record:
    """Record one trial as done, with made-up numbers that its id decides and that agree with each other."""
    rng = np.random.default_rng(int(trial.id, 16))
    skill = 0.3 + 0.4 * float(rng.random())
    folder = results.trial(trial.id)
    epochs = trial.settings.epochs
    rows = [
        EpochRow(epoch, 2.0 / epoch, 0.5, 1.5 + 0.01 * epoch, skill * epoch / epochs, trial.settings.lr, 0.5)
        for epoch in range(1, epochs + 1)
    ]
    folder.begin(trial, rows)
    folder.save_weights({"head.weight": torch.zeros(2, 2)})
    moments = ("best",) if trial.parent_id is None else ("before", "best")
    predictions, scores = {}, {}
    for split in ("val", "test"):
        labels = dataset.labels[dataset.indices[split]]
        for moment in moments:
            right = rng.random(len(labels)) < skill
            predicted = np.where(right, labels, (labels + 1 + rng.integers(0, 8, len(labels))) % len(dataset.classes))
            predictions[split, moment] = (predicted, rng.random(len(labels)).astype(np.float32))
            scores[split, moment] = float(np.mean(predicted == labels))
    folder.save_predictions(predictions)
    best, *before = (
        Measures(
            val_loss=1.5,
            val_accuracy=scores["val", moment],
            test_loss=1.6,
            test_accuracy=scores["test", moment],
        )
        for moment in reversed(moments)
    )
    return folder.commit(
        Record.of(
            trial,
            Status.DONE,
            best_epoch=epochs,
            train_loss=rows[-1].train_loss,
            train_accuracy=rows[-1].train_accuracy,
            best=best,
            before=before[0] if before else None,
            parameters=4,
            epochs_done=epochs,
            seconds=0.5 * epochs,
            images_per_second=100.0,
            precision="fp32",
            device="cpu",
            threads=1,
            host="made-up",
        )
    )


@contextlib.contextmanager
def _quickly() -> Iterator[None]:
    """Nothing here has to survive a crash."""
    with mock.patch.object(os, "fsync", return_value=None):
        yield
