"""One trial explained, from what its results folder holds: for programs, and in words. Only reads."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from cnnsearch import told
from cnnsearch.errors import RequestError
from cnnsearch.evidence.comparisons import Score
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.planning.labels import setting, told_axes, varied_axes
from cnnsearch.planning.trial import Status
from cnnsearch.report.advice import again
from cnnsearch.report.trial_advice import trial_advice
from cnnsearch.results.folder import Results
from cnnsearch.results.looking import Begun, Folder
from cnnsearch.results.record import Record
from cnnsearch.results.tables import load
from cnnsearch.spec.arguments import ARGS, GROUPS
from cnnsearch.spec.axis_words import describe, format_value
from cnnsearch.spec.metric import DEFAULT, METRICS, Metric
from cnnsearch.spec.settings import Settings
from cnnsearch.telling import score_of, setting_of
from cnnsearch.use.choose import BEST, meant, refuse_tables_alone, repeat_command, results_in, some
from cnnsearch.words import labelled, percent, printable, signed

LOG_LINES = 3
MOST_NEIGHBOURS = 5
"""Most neighbours that are shown in words."""
LONGEST_CURVE = 40
"""Most characters of a curve."""
BLOCKS = "▁▂▃▄▅▆▇█"
NO_NUMBER = "×"

CurveName = Literal["train_loss", "train_accuracy", "validation_loss", "validation_accuracy"]
_CURVES: dict[CurveName, str] = {
    "train_loss": "train_loss",
    "validation_loss": "val_loss",
    "train_accuracy": "train_accuracy",
    "validation_accuracy": "val_accuracy",
}
"""Curve -> its key in the rows of epochs."""
_PLACE = re.compile(r" \((\w+\.py, line \d+, in [\w<>]+)\)$")
"""Where an exception came from, at the end of what a record says of it."""


def explanation(folder: str, asked: str) -> told.Explanation:
    """Explain a trial.

    Args:
        folder: of the results of one sweep.
        asked: the trial's id, the beginning of it, or `best`.

    Raises RequestError where there is no such trial, or several, and ResultsError where the folder cannot be read.
    """
    results = results_in(folder, "explain looks at")
    tables = load(results.path, store=False)
    evidence = Evidence(tables)
    look = Folder(results.path).look()
    records = results.records({})
    begun = {one.trial_id: one for one in (*look.running, *look.left)}
    if not begun:
        refuse_tables_alone(results, tables, records)
    if asked == BEST:
        id_ = evidence.best_trial or ""
        if id_ not in records:
            raise RequestError(f"{results.path}: no trial has finished, so there is no best one")
    else:
        known = [*records, *begun]
        trials = f"Its trials: {some(known)}." if known else "No trial has begun."
        id_ = meant(asked, known, results.path, " ".join([trials, f"{BEST}: the best by validation.", *look.notes]))
    ended = id_ in records
    one: Record | Begun = records[id_] if ended else begun[id_]
    record, others = (records[id_] if ended else None), [r for r in records.values() if _is_beside(r, one)]
    place = results.trial(id_)
    rows = place.epochs()
    scores = {split: _score(evidence, record, split) for split in evidence.measured}
    whole = next((c for c in evidence.configurations if id_ in c.trial_ids), None)
    found = _PLACE.search((record.error if record else None) or "")
    tries = trial_advice(evidence, record, others) if record else []
    sweep = evidence.tables.sweep
    return told.Explanation(
        sweep=sweep.name,
        results=str(results),
        trial=_trial(results, one, record, len([row for row in rows if row["epoch"] > 0]), evidence),
        name=setting(one.settings, [axis for axis in varied_axes(sweep) or told_axes(sweep) if axis != "seed"]),
        is_best=id_ == evidence.best_trial,
        validation=score_of(scores["val"]),
        test=score_of(scores.get("test")),
        setting=told.Setting(**setting_of(evidence, whole)) if whole else None,
        curves=[curve for name, key in _CURVES.items() if (curve := _curve(name, key, rows)) is not None],
        neighbours=_neighbours(one.settings, others),
        place=found[1] if found else None,
        log=[_line(row, one.settings.epochs) for row in rows[-LOG_LINES:]],
        log_file=str(place.epochs_file) if place.epochs_file.is_file() else None,
        to_try=[told.Suggestion(text=one.text, command=one.command) for one in tries],
        folder=str(place.path),
        files=sorted(os.listdir(place.path)),
        again=again(evidence),
        repeat=repeat_command(results.path, id_, record.settings)
        if record and record.status is not Status.FAILED
        else None,
    )


def _is_beside(record: Record, one: Record | Begun) -> bool:
    return record.stage == one.stage and record.trial_id != one.trial_id


def _trial(results: Results, one: Record | Begun, record: Record | None, epochs: int, evidence: Evidence) -> told.Trial:
    begun = results.trial(one.trial_id).begun() if record is None else None
    best = record.best if record else None
    return told.Trial(
        id=one.trial_id,
        stage=one.stage,
        status=record.status.value if record else "left",
        settings=one.settings.flat(),
        parent=record.parent_id if record else begun.parent_id if begun else None,
        error=record.error if record else None,
        epochs_done=max(record.epochs_done, epochs) if record else epochs,
        best_epoch=record.best_epoch if record else None,
        validation_accuracy=best.val_accuracy if best else None,
        validation_score=record.reached if record else None,
        test_accuracy=best.test_accuracy if best and not evidence.tables.is_sealed else None,
        seconds=record.seconds if record else None,
    )


def _score(evidence: Evidence, record: Record | None, split: str) -> Score | None:
    """The score of this one network, as the report's table of trials has it."""
    value = getattr(record.best, f"{split}_accuracy") if record and record.best else None
    n = evidence.answered_by(record.trial_id, split) if record else 0
    return None if value is None or n == 0 else Score.of(min(1.0, value), n)


