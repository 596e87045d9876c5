"""Stopping trials before their last epoch: the trials that one rule compares, and what it has decided about them. Pure.

Trials run one after another or side by side and are never paused. So a rule decides about a trial as soon as it reaches
an epoch, from what the others have shown so far. Values are kept by trial: a trial that passes an epoch again, after it
was cut off, is not counted twice. The rules themselves are in `stopping_rules`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cnnsearch.planning.stopping_rules import Curve, Curves, rule_of
from cnnsearch.spec.stage import StopEarly

MAX_SECONDS = "max_seconds"
"""Name of what stops a trial that has used up its training time, in place of the name of a stage's rule."""


@dataclass(frozen=True)
class Stop:
    """An order that a trial ends after an epoch."""

    epoch: int
    rule: str
    reason: str
    """One line, which goes into the trial's record."""


@dataclass
class Orders:
    """Orders to the process that runs a job, which reads them after each epoch."""

    stops: dict[str, Stop] = field(default_factory=dict)
    """Trial id -> the order to end it."""
    pause: bool = False
    """Whether to save everything after this epoch and leave the job, which another run continues."""

    def stop(self, trial_id: str, epoch: int) -> Stop | None:
        """Return the order to end a trial that has reached an epoch; None if there is none."""
        found = self.stops.get(trial_id)
        return found if found and epoch >= found.epoch else None


class Stopper:
    """Decides about the trials that one rule compares with each other. Decisions are final."""

    def __init__(self, settings: StopEarly) -> None:
        self.settings = settings
        self.rule = rule_of(settings)
        self.curves = Curves(sign=1 if settings.metric == "val_accuracy" else -1)
        self.stops: dict[str, Stop] = {}
        """Trial id -> the order to end it."""

    def place(self, trial_id: str, curve: Curve) -> None:
        """Add a trial with the curve recorded so far. Trials must be added in the order of the stage."""
        self.curves.place(trial_id)
        for epoch in sorted(curve):
            self.curves.add(trial_id, epoch, curve[epoch])

    def resume(self, trial_id: str, epochs: int) -> Stop | None:
        """Return the order to end a trial that was cut off, deciding now on its last recorded epoch if necessary."""
        curve = self.curves.values.get(trial_id, {})
        if trial_id not in self.stops and curve:
            self._decide(trial_id, max(curve), epochs)
        return self.stops.get(trial_id)

    def hear(self, trial_id: str, epoch: int, value: float, epochs: int) -> Stop | None:
        """Take in a value, and return the order to end the trial, if it must end.

        Args:
            trial_id: of a trial that `place` has added.
            epoch: from 1.
            value: of the rule's metric.
            epochs: for which the trial would train if it were not stopped.
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
