"""Jobs: what one worker runs at a time, and which trials can be trained together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cnnsearch.planning.trial import Trial

HEADS_AT_ONCE = 16
"""Most trials of a job that trains heads together: enough to spread the cost of a call, few enough for weights,
gradients and inputs to stay near a core's cache. Measured on one thread, 100 epochs of Adam on 400 examples in
batches of 16, 512 inputs, 10 classes: 0.047 s per head at 8 to 32 trials, 0.055 s at 128 and 256, 0.13 s alone, 0.49 s
with autograd."""


SHORT_SECONDS = 3.0
"""Trials expected to take less are handed out several at a time: a job itself costs some hundredths of a second."""


@dataclass(frozen=True)
class Job:
    """Trials that one worker runs: a single one, heads on the same frozen layers together, or short ones in turn."""

    trials: tuple[Trial, ...]
    slots: int = 1
    """Slots that it takes; more than one if it ran out of memory before."""
    attempt: int = 1

    @property
    def id(self) -> str:
        """The first trial's id."""
        return self.trials[0].id


def frozen_key(trial: Trial) -> tuple[Any, ...]:
    """A key that trials share if they have the same frozen layers below their heads, and so the same features."""
    s = trial.settings
    start = trial.parent_id or trial.weights or s.seed
    return (s.model, s.width, s.network, start, s.image_size, s.precision, trial.data)


def head_key(trial: Trial) -> tuple[Any, ...] | None:
    """A key that trials share if their heads can be trained together, step by step; None for trials that train more."""
    s = trial.settings
    return (*frozen_key(trial), s.batch_size, s.epochs, s.optimizer) if s.fits_in_company else None