def _curve(name: CurveName, key: str, rows: Sequence[Mapping[str, Any]]) -> told.Curve | None:
    """A curve without the epochs at its beginning at which it is not measured; None where it never is a number."""
    measured = [row for row in rows if row["epoch"] > 0 or row.get(key) is not None]
    known = [(row[key], row["epoch"]) for row in measured if row.get(key) is not None]
    if not known:
        return None
    best, epoch = min(known) if name.endswith("loss") else max(known, key=lambda one: (one[0], -one[1]))
    return told.Curve(
        name=name,
        epochs=[row["epoch"] for row in measured],
        values=[row.get(key) for row in measured],
        best=best,
        best_epoch=epoch,
    )


def _neighbours(settings: Settings, others: Sequence[Record]) -> list[told.Neighbour]:
    """Those that differ in fewest settings, the best first; other seeds of the same setting only without others."""
    changed = {one.trial_id: _changed(settings, one.settings) for one in others}
    others = [one for one in others if changed[one.trial_id]]
    others = [one for one in others if any(part.axis != "seed" for part in changed[one.trial_id])] or others
    fewest = min((len(changed[one.trial_id]) for one in others), default=0)
    nearest = [one for one in others if len(changed[one.trial_id]) == fewest]
    found = [
        told.Neighbour(
            id=one.trial_id,
            status=one.status.value,
            changed=changed[one.trial_id],
            validation_accuracy=one.best.val_accuracy if one.best else None,
            validation_score=one.reached,
        )
        for one in nearest
    ]
    worth = {one.trial_id: one.worth for one in nearest}
    return sorted(found, key=lambda one: -worth[one.id])


def _changed(here: Settings, there: Settings) -> list[told.Changed]:
    """The settings that differ, without those that change nothing, such as the momentum of adam."""
    deciding = {*here.deciding(), *there.deciding(), "weights"}
    names = [name for name in Settings.model_fields if name in deciding and name not in GROUPS]
    names += sorted(axis for axis in {*here.flat(), *there.flat()} if axis.startswith(ARGS))
    return [
        told.Changed(axis=name, here=here.value(name), there=there.value(name))
        for name in names
        if here.value(name) != there.value(name)
    ]


def _line(row: Mapping[str, Any], epochs: int) -> str:
    parts = [f"epoch {row['epoch']}/{epochs}"]
    for key, name in (("train_loss", "train loss"), ("val_loss", "validation loss")):
        if row.get(key) is not None:
            parts.append(f"{name} {row[key]:.4g}")
        elif row["epoch"] > 0:
            parts.append(f"{name} is no number")
    parts += [f"validation {percent(row['val_accuracy'])}"] if row.get("val_accuracy") is not None else []
    return ", ".join(parts)


_ENDS = {
    "done": "trained to its end", "failed": "failed", "diverged": "diverged", "pruned": "stopped early",
    "left": "has not ended",
}  # fmt: skip


def explanation_text(one: told.Explanation) -> str:
    """The same in words, on one screen."""
    trial = one.trial
    epochs = f"{trial.epochs_done} of {trial.settings['epochs']} epochs"
    best = " · the best by validation" if one.is_best else ""
    head = f"{one.sweep} · trial {trial.id} · {trial.stage} · {_ENDS[trial.status]}, {epochs}{best}"
    rows: list[tuple[str, str]] = [("setting", f"{one.name or trial.stage}, seed {trial.settings['seed']}")]
    rows += _why(one)
    rows += _scores(one)
    rows += _under("curves", _drawn(one.curves))
    rows += _under("neighbours", _beside(one))
    rows += _under("to try", _tips(one))
    rows += _log(one)
    rows += [("files", f"{one.folder}: {', '.join(one.files)}")]
    rows += [("repeat it", one.repeat)] if one.repeat else []
    rows += [("again", one.again)] if one.again else []
    return f"{head}\n{labelled([(label, printable(text)) for label, text in rows])}"


def _under(label: str, lines: Sequence[str]) -> list[tuple[str, str]]:
    return [("" if index else label, line) for index, line in enumerate(lines)]


def _tips(one: told.Explanation) -> list[str]:
    """What to try; of a command that adds options to the one under `again`, these alone."""
    lines = []
    for tip in one.to_try:
        added = (tip.command or "").removeprefix(one.again or "").strip()
        lines += [tip.text, *([f"  again, with {added}"] if added else [])]
    return lines


