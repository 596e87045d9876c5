"""The report's tables: every trial, and stages that continue others before and after."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cnnsearch.evidence.comparisons import Score
from cnnsearch.evidence.configurations import Configuration, axes_in, best_of, is_missing
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.evidence.families import families
from cnnsearch.evidence.mistakes import recalls
from cnnsearch.evidence.statements import champions, of_change
from cnnsearch.report.words import points
from cnnsearch.spec.axis_words import Value, format_value, words
from cnnsearch.spec.metric import DEFAULT, METRICS, Metric
from cnnsearch.words import duration


@dataclass(frozen=True)
class Cell:
    """The text of a cell and, if it holds a number, the value by which to sort it."""

    text: str
    sort: float | None = None


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    cells: tuple[Cell, ...]
    is_best: bool = False
    is_done: bool = True


@dataclass(frozen=True)
class Column:
    """A column's heading; numeric columns are aligned right."""

    title: str
    numeric: bool = False


@dataclass(frozen=True)
class Table:
    """Columns and rows."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]

    def first(self, most: int) -> Table:
        """The table with its first `most` rows alone."""
        return replace(self, rows=self.rows[:most])


_NOTHING = Cell("–")


def _replicate(evidence: Evidence, record: Mapping[Any, Any]) -> Cell:
    """The seed of a trial, or its fold, counted from 1: "3", "2.3" for the third of the second repeat."""
    split = evidence.tables.sweep.folds
    if split is None or is_missing(record.get("fold")):
        return _number(record.get("seed"), "{:.0f}")
    fold, repeat = int(record["fold"]) + 1, int(record["repeat"]) + 1
    return Cell(f"{repeat}.{fold}" if split.repeats > 1 else str(fold), sort=float(split.k * repeat + fold))


def trials(evidence: Evidence, most: int | None = None) -> Table:
    """List every trial that ended, in the order of the table; if there are more than `most`, only the best ones."""
    listed = [*zip(evidence.rows, evidence.values, strict=True)]
    if most is not None and len(listed) > most:
        metric = METRICS[evidence.tables.sweep.metric]
        listed = sorted(listed, key=lambda one: -_validation(one[0], metric))[:most]
    records, values = [record for record, _ in listed], [of_record for _, of_record in listed]
    axes = _shown_axes(evidence, values)
    several_seeds = len({record["seed"] for record in records if not is_missing(record["seed"])}) > 1
    several_stages = len({record["stage"] for record in records}) > 1
    stopped = any(record["status"] == "pruned" for record in records)
    columns = [Column("stage")] if several_stages else []
    columns += [Column("trial", numeric=True)] if evidence.attempts else []
    columns += [Column(words(axis).short, numeric=_is_numeric(values, axis)) for axis in axes]
    columns += [Column(evidence.unit, numeric=True)] if several_seeds else []
    counted = any(not is_missing(record.get("parameters")) for record in records)
    columns += [Column("trainable parameters", numeric=True)] if counted else []
    splits = evidence.measured
    led = [] if evidence.metric.name in ("accuracy", "loss") else [evidence.metric]
    columns += [Column(f"{splits[split]} {one.words}", True) for one in led for split in splits]
    columns += [Column(f"{splits[split]} {score}", True) for score in ("accuracy", "loss") for split in splits]
    columns += [Column("best epoch", True)]
    columns += [Column("epochs trained", True)] if stopped else []
    columns += [Column("time", True), Column("status")]
    best = set(evidence.best.trial_ids) if evidence.best else set()
    rows = []
    for record, known in listed:
        cells = [Cell(str(record["stage"]))] if several_stages else []
        cells += [_place(evidence, record)] if evidence.attempts else []
        cells += [_weights_cell(known[axis]) if axis == "weights" else _value_cell(known[axis]) for axis in axes]
        cells += [_replicate(evidence, record)] if several_seeds else []
        cells += [_number(record.get("parameters"), "{:,.0f}")] if counted else []
        done = record["status"] in ("done", "pruned")  # of a stopped trial, its best until then
        cells += [_metric(one, record, split) if done else _NOTHING for one in led for split in splits]
        cells += [_accuracy(evidence, record, split) if done else _NOTHING for split in splits]
        cells += [_number(record.get(f"{split}_loss"), "{:.3f}") if done else _NOTHING for split in splits]
        cells += [_number(record.get("best_epoch"), "{:.0f}") if done else _NOTHING]
        cells += [_number(_epochs(evidence, record), "{:.0f}")] if stopped else []
        seconds: Any = record.get("seconds")
        cells += [_NOTHING if is_missing(seconds) else Cell(duration(float(seconds)), float(seconds))]
        reason = "" if is_missing(record.get("error")) else f": {record['error']}"
        cells += [Cell(f"{record['status']}{reason}")]
        rows.append(Row(tuple(cells), is_best=str(record["trial_id"]) in best, is_done=record["status"] == "done"))
    return Table(tuple(columns), tuple(rows))


def _validation(record: Mapping[Any, Any], metric: Metric) -> float:
    score: Any = record.get(metric.measure)
    return -math.inf if is_missing(score) or record["status"] != "done" else metric.sign * float(score)


def _place(evidence: Evidence, record: Mapping[Any, Any]) -> Cell:
    """A cell with the trial's number in its search, by which figures and findings name it; empty without a search."""
    known = evidence.attempts.get(str(record["trial_id"]))
    return _NOTHING if known is None else Cell(f"{known[1].number:,}", float(known[1].number))


