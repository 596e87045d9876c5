"""How far the sweeps of a results folder are, in words and for programs. Only reads, also while a run writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from cnnsearch import told
from cnnsearch.errors import RequestError
from cnnsearch.planning.labels import setting, varied_axes
from cnnsearch.planning.trial import Status
from cnnsearch.results.looking import Folder, Look
from cnnsearch.spec.metric import METRICS
from cnnsearch.spec.settings import Settings
from cnnsearch.words import duration, printable

MOST_SHOWN = 8
"""Most running trials of a sweep that are listed."""


def looks_at(path: Path) -> list[Look]:
    """Look at a sweep's results, or at all those in a folder, by name. Raises RequestError where there is no folder."""
    if not path.is_dir():
        raise RequestError(f"{path} is no folder" if path.exists() else f"there is no folder {path}")
    if is_sweep(path):
        return [Folder(path).look()]
    return [Folder(inside).look() for inside in sorted(path.iterdir()) if inside.is_dir() and is_sweep(inside)]


def is_sweep(path: Path) -> bool:
    """Whether a folder holds the results of a sweep, or a run has just taken it."""
    results = Folder(path).results
    return results.sweep_file.is_file() or results.held_since() is not None


def status_text(looks: Sequence[Look]) -> str:
    """A few lines for each sweep; empty where there is none."""
    return "\n\n".join(_text(look) for look in looks)


def status_of(looks: Sequence[Look]) -> told.StatusOfSweeps:
    """The same for programs."""
    return told.StatusOfSweeps(sweeps=[_sweep(look) for look in looks])


def _state(look: Look) -> Literal["running", "finished", "stopped"]:
    if look.is_held:
        return "running"
    return "finished" if look.planned is not None and look.ended >= look.planned else "stopped"


def _text(look: Look) -> str:
    state = _state(look)
    head = f"{look.name} · {state}" + (f" by {look.holder}" if look.holder else "")
    counts = [f"{look.counts[status]} {status.value}" for status in Status if look.counts.get(status)]
    counts = counts or ["0 done"]
    counts += [f"{len(look.running)} running"] if look.running else []
    left = _left(look) - len(look.running)
    counts += [f"{left} left"] if left > 0 else []
    of = f" of {look.planned}" if look.planned is not None else ""
    trials = f"{look.ended}{of} ended: {', '.join(counts)}"
    if look.seconds_left is not None:
        trials += f"; about {duration(look.seconds_left)} left"
    rows = [("trials", trials)]
    shown = look.running[:MOST_SHOWN]
    for index, one in enumerate(shown):
        metric = METRICS[one.settings.metric]
        score = _latest(one.epochs, metric.measure)
        val = f", val {metric.shown(score)}" if score is not None else ""
        text = f"{_named(look, one.stage, one.settings)}: epoch {one.epoch}/{one.settings.epochs}{val}"
        rows.append(("" if index else "running", text))
    if len(look.running) > len(shown):
        rows.append(("", f"and {len(look.running) - len(shown)} more"))
    if look.best is not None and look.best.best is not None:
        best = look.best
        rows.append(
            ("best", f"{_named(look, best.stage, best.settings)}: val {look.best_shown} at epoch {best.best_epoch}")
        )
    rows += [("note", note) for note in look.notes]
    rows.append(("results", str(look.folder)))
    return "\n".join([head, *(f"  {label:<9}{printable(text)}" for label, text in rows)])


def _left(look: Look) -> int:
    """Number of trials that have not ended; where the sweep's are not known, of those that have begun."""
    if look.planned is None:
        return len(look.running) + len(look.left)
    return max(0, look.planned - look.ended)


def _named(look: Look, stage: str, settings: Settings) -> str:
    axes = varied_axes(look.sweep) if look.sweep else []
    return setting(settings, axes) or stage


def _latest(rows: Sequence[dict[str, Any]], column: str = "val_accuracy") -> float | None:
    scores = [row[column] for row in rows if row.get(column) is not None]
    return float(scores[-1]) if scores else None


def _sweep(look: Look) -> told.SweepStatus:
    best = look.best
    return told.SweepStatus(
        sweep=look.name,
        results=str(look.folder),
        state=_state(look),
        by=look.holder or None,
        planned=look.planned,
        counts=told.Counts(**{status.value: count for status, count in look.counts.items()}, left=_left(look)),
        running=[
            told.RunningTrial(
                id=one.trial_id,
                name=_named(look, one.stage, one.settings),
                stage=one.stage,
                epoch=one.epoch,
                epochs=one.settings.epochs,
                validation_accuracy=_latest(one.epochs),
                metric=one.settings.metric,
                validation_score=_latest(one.epochs, METRICS[one.settings.metric].measure),
            )
            for one in look.running
        ],
        seconds_left=look.seconds_left,
        best=told.BestSoFar(
            id=best.trial_id,
            name=_named(look, best.stage, best.settings),
            epoch=best.best_epoch,
            validation_accuracy=best.best.val_accuracy,
            metric=best.settings.metric,
            validation_score=best.reached,
        )
        if best is not None and best.best is not None
        else None,
        notes=list(look.notes),
    )