def _why(one: told.Explanation) -> list[tuple[str, str]]:
    error = one.trial.error
    return [] if error is None else _under("why", [f"at {one.place}", _PLACE.sub("", error)] if one.place else [error])


def _log(one: told.Explanation) -> list[tuple[str, str]]:
    """Where its log is, and the end of it where it broke or may still be running."""
    lines = [] if one.trial.status in ("done", "pruned") else list(one.log)
    lines += [f"{one.log_file}, a line for each epoch"] if one.log_file else []
    if one.trial.status == "left":
        lines.append("while a run trains it, its worker's log is under Logs in the run's dashboard (docs/dashboard.md)")
    return _under("log", lines)


def _scores(one: told.Explanation) -> list[tuple[str, str]]:
    own, metric = _in_words(one.validation, one.test, METRICS[DEFAULT]), _metric(one)
    if not own:
        return []
    rows = [f"{own}, at epoch {one.trial.best_epoch}"]
    if metric.name != DEFAULT and one.trial.validation_score is not None:
        rows = [f"validation {metric.words} {metric.text(one.trial.validation_score)}", f"accuracy: {rows[0]}"]
    if one.setting is not None and len(one.setting.seeds) > 1:
        whole = _in_words(one.setting.validation, one.setting.test, metric)
        rows.append(f"its setting, over {len(one.setting.seeds)} seeds: {whole}")
    return _under("scores", rows)


def _metric(one: told.Explanation) -> Metric:
    return METRICS[str(one.trial.settings.get("metric") or DEFAULT)]


def _in_words(validation: told.Score | None, test: told.Score | None, metric: Metric) -> str:
    scores = {"validation": validation, "test": test}
    measured = {name: _measured(score, metric) for name, score in scores.items() if score is not None}
    what = "" if metric.name == DEFAULT else f" {metric.words}"
    return ", ".join(f"{name}{what} {text}" for name, text in measured.items())


def _measured(score: told.Score, metric: Metric) -> str:
    return Score(score.value, score.low, score.high, score.images, score.seeds, metric.is_share).text


def _drawn(curves: Sequence[told.Curve]) -> list[str]:
    """A line for each curve: its name, its shape, and its first, best and last value."""
    names = [curve.name.replace("_", " ") for curve in curves]
    shapes = [sparkline(curve.values) for curve in curves]
    lines = []
    for curve, name, shape in zip(curves, names, shapes, strict=True):
        show = (lambda value: f"{value:.4g}") if curve.name.endswith("loss") else percent
        first, last = (NO_NUMBER if value is None else show(value) for value in (curve.values[0], curve.values[-1]))
        which = "lowest" if curve.name.endswith("loss") else "highest"
        lines.append(
            f"{name:<{max(map(len, names))}}  {shape:<{max(map(len, shapes))}}  {first} → {last}, "
            f"{which} {show(curve.best)} at epoch {curve.best_epoch}"
        )
    return lines


def sparkline(values: Sequence[float | None], width: int = LONGEST_CURVE) -> str:
    """A curve as characters of eight heights, from its least to its largest value; × where it is no number.

    One that has more values than there is width for is shown by the means of neighbouring ones.
    """
    blocks = min(width, len(values))
    parts = [values[at * len(values) // blocks : (at + 1) * len(values) // blocks] for at in range(blocks)]
    heights: list[float | None] = []
    for part in parts:
        known = [value for value in part if value is not None]
        heights.append(sum(known) / len(known) if len(known) == len(part) else None)
    numbers = [height for height in heights if height is not None]
    low, spread = (min(numbers), max(numbers) - min(numbers)) if numbers else (0.0, 0.0)
    top = len(BLOCKS) - 1
    return "".join(
        NO_NUMBER if height is None else BLOCKS[round(top * (height - low) / spread) if spread else 0]
        for height in heights
    )


def _beside(one: told.Explanation) -> list[str]:
    lines, metric = [], _metric(one)
    is_usual = metric.name == DEFAULT
    own = one.trial.validation_accuracy if is_usual else one.trial.validation_score
    for other in one.neighbours[:MOST_NEIGHBOURS]:
        parts = [f"{describe(part.axis, part.there)} (here {format_value(part.here)})" for part in other.changed]
        reached = other.validation_accuracy if is_usual else other.validation_score
        if reached is None:
            score: str = other.status
        else:
            score = f"validation {'' if is_usual else f'{metric.words} '}{metric.text(reached)}"
            score += "" if own is None else f", {_points(reached - own)}"
            score += "" if other.status == "done" else f", {_ENDS[other.status]}"
        lines.append(f"{', '.join(parts)}: {score}  [{other.id[:8]}]")
    if len(one.neighbours) > MOST_NEIGHBOURS:
        lines.append(f"and {len(one.neighbours) - MOST_NEIGHBOURS} more")
    return lines


def _points(difference: float) -> str:
    text = signed(100 * difference)
    return f"{text if text.startswith('−') else f'+{text}'} points"