def _epochs(evidence: Evidence, record: Mapping[Any, Any]) -> int | None:
    for search in evidence.searches:
        if search.stage == record["stage"]:
            return search.epochs_of(str(record["trial_id"]))
    return None


def _shown_axes(evidence: Evidence, rows: Sequence[Mapping[str, Value]]) -> list[str]:
    """List the axes that vary; weights and fine-tuning mode also if they are not the usual ones."""
    usual = {"weights": {None, "none"}, "fine_tune": {None, "full"}}
    shown = set(evidence.varying or ["model"])
    shown |= {axis for axis, values in usual.items() if any(row[axis] not in values for row in rows)}
    return [axis for axis in axes_in(rows) if axis in shown]


def _weights_cell(value: Any) -> Cell:
    """A cell with the name of a weights file without its folder, which the description of the sweep gives."""
    return _NOTHING if value is None else Cell(str(value).replace("\\", "/").rstrip("/").rsplit("/", 1)[-1])


def _is_numeric(rows: Sequence[Mapping[str, Value]], axis: str) -> bool:
    values = [row[axis] for row in rows if row[axis] is not None]
    return bool(values) and not any(isinstance(value, str) for value in values)


def _value_cell(value: Any) -> Cell:
    if value is None:
        return _NOTHING
    return Cell(format_value(value), float(value) if isinstance(value, int | float) else None)


def _number(value: Any, form: str) -> Cell:
    return _NOTHING if is_missing(value) else Cell(form.format(float(value)), float(value))


def _metric(metric: Metric, record: Mapping[Any, Any], split: str) -> Cell:
    value: Any = record.get(f"{split}_{metric.name}")
    return _NOTHING if is_missing(value) else Cell(metric.text(float(value)), float(value))


def _accuracy(evidence: Evidence, record: Mapping[Any, Any], split: str) -> Cell:
    value: Any = record.get(f"{split}_accuracy")
    n = evidence.answered_by(str(record["trial_id"]), split)
    if is_missing(value) or n == 0:
        return _NOTHING
    fraction = min(1.0, float(value))
    return Cell(Score.of(fraction, n).text, fraction)


