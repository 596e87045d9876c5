"""Stopping trials before their last epoch: the trials that one rule compares, and what it has decided about them. Pure.

Trials run one after another or side by side and are never paused, so a rule decides about a trial when it reaches an
epoch, by what the others showed at theirs. Values are kept by trial: a trial that passes an epoch again, after it was
cut off, is not counted twice. The rules themselves are in `stopping_rules`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cnnsearch.planning.stopping_rules import Curve, Curves, rule_of
from cnnsearch.spec.stage import StopEarly

MAX_SECONDS = "max_seconds"
"""What stops a trial that has used up its training time; no rule of a stage."""


@dataclass(frozen=True)
class Stop:
    """An order: a trial is to end after an epoch."""

    epoch: int
    rule: str
    reason: str
    """In a line, as the trial's record says it."""


@dataclass
class Orders:
    """What the process that runs a job is told meanwhile; it looks after each epoch."""

    stops: dict[str, Stop] = field(default_factory=dict)
    """Trial id -> when it is to end."""
    pause: bool = False
    """Save everything after this epoch and leave the job: it goes on another time."""

    def stop(self, trial_id: str, epoch: int) -> Stop | None:
        """The order for a trial that has come to an epoch."""
        found = self.stops.get(trial_id)
        return found if found and epoch >= found.epoch else None


class Stopper:
    """Decides about the trials that one rule compares with each other. What was decided once stays decided."""

    def __init__(self, settings: StopEarly) -> None:
        self.settings = settings
        self.rule = rule_of(settings)
        self.curves = Curves(sign=1 if settings.metric == "val_accuracy" else -1)
        self.stops: dict[str, Stop] = {}
        """Trial id -> when it is to end."""

    def place(self, trial_id: str, curve: Curve) -> None:
        """Take in a trial of the stage, in the stage's order, with what is known of it from before."""
        self.curves.place(trial_id)
        for epoch in sorted(curve):
            self.curves.add(trial_id, epoch, curve[epoch])

    def resume(self, trial_id: str, epochs: int) -> Stop | None:
        """Say whether a trial that goes on was to end at the epoch it had come to when it was cut off."""
        curve = self.curves.values.get(trial_id, {})
        if trial_id not in self.stops and curve:
            self._decide(trial_id, max(curve), epochs)
        return self.stops.get(trial_id)

    def hear(self, trial_id: str, epoch: int, value: float, epochs: int) -> Stop | None:
        """Take in a value, and say whether the trial is to end.

        Args:
            trial_id: of a trial that has its place.
            epoch: from 1.
            value: of the rule's metric.
            epochs: that the trial would train for.
        """
        curve = self.curves.values[trial_id]
        if epoch not in curve and math.isfinite(value):
            self.curves.add(trial_id, epoch, value)
            if max(curve) == epoch:
                self._decide(trial_id, epoch, epochs)
        return self.stops.get(trial_id)

    def _decide(self, trial_id: str, epoch: int, epochs: int) -> None:
        if self.rule.is_due(epoch, epochs) and (reason := self.rule.reason(self.curves, trial_id, epoch, epochs)):
            method = self.settings.method
            self.stops[trial_id] = Stop(epoch, method, f"{method}: {reason}")


def curve_of(settings: StopEarly, rows: Iterable[Mapping[str, float | None]]) -> dict[int, float]:
    """A trial's curve from the rows of its `epochs.jsonl`; without epoch 0, which is before training."""
    found = {}
    for row in rows:
        epoch, value = row.get("epoch"), row.get(settings.metric)
        if epoch and value is not None and math.isfinite(value):
            found[int(epoch)] = float(value)
    return found
