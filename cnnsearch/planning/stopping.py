"""Stopping trials before their last epoch: the trials that one rule compares, and what it has decided about them. Pure.

Trials run one after another or side by side. A rule decides about a trial as soon as it reaches an epoch, from what the
others have shown so far; it waits for no other setting, only for the other seeds of the same one. Values are kept by
trial: a trial that passes an epoch again, after it was cut off, is not counted twice. The rules themselves are in
`stopping_rules`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cnnsearch.planning.decisions import Notes, rule_key
from cnnsearch.planning.stopping_rules import Curve, Curves, rule_of
from cnnsearch.spec.metric import MEASURES
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
    waits: dict[str, int] = field(default_factory=dict)
    """Trial id -> the epoch after which to save and leave it, until other seeds of its setting have got as far."""
    pause: bool = False
    """Whether to save everything after this epoch and leave the job, which another run continues."""

    def stop(self, trial_id: str, epoch: int) -> Stop | None:
        """Return the order to end a trial that has reached an epoch; None if there is none."""
        found = self.stops.get(trial_id)
        return found if found and epoch >= found.epoch else None

    def waits_at(self, trial_id: str, epoch: int) -> bool:
        """Whether to save and leave a trial that has reached an epoch."""
        return trial_id in self.waits and epoch >= self.waits[trial_id] and trial_id not in self.stops


class Stopper:
    """Decides about the settings that one rule compares with each other. Decisions are final.

    A setting is trials that differ only in their seeds. A rule that compares judges the mean of their values, as if a
    setting were one trial, and its decision holds for all of them. So it is due at an epoch when every seed has been
    there or has ended; one that gets there earlier waits (see `waits_at`). Then:

    - The mean is over the seeds that got there. One that failed or ran out of time before is left out.
    - A setting that has lost a seed by divergence is stopped: it can no longer win, and its settings are bad.
    - A seed that joins later, because the sweep got more of them, shares what was decided about the others.

    A rule that looks at one trial alone decides about each seed by itself.

    What was decided by comparison is noted, and not decided again.
    """

    def __init__(self, settings: StopEarly, notes: Notes | None = None) -> None:
        """`notes` are those on this rule, of earlier runs; new ones are added to them."""
        self.settings = settings
        self.notes = Notes(rule_key(settings)) if notes is None else notes
        self.rule = rule_of(settings)
        self.curves = Curves(sign=MEASURES[settings.metric].sign)
        """Of settings, each under the id of its first trial."""
        self.stops: dict[str, Stop] = {}
        """Trial id -> the order to end it."""
        self._setting_of: dict[str, _Seeds] = {}
        self._new: dict[str, _Seeds] = {}

    def place(self, trial_id: str, curve: Curve, setting: str | None = None, epochs: int = 0) -> None:
        """Add a trial with the curve recorded so far. Trials must be added in the order of the stage.

        Args:
            trial_id: of a trial that is not there yet.
            curve: epoch -> value, as recorded.
            setting: id of its setting's first trial, if it has others. `settle` must then follow, once all are added.
            epochs: for which it would train if it were not stopped.
        """
        name = trial_id if setting is None or not self.rule.compares else setting
        curve = {**curve, **self.notes.values.get(trial_id, {})}
        for epoch, value in curve.items():
            self._note(trial_id, epoch, value, epochs)
        first = self._setting_of.get(name)
        seeds = _Seeds(name, epochs) if first is None else first
        self._setting_of[trial_id] = seeds
        self.curves.place(name)
        seeds.place(trial_id, curve)
        if setting is None:
            seeds.move(self.curves)
        else:
            self._new[name] = seeds

    def settle(self) -> None:
        """Decide about settings that were added, where a decision is due by what is recorded."""
        added = [(seeds, seeds.move(self.curves)) for seeds in self._new.values()]
        self._new.clear()
        for seeds, epoch in added:
            if len(seeds.reached) > 1:
                self._decide(seeds, epoch)

    def together(self, trial_id: str) -> tuple[str, ...]:
        """Return the ids of the trials that are stopped together with this one, itself included."""
        return tuple(self._setting_of[trial_id].reached)

    def waits_at(self, trial_id: str) -> int | None:
        """Return the epoch that a trial has reached and must not go beyond before other seeds are there; else None."""
        seeds = self._setting_of[trial_id]
        epoch = seeds.reached[trial_id]
        if trial_id in self.stops or trial_id in seeds.ended or epoch not in seeds.unjudged[trial_id]:
            return None
        return epoch if self.rule.is_judged(self.curves, seeds.name, epoch, seeds.epochs) else None

    def resume(self, trial_id: str, epochs: int) -> Stop | None:
        """Return the order to end a trial that was cut off, deciding now on its last recorded epoch if necessary."""
        seeds = self._setting_of[trial_id]
        # What several seeds wait for is decided when the last one gets there, or by `settle`.
        if trial_id not in self.stops and len(seeds.reached) == 1 and seeds.reached[trial_id]:
            self._judge(seeds, seeds.reached[trial_id], epochs)
        return self.stops.get(trial_id)

    def hear(self, trial_id: str, epoch: int, value: float, epochs: int) -> Stop | None:
        """Take in a value, and return the order to end the trial, if it must end.

        Args:
            trial_id: of a trial that `place` has added.
            epoch: from 1.
            value: of the rule's metric.
            epochs: for which the trial would train if it were not stopped.
        """
        seeds = self._setting_of[trial_id]
        if math.isfinite(value) and seeds.add(trial_id, epoch, value, self.curves):
            seeds.epochs = epochs
            self._note(trial_id, epoch, value, epochs)
            self._decide(seeds, seeds.move(self.curves))
        return self.stops.get(trial_id)

    def end(self, trial_id: str, *, diverged: bool = False, stopped: bool = False) -> None:
        """Take in that a trial has ended, which others may have waited for.

        Args:
            trial_id: of a trial that `place` has added. If it is new, `settle` takes it in with the others.
            diverged: whether its loss was no longer a number.
            stopped: whether the rule stopped it, in this run or earlier.
        """
        seeds = self._setting_of[trial_id]
        seeds.ended.add(trial_id)
        if diverged:
            seeds.diverged = True
        if stopped:
            seeds.stopped_at = max(seeds.stopped_at, seeds.reached[trial_id], self.settings.min_epochs)
        if seeds.name not in self._new and len(seeds.reached) > 1:
            self._decide(seeds, seeds.move(self.curves))

    def _decide(self, seeds: _Seeds, epoch: int | None) -> None:
        """Decide about a setting, some of whose seeds may have ended.

        Args:
            seeds: its trials.
            epoch: that all of them have reached by now; None if that is known since before.
        """
        if epoch is not None and not seeds.diverged:
            self._judge(seeds, epoch, seeds.epochs)
        if seeds.diverged:
            self._stop(seeds, self.settings.min_epochs, "another seed of this setting diverged")
        elif seeds.stopped_at:
            self._stop(seeds, seeds.stopped_at, "another seed of this setting was stopped, and with it the setting")

    def _judge(self, seeds: _Seeds, epoch: int, epochs: int) -> None:
        several = len(seeds.reached)
        if several > 1 and max(seeds.reached.values()) > epoch:
            return  # one was let go on before
        if not self.rule.is_due(epoch, epochs):
            return
        if several > 1 and not self.rule.is_judged(self.curves, seeds.name, epoch, epochs):
            return
        reason = self.notes.reasons.get((seeds.name, epoch))
        if reason is None:
            reason = self.rule.reason(self.curves, seeds.name, epoch, epochs)
            reason += f", by the mean of {several} seeds" if reason and several > 1 else ""
            if self.rule.compares:
                self.notes.decide(seeds.name, epoch, reason)
        if reason:
            self._stop(seeds, epoch, reason)

    def _note(self, trial_id: str, epoch: int, value: float, epochs: int) -> None:
        if self.rule.remembers(epoch, epochs):
            self.notes.take_in(trial_id, epoch, value)

    def _stop(self, seeds: _Seeds, epoch: int, reason: str) -> None:
        """Order all seeds of a setting to end, those that are beyond the epoch at once."""
        seeds.stopped_at = seeds.stopped_at or epoch
        method = self.settings.method
        for trial_id, reached in seeds.reached.items():
            if trial_id not in seeds.ended and trial_id not in self.stops:
                self.stops[trial_id] = Stop(max(epoch, reached), method, f"{method}: {reason}")


@dataclass
class _Seeds:
    """The trials of one setting, and what of their curves is not in the setting's curve yet."""

    name: str
    """Id of the first trial."""
    epochs: int
    """For which they train if they are not stopped."""
    reached: dict[str, int] = field(default_factory=dict)
    """Trial id -> its last epoch."""
    unjudged: dict[str, dict[int, float]] = field(default_factory=dict)
    """Trial id -> epoch -> value, of epochs that another seed has yet to reach."""
    ended: set[str] = field(default_factory=set)
    diverged: bool = False
    stopped_at: int = 0
    """Epoch at which the rule stopped the setting; 0 if it did not."""

    def place(self, trial_id: str, curve: Curve) -> None:
        """Add a trial with the curve recorded so far."""
        self.reached[trial_id] = max(curve, default=0)
        self.unjudged[trial_id] = dict(curve)

    def add(self, trial_id: str, epoch: int, value: float, curves: Curves) -> bool:
        """Take in a value, and say whether it is new: a trial that was cut off passes epochs again."""
        if epoch in self.unjudged[trial_id] or (epoch in curves.values[self.name] and epoch <= self.reached[trial_id]):
            return False
        self.unjudged[trial_id][epoch] = value
        self.reached[trial_id] = max(self.reached[trial_id], epoch)
        return True

    def move(self, curves: Curves) -> int | None:
        """Add to the setting's curve what all its seeds have reached; return the last epoch if that is new."""
        going = [reached for trial_id, reached in self.reached.items() if trial_id not in self.ended]
        last = min(going) if going else max(self.reached.values())
        known = curves.values[self.name]
        found: dict[int, list[float]] = {}
        for values in self.unjudged.values():
            for epoch in [epoch for epoch in values if epoch <= last]:
                value = values.pop(epoch)
                if epoch not in known:
                    found.setdefault(epoch, []).append(value)
        for epoch in sorted(found):
            # Exact sums, so that the order of the seeds does not matter.
            curves.add(self.name, epoch, math.fsum(found[epoch]) / len(found[epoch]))
        return last if last in found else None


def curve_of(settings: StopEarly, rows: Iterable[Mapping[str, float | None]]) -> dict[int, float]:
    """A trial's curve from the rows of its `epochs.jsonl`; without epoch 0, which is before training."""
    found = {}
    for row in rows:
        epoch, value = row.get("epoch"), row.get(settings.metric)
        if epoch and value is not None and math.isfinite(value):
            found[int(epoch)] = float(value)
    return found
