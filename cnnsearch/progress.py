"""What people see in the terminal while a sweep runs, live or line by line, and when it has ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cnnsearch.execution.events import Ended, EpochDone, Event, Planned, Ready, Started
from cnnsearch.execution.machine.estimate import representatives
from cnnsearch.planning.labels import setting, setting_parts, varied_axes
from cnnsearch.planning.plan import Plan
from cnnsearch.planning.trial import Status, Trial
from cnnsearch.prepare import Prepared, epochs_left, expected_seconds
from cnnsearch.results.record import Record
from cnnsearch.session import Finished
from cnnsearch.words import accuracy, clock, duration, percent, printable

if TYPE_CHECKING:
    from cnnsearch.planning.trial import EpochRow

MOST_SHOWN = 8
"""Most running trials listed on a terminal; many heads may be trained together."""
LINE_SECONDS = 10.0
"""Least seconds between two lines about epochs of the same trial, if the output is not a terminal."""


@dataclass
class State:
    """What is known about a run while it is active; both views show it."""

    ready: Prepared
    clock: Callable[[], float] = time.monotonic
    running: dict[str, tuple[Trial, EpochRow | None]] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)
    """Stage -> number of trials that need not run any more."""
    counts: dict[Status, int] = field(default_factory=dict)
    best: Record | None = None
    dashboard: str = ""
    """Address of the dashboard, in words; empty if there is none."""

    def __post_init__(self) -> None:
        self.started_at = self.clock()
        self.axes = varied_axes(self.ready.sweep)
        self.plan = self.ready.plan
        for trial_id, trial in self.ready.plan.trials.items():
            if (outcome := self.ready.outcomes.get(trial_id)) is not None:
                self.ended[trial.stage] = self.ended.get(trial.stage, 0) + 1
                self.counts[outcome.status] = self.counts.get(outcome.status, 0) + 1
        totals = _totals(self.plan)
        self._unstarted = {name: total - self.ended.get(name, 0) for name, total in totals.items()}
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
        return sum(self.ended.values())

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return self.clock() - self.started_at

    @property
    def seconds_left(self) -> float:
        """Expected seconds until the run ends, if it goes on at the pace so far."""
        pace = self._measured_done / self._expected_done if self._expected_done > 1 else 1.0
        left = sum(self._typical.get(stage, 0.0) * max(count, 0) for stage, count in self._unstarted.items())
        for trial, row in self.running.values():
            left += (
                self._expected(trial) * epochs_left(self.ready, trial, row.epoch if row else 0) / trial.settings.epochs
            )
        return left * pace / self.ready.layout.trials_at_once

    def update(self, event: Event) -> None:
        """Take in one event."""
        match event:
            case Ready():
                self.dashboard = _dashboard_text(event)
            case Planned():
                before, self.plan = _totals(self.plan), event.plan
                for name, total in _totals(self.plan).items():
                    self._unstarted[name] += total - before[name]
            case Started():
                if event.trial.id not in self.running:  # a trial starts again if it waited, or its worker died
                    self._unstarted[event.trial.stage] -= 1
                    self.running[event.trial.id] = (event.trial, None)
            case EpochDone():
                self.running[event.trial.id] = (event.trial, event.row)
                if event.row.epoch > 0:
                    self._expected_done += self._expected(event.trial) / event.trial.settings.epochs
                    self._measured_done += event.row.seconds
            case Ended():
                self._take_end(event.trial, event.record)

    def _take_end(self, trial: Trial, record: Record) -> None:
        if self.running.pop(trial.id, None) is None:  # another sweep had done it
            self._unstarted[trial.stage] -= 1
        self.ended[trial.stage] = self.ended.get(trial.stage, 0) + 1
        self.counts[record.status] = self.counts.get(record.status, 0) + 1
        if record.best and (self.best is None or record.best.val_accuracy > _val_accuracy(self.best)):
            self.best = record

    def describe(self, trial: Trial) -> str:
        """Name a trial."""
        return setting(trial.settings, self.axes) or trial.stage

    def best_text(self) -> str:
        """The best validation accuracy so far, with its interval."""
        if self.best is None:
            return ""
        shown = accuracy(_val_accuracy(self.best), self.ready.sizes.val)
        return f"{setting(self.best.settings, self.axes)}: val {shown} at epoch {self.best.best_epoch}"


def _totals(plan: Plan) -> dict[str, int]:
    """Stage -> number of its trials."""
    return {stage.stage.name: stage.total for stage in plan.stages}


def _val_accuracy(record: Record) -> float:
    assert record.best is not None
    return record.best.val_accuracy


def _dashboard_text(ready: Ready) -> str:
    if not ready.dashboard:
        return ""
    return f"dashboard {ready.dashboard}" + (f" (token in {ready.token})" if ready.token else "")


def _rate(trial: Trial, row: EpochRow, train_images: int) -> str:
    return f"{train_images / row.seconds:,.0f} images/s" if row.seconds and row.epoch else ""


def _not_done(counts: dict[Status, int]) -> str:
    bad = [f"{counts[s]} {s.value}" for s in (Status.FAILED, Status.DIVERGED, Status.PRUNED) if counts.get(s)]
    return " · " + ", ".join(bad) if bad else ""


class LiveView:
    """View for a terminal: a few lines that are redrawn in place."""

    def __init__(self, ready: Prepared, console: Console) -> None:
        self.state = State(ready)
        self._live = Live(get_renderable=self._draw, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def __call__(self, event: Event) -> None:
        self.state.update(event)

    def _draw(self) -> RenderableType:
        state, ready = self.state, self.state.ready
        stages = " · ".join(
            f"{stage.stage.name} {state.ended.get(stage.stage.name, 0)}/{stage.total}" for stage in state.plan.stages
        )
        times = f"{clock(state.elapsed)} elapsed, about {clock(state.seconds_left)} left"
        head = Table.grid(padding=(0, 1))
        head.add_row(
            ProgressBar(total=state.plan.total, completed=state.done, width=28),
            Text(f"{stages}{_not_done(state.counts)} · {times}"),
        )
        trials = Table.grid(padding=(0, 2))
        running = list(state.running.values())[:MOST_SHOWN]
        named = [
            [Text(printable(" ".join(part))) for part in setting_parts(trial.settings, state.axes)]
            for trial, _ in running
        ]
        columns = max(map(len, named), default=0)
        for (trial, row), parts in zip(running, named, strict=True):
            cells: list[Text | str] = ["", *parts, *[""] * (columns - len(parts))] if columns else ["", trial.stage]
            if row is None:
                trials.add_row(*cells, "starting")
                continue
            trials.add_row(
                *cells,
                f"epoch {row.epoch}/{trial.settings.epochs}",
                f"val {percent(row.val_accuracy)}" if row.val_accuracy is not None else "",
                f"loss {row.val_loss:.3g}" if row.val_loss is not None else "",
                _rate(trial, row, ready.sizes.train),
            )
        hidden = len(state.running) - len(running)
        tail = [Text(f"  and {hidden} more")] if hidden > 0 else []
        tail += [Text(printable(f"best so far  {best}")) for best in [state.best_text()] if best]
        tail += [Text(state.dashboard)] if state.dashboard else []
        return Group(head, trials, *tail) if state.running else Group(head, *tail)


class LineView:
    """View for pipes and log files: one line for each event, without most epochs."""

    def __init__(self, ready: Prepared, write: Callable[[str], None]) -> None:
        self.state = State(ready)
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
                val = "" if row.val_accuracy is None else f", val {percent(row.val_accuracy)}"
                epochs = event.trial.settings.epochs
                return f"{event.trial.stage}: {state.describe(event.trial)}: epoch {row.epoch}/{epochs}{val}{loss}"
            case Ended():
                how = f"{event.record.status.value}"
                if event.record.best:
                    shown = accuracy(event.record.best.val_accuracy, state.ready.sizes.val)
                    how += f", val {shown} at epoch {event.record.best_epoch}, {duration(event.record.seconds or 0)}"
                if event.record.error:
                    how += f": {event.record.error}"
                left = f"{state.done} of {state.plan.total}, about {duration(state.seconds_left)} left"
                return f"{event.trial.stage}: {state.describe(event.trial)}: {how} ({left})"


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


SHOWN_AS = {"not told apart": "not compared"}
"""Labels of the answer that programs read under an older name -> what people see."""


def labelled(rows: Sequence[tuple[str, str | None]]) -> str:
    """Write (label, text) rows as lines, the texts below each other."""
    shown = [(SHOWN_AS.get(label, label), text) for label, text in rows]
    width = max((len(label) for label, _ in shown), default=0)
    return "\n".join(f"{label:<{width}}  {text}" for label, text in shown)
