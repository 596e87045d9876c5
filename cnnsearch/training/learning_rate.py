"""Learning rates as pure functions of the step: a trial can go on from anywhere, and nothing about them is stored."""

from __future__ import annotations

import math

from cnnsearch.spec.settings import Settings

RISE = 0.3
"""Share of the steps in which one-cycle rises. This and what follows: the defaults of torch's OneCycleLR, after
Smith and Topin, arXiv:1708.07120."""
FIRST = 1 / 25
"""One-cycle's first rate, in parts of the highest."""
LAST = FIRST / 1e4
"""Its last."""


def rate(settings: Settings, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step.

    Args:
        settings: `lr` is the highest rate.
        step: counted from 0 over all epochs.
        steps_per_epoch: of the trial.
    """
    steps = settings.epochs * steps_per_epoch
    if settings.lr_schedule == "one-cycle":
        top = RISE * steps
        if step < top:
            return settings.lr * _between(FIRST, 1.0, step / top)
        return settings.lr * _between(1.0, LAST, (step - top) / max(steps - 1 - top, 1))
    warm = round(settings.warmup_epochs * steps_per_epoch)
    if step < warm:
        return settings.lr * (step + 1) / warm
    if settings.lr_schedule == "cosine":
        return settings.lr * _between(1.0, 0.0, (step - warm) / max(steps - warm, 1))
    return settings.lr


def _between(begin: float, end: float, part: float) -> float:
    """Half a cosine from one value to another."""
    return end + (begin - end) * (1 + math.cos(math.pi * min(part, 1.0))) / 2
