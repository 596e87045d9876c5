"""Configurations: trials that differ in nothing but their seed."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cnnsearch.spec.arguments import ARGS, GROUPS, plain_value
from cnnsearch.spec.axis_words import Value
from cnnsearch.spec.metric import ADDED as ADDED_METRICS, DEFAULT, METRICS
from cnnsearch.spec.settings import ADDED, ORDINARY

# In the order in which a configuration is described.
AXES = (
    "model", "weights", "fine_tune", "width", "lr", "batch_size", "dropout", "optimizer", "weight_decay", "momentum",
    *ADDED, "image_size", "epochs", "precision",
)  # fmt: skip

_UNRECORDED = {"dropout": 0.0} | ORDINARY
"""Axis -> its value in trials whose record leaves it out, or that were recorded before the axis existed."""


@dataclass(frozen=True)
class Configuration:
    """The finished trials of one cell of one stage, one for each seed. Reports call it a setting."""

    key: str
    """trial_id of its first trial."""
    order: int
    """Row of its first trial in the table: breaks ties."""
    stage: str
    values: Mapping[str, Value]
    """Axis -> value, for every axis."""
    trial_ids: tuple[str, ...]
    seeds: tuple[int, ...]
    parent: str | None
    """Key of the configuration it started from; the trial_id where that is not in the table."""
    scores: Mapping[str, float]
    """Column -> mean over seeds; columns without numbers are left out."""

    confirms: str | None = None
    """In the stage that confirms: trial_id of the first trial of the setting that was trained again."""

    @property
    def model(self) -> str:
        """Its model, or "" where the table has none."""
        return str(self.values.get("model") or "")

    metric: str = DEFAULT
    """What chose its trials' best epochs."""

    @property
    def worth(self) -> float:
        """The score that chooses the best, so that more is better; the least where it was not measured."""
        metric = METRICS[self.metric]
        value = self.scores.get(metric.measure)
        return -math.inf if value is None else metric.sign * value


_SCORES = (
    "best_epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "test_loss", "test_accuracy",
    "val_accuracy_before", "test_accuracy_before", "val_loss_before", "test_loss_before", "seconds", "parameters",
    *(f"{split}_{name}" for split in ("val", "test") for name in ADDED_METRICS),
)  # fmt: skip


def is_missing(value: Any) -> bool:
    """Whether a cell of a table is null: None, NaN or NA."""
    if value is None or isinstance(value, str | int):
        return value is None
    return bool(value != value if isinstance(value, float) else pd.isna(value))  # what a table has most is told fastest


class AxisValues(dict[str, Value]):
    """Axis -> value. An argument that a network or an optimizer does not have is None."""

    def __missing__(self, axis: str) -> Value:
        if axis.startswith(ARGS):
            return None
        raise KeyError(axis)


def axis_values(row: Mapping[Any, Any]) -> dict[str, Value]:
    """The hyperparameters of one row of the trials table, as plain Python values.

    Leaving an axis of `_UNRECORDED` out gives the same network as its value there, so both give that value.
    """
    values = AxisValues()
    for axis in AXES:
        raw: Any = row.get(axis)
        if is_missing(raw):
            values[axis] = _UNRECORDED.get(axis)
        elif axis in ("batch_size", "image_size", "epochs"):
            values[axis] = int(raw)  # a float where other rows are null
        else:
            values[axis] = raw.item() if hasattr(raw, "item") else raw
    for group in GROUPS:
        if not is_missing(args := row.get(group)):
            values.update(_arguments(group, str(args)))
    return values


@functools.lru_cache(maxsize=1024)
def _arguments(group: str, text: str) -> dict[str, Value]:
    """The arguments of a group, which a table has as a JSON object, as axes; none where it is none."""
    try:
        args = json.loads(text)
    except ValueError:
        return {}
    return {f"{group}.{name}": plain_value(args[name]) for name in sorted(args)} if isinstance(args, dict) else {}


def axes_in(every: Iterable[Mapping[str, Value]]) -> tuple[str, ...]:
    """The axes in the order in which a configuration is described, given the values of some: AXES and all arguments."""
    args = dict.fromkeys(axis for values in every for axis in values if axis.startswith(ARGS))
    return (AXES[0], *args, *AXES[1:])