def before_after(evidence: Evidence, stage: str) -> Table:
    """Show the score and the loss of each setting of a stage, before and after its training."""
    axes = evidence.axes(stage)
    columns = [Column("from"), *(Column(words(axis).full, numeric=True) for axis in axes)]
    splits = evidence.measured
    for split in splits:
        columns += [Column(f"{splits[split]} {evidence.metric.words} {when}", True) for when in ("before", "after")]
    columns += [Column(f"change on {evidence.judged}, points", True)]
    columns += [Column(f"{splits[split]} loss", True) for split in splits]
    models = [group[0].model for group in families(evidence, stage)]
    one_a_model = len(set(models)) == len(models)
    rows = []
    for group in families(evidence, stage):
        best = best_of(group)
        parent = evidence.by_key.get(group[0].parent or "")
        start = group[0].model if parent is None or one_a_model else evidence.label(parent, omit=axes)
        for configuration in group:
            cells = [Cell(start), *(_value_cell(configuration.values[axis]) for axis in axes)]
            for split in splits:
                for moment in ("before", "best"):
                    score = evidence.score(configuration, split, moment)
                    cells.append(Cell(score.text, score.value) if score else _NOTHING)
            comparison = evidence.statements.get(of_change(configuration))
            cells.append(
                Cell(points(comparison.difference).replace(" points", ""), comparison.difference.value)
                if comparison
                else _NOTHING
            )
            for split in splits:
                before, after = (configuration.scores.get(f"{split}_loss{moment}") for moment in ("_before", ""))
                known = before is not None and after is not None
                cells.append(Cell(f"{before:.2f} → {after:.2f}", after) if known else _NOTHING)
            rows.append(Row(tuple(cells), is_best=best is not None and configuration.key == best.key))
    return Table(tuple(columns), tuple(rows))


_MOST_BESIDE = 2
"""Best settings of other models that are shown beside the best one."""
_MOST_WORK = 100_000
"""Images of all seeds times classes, up to which AUROC and average precision get their intervals: it takes seconds."""


def metrics(evidence: Evidence) -> Table | None:
    """Show every metric of the best setting, and of the best contenders of other models; None without answers."""
    best = evidence.best
    if best is None or evidence.correct(best) is None:
        return None
    others = [c for c in champions(evidence, evidence.contenders) if c.model != best.model][:_MOST_BESIDE]
    splits = list(evidence.measured)
    shown = [(best, split) for split in splits] + [(c, evidence.judged_on) for c in others]
    titles = [evidence.measured[split] for split in splits]
    if others:
        titles = [f"{evidence.label(c)}: {evidence.measured[split]}" for c, split in shown]
    ordered = [evidence.metric, *(metric for metric in METRICS.values() if metric is not evidence.metric)]
    rows = [(metric, [_measured(evidence, metric, c, split) for c, split in shown]) for metric in ordered]
    return Table(
        (Column("metric"), *(Column(title, numeric=True) for title in titles)),
        tuple(
            Row((Cell(metric.words + ("" if metric.is_larger_better else " (less is better)")), *cells))
            for metric, cells in rows
            if any(cell is not _NOTHING for cell in cells)
        ),
    )


def _measured(evidence: Evidence, metric: Metric, configuration: Configuration, split: str) -> Cell:
    """A metric with its interval; alone where that cannot be had, or would take long."""
    value = configuration.scores.get(f"{split}_{metric.name}")
    work = evidence.size(split) * len(evidence.classes) * len(configuration.trial_ids)
    is_slow = metric.needs_probabilities and metric.by_class and work > _MOST_WORK
    if metric.name == DEFAULT and metric is not evidence.metric:
        score = evidence.accuracy(configuration, split)
    elif is_slow and metric is not evidence.metric:
        score = None
    else:
        score = evidence.score_by(metric, configuration, split)
    if score is not None:
        return Cell(score.text, score.value)
    return _NOTHING if value is None else Cell(metric.text(value), value)


def by_class(evidence: Evidence) -> Table | None:
    """Show how many images of each class the best setting finds, the fewest first; None if not recorded."""
    found = recalls(evidence, evidence.best) if evidence.best else []
    if not found:
        return None
    columns = (Column("class"), Column(f"{evidence.judged} images", numeric=True), Column("recall", numeric=True))
    found.sort(key=lambda item: item[1].value)
    return Table(
        columns,
        tuple(
            Row((Cell(name), Cell(f"{score.n:,}", float(score.n)), Cell(score.text, score.value)))
            for name, score in found
        ),
    )
