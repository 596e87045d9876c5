"""Settings: trials that differ in nothing but their seed, and the words for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from cnnsearch.spec.settings import ADDED, ORDINARY

if TYPE_CHECKING:
    from cnnsearch.results.tables import Tables

Value = float | int | str | bool | None

# In the order in which a setting is described.
AXES = (
    "model", "weights", "fine_tune", "width", "lr", "batch_size", "dropout", "optimizer", "weight_decay", "momentum",
    *ADDED, "image_size", "epochs", "precision",
)  # fmt: skip

_WITHOUT = {"dropout": 0.0} | ORDINARY
"""Axis -> the value of trials that do without it, or were recorded before there was such an axis."""


class AxisWords(NamedTuple):
    """What an axis is called in a label, in a sentence, and in the plural."""

    short: str
    full: str
    plural: str


WORDS = {
    "lr": AxisWords("lr", "learning rate", "learning rates"),
    "batch_size": AxisWords("batch", "batch size", "batch sizes"),
    "weight_decay": AxisWords("decay", "weight decay", "weight decays"),
    "fine_tune": AxisWords("fine-tune", "fine-tuning mode", "fine-tuning modes"),
    "image_size": AxisWords("size", "image size", "image sizes"),
    "weights": AxisWords("weights", "initial weights", "initial weights"),
    "lr_schedule": AxisWords("schedule", "learning-rate schedule", "learning-rate schedules"),
    "warmup_epochs": AxisWords("warm-up", "warm-up", "lengths of warm-up"),
    "label_smoothing": AxisWords("smoothing", "label smoothing", "amounts of label smoothing"),
    "augment": AxisWords("augment", "augmentation", "augmentations"),
    "class_weights": AxisWords("class weights", "class weighting", "class weightings"),
    "epochs": AxisWords("epochs", "number of epochs", "numbers of epochs"),
}

# Said without their axis: "residual", not "model residual".
_BARE = {"model", "optimizer", "precision"}


def words(axis: str) -> AxisWords:
    """The names of an axis; an unknown one is named after its column."""
    plain = axis.replace("_", " ")
    return WORDS.get(axis, AxisWords(plain, plain, f"{plain}s" if not plain.endswith("s") else plain))


def format_value(value: Value) -> str:
    """A hyperparameter's value as people write it: 0.0001, 1e-5, 32, adam."""
    if value is None:
        return "none"
    if isinstance(value, float):
        text = f"{value:.4g}"
        return text.replace("e-0", "e-").replace("e+0", "e")
    return str(value)


def describe(axis: str, value: Value) -> str:
    """One axis and its value, as in a label: "lr 0.001", "no dropout", "residual", "fine-tuning: head"."""
    if axis in ("dropout", "weight_decay", "warmup_epochs", "label_smoothing") and not value:
        return f"no {words(axis).full}"
    if axis in ("augment", "class_weights") and value == "none":
        return f"no {words(axis).full}"
    if axis in _BARE and isinstance(value, str):
        return value
    if axis == "fine_tune":
        return f"fine-tuning: {format_value(value)}"
    return f"{words(axis).short} {format_value(value)}"


@dataclass(frozen=True)
class Setting:
    """The finished trials of one cell of one stage, one trial a seed. Scores are means over them."""

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
    """Key of the setting it started from, or the trial_id where that is not in the table."""
    scores: Mapping[str, float]
    """Column -> mean over seeds; columns without numbers are left out."""

    @property
    def model(self) -> str:
        """Its model, or "" where the table has none."""
        return str(self.values.get("model") or "")

    @property
    def val_accuracy(self) -> float:
        """What selection looks at; -1 where it was not measured."""
        return self.scores.get("val_accuracy", -1.0)


_SCORES = (
    "best_epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "test_loss", "test_accuracy",
    "val_accuracy_before", "test_accuracy_before", "val_loss_before", "test_loss_before", "seconds", "parameters",
)  # fmt: skip


def is_missing(value: Any) -> bool:
    """Whether a cell of a table is null, whichever null it is."""
    return value is None or (not isinstance(value, str) and bool(pd.isna(value)))


def axis_values(row: Mapping[Any, Any]) -> dict[str, Value]:
    """The hyperparameters of one row of the trials table, as plain Python values.

    No dropout and dropout 0 are the same network, so they are the same value; and so for what is in `_WITHOUT`.
    """
    values: dict[str, Value] = {}
    for axis in AXES:
        raw: Any = row.get(axis)
        if is_missing(raw):
            values[axis] = _WITHOUT.get(axis)
        elif axis in ("batch_size", "image_size", "epochs"):
            values[axis] = int(raw)  # a float where other rows are null
        else:
            values[axis] = raw.item() if hasattr(raw, "item") else raw
    return values


def collect(tables: Tables) -> list[Setting]:
    """The settings of the finished trials, in the order of the table."""
    rows = tables.trials.to_dict("records")
    cell: dict[str, tuple[Any, ...]] = {}
    for row in rows:
        cell[str(row["trial_id"])] = (row["stage"], *axis_values(row).values())
    members: dict[tuple[Any, ...], list[tuple[int, dict[Any, Any]]]] = {}
    for order, row in enumerate(rows):
        if not is_comparable(row):
            continue
        parent = None if is_missing(row["parent_id"]) else str(row["parent_id"])
        key = (cell[str(row["trial_id"])], cell.get(parent, parent) if parent else None)
        members.setdefault(key, []).append((order, row))
    first = {key[0]: str(group[0][1]["trial_id"]) for key, group in reversed(members.items())}
    settings = []
    for (_, parent_cell), group in members.items():
        by_seed = sorted(group, key=lambda member: (_seed(member[1]), member[0]))
        settings.append(_setting(by_seed, first.get(parent_cell, parent_cell), min(order for order, _ in group)))
    return settings


def is_comparable(row: Mapping[Any, Any]) -> bool:
    """As `plan.Outcome.is_comparable` has it: done, or stopped because it got no better."""
    return bool(row["status"] == "done" or row.get("stopped_by") == "patience")


def _seed(row: Mapping[Any, Any]) -> int:
    return 0 if is_missing(row["seed"]) else int(row["seed"])


def _setting(group: list[tuple[int, dict[Any, Any]]], parent: Any, order: int) -> Setting:
    rows = [row for _, row in group]
    scores = {}
    for column in _SCORES:
        known = [float(row[column]) for row in rows if not is_missing(row.get(column))]
        if known:
            scores[column] = sum(known) / len(known)
    return Setting(
        key=str(rows[0]["trial_id"]),
        order=order,
        stage=str(rows[0]["stage"]),
        values=axis_values(rows[0]),
        trial_ids=tuple(str(row["trial_id"]) for row in rows),
        seeds=tuple(_seed(row) for row in rows),
        parent=parent if isinstance(parent, str) else None,
        scores=scores,
    )
