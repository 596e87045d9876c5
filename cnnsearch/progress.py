"""What is known of a run while it is active, and what people see of it line by line, and when it has ended."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cnnsearch import told
from cnnsearch.execution.events import Ended, EpochDone, Event, Planned, Ready, Started, Waiting
from cnnsearch.execution.machine.estimate import representatives
from cnnsearch.plan_text import NO_LIMITS, Limits
from cnnsearch.planning.labels import setting, varied_axes
from cnnsearch.planning.plan import StagePlan
from cnnsearch.planning.trial import Status, Trial, shown_epoch
from cnnsearch.prepare import Prepared, epochs_left, expected_seconds
from cnnsearch.results.record import Record
from cnnsearch.session import Finished
from cnnsearch.words import clock, duration, labelled

if TYPE_CHECKING:
    from cnnsearch.planning.trial import EpochRow

NOTE_SECONDS = 2.0
"""Least seconds between two notes of the time left."""
LONG_EPOCH_SECONDS = 5.0
"""Seconds of an epoch after which the live view says how long it takes."""
LINE_SECONDS = 10.0
"""Least seconds between two lines about epochs of the same trial, if the output is not a terminal."""


@dataclass
class State:
    """What is known about a run while it is active; both views show it."""

    ready: Prepared
    limits: Limits = NO_LIMITS
    clock: Callable[[], float] = time.monotonic
    running: dict[str, tuple[Trial, EpochRow | None]] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    """Id -> stage of each trial that need not run any more."""
    counts: dict[Status, int] = field(default_factory=dict)
    best: Record | None = None
    dashboard: str = ""
    """Address of the dashboard, in words; empty if there is none."""
    heard_at: dict[str, float] = field(default_factory=dict)
    """Id of a running trial -> when it was last heard of, by `clock`."""
    waiting_for: str = ""
    """What is being done while no trial runs, such as "starting Ray"; empty for nothing."""

    def __post_init__(self) -> None:
        self.started_at = self.clock()
        self.axes = varied_axes(self.ready.sweep)
        self.plan = self.ready.plan
        for trial_id, trial in self.plan.trials.items():
            if (outcome := self.ready.outcomes.get(trial_id)) is not None:
                self.ended[trial_id] = trial.stage
                self.counts[outcome.status] = self.counts.get(outcome.status, 0) + 1
        self._begun: set[str] = set()
        typical: dict[str, list[float]] = {}
        for trial in representatives(self.ready.plan):
            typical.setdefault(trial.stage, []).append(expected_seconds(self.ready, trial))
        self._typical = {stage: sum(seconds) / len(seconds) for stage, seconds in typical.items()}
        self._expectations: dict[str, float] = {}
        self._expected_done = self._measured_done = 0.0

    def _expected(self, trial: Trial) -> float:
        """Expected seconds of a trial, computed once, since every epoch asks for it."""
        if trial.id not in self._expectations:
            seconds, starts_from = self.ready.calibration.seconds, trial.parent_id is not None
            self._expectations[trial.id] = seconds(trial.settings, self.ready.sizes, starts_from=starts_from)
        return self._expectations[trial.id]

    @property
    def done(self) -> int:
        """Number of trials that have ended, in this run or earlier."""
        return len(self.ended)

    def done_of(self, stage: StagePlan) -> int:
        """Number of trials of a stage that have ended; a trial that two stages list counts in both."""
        return sum(trial.id in self.ended for trial in stage.trials)

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return self.clock() - self.started_at

    @property
    def seconds_left(self) -> float:
        """Expected seconds until the run ends, if it goes on at the pace so far, or reaches one of its limits."""
        pace = self._measured_done / self._expected_done if self._expected_done > 1 else 1.0
        may_begin = math.inf if self.limits.trials is None else max(0, self.limits.trials - len(self._begun))
        left = 0.0
        for stage, count in self._unstarted().items():
            begins = min(count, may_begin)
            may_begin -= begins
            left += self._typical.get(stage, 0.0) * begins
        for trial, row in self.running.values():
            left += (
                self._expected(trial) * epochs_left(self.ready, trial, row.epoch if row else 0) / trial.settings.epochs
            )
        seconds = left * pace / self.ready.layout.trials_at_once
        return seconds if self.limits.seconds is None else min(seconds, max(0.0, self.limits.seconds - self.elapsed))

    def _unstarted(self) -> dict[str, int]:
        """Stage -> number of its trials that neither run nor have ended; one that two stages list counts once."""
        counts: dict[str, int] = {}
        stage_of = self.ended | {id_: trial.stage for id_, (trial, _) in self.running.items()}
        new_to_plan = Counter(stage for id_, stage in stage_of.items() if id_ not in self.plan.trials)
        seen = set(stage_of)
        for stage in self.plan.stages:
            new = {trial.id for trial in stage.trials} - seen
            seen |= new
            counts[stage.stage.name] = len(new) + max(0, stage.waiting - new_to_plan[stage.stage.name])
        return counts

    def update(self, event: Event) -> None:
        """Take in one event."""
        self.waiting_for = event.what if isinstance(event, Waiting) else ""
        if isinstance(event, Started | EpochDone):
            self.heard_at[event.trial.id] = self.clock()
        match event:
            case Ready():
                self.dashboard = _dashboard_text(event)
            case Planned():
                self.plan = event.plan
            case Started():
                self._begun.add(event.trial.id)
                if event.trial.id not in self.running:  # a trial starts again if it waited, or its worker died
                    self.running[event.trial.id] = (event.trial, None)
            case EpochDone():
                self.running[event.trial.id] = (event.trial, event.row)
                if event.row.epoch > 0:
                    self._expected_done += self._expected(event.trial) / event.trial.settings.epochs
                    self._measured_done += event.row.seconds
            case Ended():
                self._take_end(event.trial, event.record)

    def _take_end(self, trial: Trial, record: Record) -> None:
        self.running.pop(trial.id, None)
        self.ended[trial.id] = trial.stage
        self.counts[record.status] = self.counts.get(record.status, 0) + 1
        if record.best and (self.best is None or record.worth > self.best.worth):
            self.best = record

    def this_epoch(self, trial: Trial, row: EpochRow | None) -> str:
        """How long the present epoch of a running trial takes so far, of how long the last one took; empty if short."""
        so_far = self.clock() - self.heard_at.get(trial.id, self.clock())
        if row is None or row.epoch >= trial.settings.epochs or so_far < LONG_EPOCH_SECONDS:
            return ""
        return clock(so_far) + (f" of {clock(row.seconds)}" if row.epoch and row.seconds >= so_far else "")

    def told(self) -> told.Progress:
        """How far the run is, for programs."""
        known = {status.value: count for status, count in self.counts.items()}
        counts = told.Counts(**known, left=self.plan.total - sum(known.values()))
        name, results = self.ready.sweep.name, str(self.ready.results)
        return told.Progress(sweep=name, results=results, planned=self.plan.total, counts=counts)

    def describe(self, trial: Trial) -> str:
        """Name a trial."""
        return setting(trial.settings, self.axes) or trial.stage

    def best_text(self) -> str:
        """The best score on validation so far; an accuracy with its interval."""
        if self.best is None:
            return ""
        shown = self.best.shown(self.ready.dataset.validation_images(self.best.data))
        return f"{setting(self.best.settings, self.axes)}: val {shown} at epoch {self.best.best_epoch}"


def _dashboard_text(ready: Ready) -> str:
    if not ready.dashboard:
        return ""
    return f"dashboard {ready.dashboard}" + (f" (token in {ready.token})" if ready.token else "")


def not_done(counts: dict[Status, int]) -> list[str]:
    """How many trials ended otherwise than done, each in words."""
    return [f"{counts[s]} {s.value}" for s in (Status.FAILED, Status.DIVERGED, Status.PRUNED) if counts.get(s)]


class LineView:
    """View for pipes and log files: one line for each event, without most epochs."""

    def __init__(self, ready: Prepared, write: Callable[[str], None], limits: Limits = NO_LIMITS) -> None:
        self.state = State(ready, limits)
        self._write = write
        self._told_at: dict[str, float] = {}

    def __enter__(self) -> LineView:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def __call__(self, event: Event) -> None:
        self.state.update(event)
        line = self._line(event)
        if line:
            self._write(f"[{clock(self.state.elapsed)}] {line}")

    def _line(self, event: Event) -> str:
        state = self.state
        match event:
            case Ready():
                return state.dashboard
            case Waiting():
                return event.what
            case Planned():
                return ""
            case Started():
                row = state.running[event.trial.id][1]
                how = "started" if row is None else f"continues after epoch {row.epoch}:"
                return f"{event.trial.stage}: {how} {state.describe(event.trial)}"
            case EpochDone():
                now = state.clock()
                if now - self._told_at.setdefault(event.trial.id, now) < LINE_SECONDS:
                    return ""
                self._told_at[event.trial.id] = now
                row = event.row
                loss = "" if row.val_loss is None else f", val loss {row.val_loss:.3g}"
                score = shown_epoch(event.trial.settings, row)
                val, epochs = score and f", val {score}", event.trial.settings.epochs
                return f"{event.trial.stage}: {state.describe(event.trial)}: epoch {row.epoch}/{epochs}{val}{loss}"
            case Ended():
                how = f"{event.record.status.value}"
                if event.record.best:
                    shown = event.record.shown(state.ready.dataset.validation_images(event.record.data))
                    how += f", val {shown} at epoch {event.record.best_epoch}, {duration(event.record.seconds or 0)}"
                if event.record.error:
                    how += f": {event.record.error}"
                left = f"{state.done} of {state.plan.total}"
                if state.done < state.plan.total:
                    left += f", about {duration(state.seconds_left)} left"
                return f"{event.trial.stage}: {state.describe(event.trial)}: {how} ({left})"


class Noting:
    """Notes the time left in the results folder, for `cnnsearch status`: at most every `NOTE_SECONDS`."""

    def __init__(self, state: State, clock: Callable[[], float] = time.monotonic) -> None:
        self._state = state
        self._clock = clock
        self._noted_at = -math.inf
        self._folder = None if state.ready.is_remote else state.ready.results.here

    def __enter__(self) -> Noting:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._folder is not None:
            self._folder.note_progress(None)

    def __call__(self) -> None:
        """Note it if the last note is old enough."""
        now = self._clock()
        if self._folder is not None and now - self._noted_at >= NOTE_SECONDS:
            self._noted_at = now
            self._folder.note_progress(self._state.seconds_left)


def finished_text(finished: Finished, answer: list[tuple[str, str]]) -> str:
    """Sum up a run in a few lines.

    Args:
        finished: how the run ended.
        answer: (label, text) lines from the report, most important first.
    """
    done = finished.counts.get("done", 0)
    bad = ", ".join(f"{count} {status}" for status, count in finished.counts.items() if status != "done")
    missing = finished.planned - sum(finished.counts.values())
    why = "left for later" if finished.left_for_later else "could not start"
    bad += (", " if bad and missing else "") + (f"{missing} {why}" if missing else "")
    head = f"{done} of {finished.planned} trials done in {duration(finished.seconds)}" + (f"; {bad}" if bad else "")
    rows = [*answer, ("report", finished.report_place)] if finished.report else answer
    return f"{head}\n{labelled(rows)}" if rows else head