def collect(rows: Sequence[Mapping[Any, Any]], values: Sequence[Mapping[str, Value]]) -> list[Configuration]:
    """Group the finished trials into configurations, in the order of the table.

    Args:
        rows: of the table of trials.
        values: the hyperparameters of each row.
    """
    cell: dict[str, tuple[Any, ...]] = {}
    for row, of_row in zip(rows, values, strict=True):
        cell[str(row["trial_id"])] = (row["stage"], _metric(row), *of_row.items())
    members: dict[tuple[Any, ...], list[tuple[int, Mapping[Any, Any]]]] = {}
    for order, row in enumerate(rows):
        if not is_comparable(row):
            continue
        parent = None if is_missing(row["parent_id"]) else str(row["parent_id"])
        key = (cell[str(row["trial_id"])], cell.get(parent, parent) if parent else None)
        members.setdefault(key, []).append((order, row))
    first = {key[0]: str(group[0][1]["trial_id"]) for key, group in reversed(members.items())}
    configurations = []
    for (_, parent_cell), group in members.items():
        by_seed = sorted(group, key=lambda member: (_seed(member[1]), member[0]))
        of_first = values[by_seed[0][0]]
        configurations.append(
            _configuration(by_seed, of_first, first.get(parent_cell, parent_cell), min(order for order, _ in group))
        )
    return configurations


def is_comparable(row: Mapping[Any, Any]) -> bool:
    """Whether a trial is done, or was stopped because it got no better: the rule of `Outcome.is_comparable`."""
    return bool(row["status"] == "done" or row.get("stopped_by") == "patience")


def _metric(row: Mapping[Any, Any]) -> str:
    return DEFAULT if is_missing(row.get("metric")) else str(row["metric"])


def _seed(row: Mapping[Any, Any]) -> int:
    return 0 if is_missing(row["seed"]) else int(row["seed"])


def _configuration(
    group: list[tuple[int, Mapping[Any, Any]]], values: Mapping[str, Value], parent: Any, order: int
) -> Configuration:
    rows = [row for _, row in group]
    scores = {}
    for column in _SCORES:
        known = [float(row[column]) for row in rows if not is_missing(row.get(column))]
        if known:
            scores[column] = sum(known) / len(known)
    return Configuration(
        key=str(rows[0]["trial_id"]),
        order=order,
        stage=str(rows[0]["stage"]),
        values=values,
        trial_ids=tuple(str(row["trial_id"]) for row in rows),
        seeds=tuple(_seed(row) for row in rows),
        parent=parent if isinstance(parent, str) else None,
        scores=scores,
        metric=_metric(rows[0]),
        confirms=None if is_missing(rows[0].get("confirms")) else str(rows[0]["confirms"]),
    )


def best_of(configurations: Iterable[Configuration]) -> Configuration | None:
    """The best by the sweep's metric on validation, the earliest of equals; fewer finished seeds lose to more.

    The same rule by which a later stage of the sweep chooses what to start from.
    """
    return max(configurations, key=lambda s: (len(s.trial_ids), s.worth, -s.order), default=None)


class Matching:
    """Finds configurations that differ in one axis alone."""

    def __init__(self, configurations: Sequence[Configuration], axis: str) -> None:
        """Sort the configurations by this axis, once for all pairs of its values."""
        self._sorted: dict[Value, list[tuple[int, Configuration]]] = {}
        numbers: dict[tuple[object, ...], int] = {}
        for one in configurations:
            rest = (one.parent, *((a, v) for a, v in one.values.items() if a != axis))
            number = numbers.setdefault(rest, len(numbers))
            self._sorted.setdefault(one.values[axis], []).append((number, one))
        self._by_rest = {value: dict(found) for value, found in self._sorted.items()}

    def pairs(self, value: Value, other: Value) -> list[tuple[Configuration, Configuration]]:
        """Pairs of configurations: the first has `value`, the second `other`, and all else is the same."""
        have = self._by_rest.get(other, {})
        return [(one, have[rest]) for rest, one in self._sorted.get(value, ()) if rest in have]


def matched(
    configurations: Sequence[Configuration], axis: str, value: Value, other: Value
) -> list[tuple[Configuration, Configuration]]:
    """Pairs of configurations that differ in `axis` alone: the first has `value`, the second `other`."""
    return Matching(configurations, axis).pairs(value, other)


def preferred(configurations: Sequence[Configuration], axis: str) -> Value:
    """The value of an axis whose configurations are the best on average, on validation."""
    return max(distinct(configurations, axis), key=mean_worths(configurations, axis).__getitem__)


def mean_worths(configurations: Iterable[Configuration], axis: str) -> dict[Value, float]:
    """Value of an axis -> mean `worth` of the configurations that have it."""
    worths: dict[Value, list[float]] = {}
    for one in configurations:
        worths.setdefault(one.values[axis], []).append(one.worth)
    return {value: sum(some) / len(some) for value, some in worths.items()}


def distinct(configurations: Iterable[Configuration], axis: str) -> list[Value]:
    """The values of an axis among configurations: numbers ascending, words in order of appearance."""
    values = list(dict.fromkeys(c.values[axis] for c in configurations))
    numbers = [value for value in values if isinstance(value, int | float)]
    return sorted(numbers) if len(numbers) == len(values) else values  # type: ignore[return-value]
