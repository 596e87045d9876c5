"""What a results folder holds, in a form that every other tool can take: trials, their settings, epochs and scores."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from cnnsearch.errors import ResultsError
from cnnsearch.evidence.configurations import axis_values, is_missing
from cnnsearch.results.looking import Begun, Folder
from cnnsearch.results.tables import Tables, load
from cnnsearch.spec import document
from cnnsearch.spec.axis_words import Value
from cnnsearch.spec.metric import ADDED
from cnnsearch.spec.stage import HIGHER_IS_BETTER, Stage
from cnnsearch.spec.sweep import Sweep
from cnnsearch.spec.values import LISTED_KINDS, NUMERIC_KINDS, Values
from cnnsearch.storage.paths import typed_path
from cnnsearch.storage.remote import is_uri, redacted

RUNNING = "running"
SCORES = (
    "train_loss", "train_accuracy", "val_loss", "val_accuracy", "test_loss", "test_accuracy", "val_accuracy_before",
    "test_accuracy_before", "val_loss_before", "test_loss_before",
    *(f"{split}_{name}" for split in ("val", "test") for name in ADDED),
)  # fmt: skip
"""Columns of the table of trials that hold what a trial came to, at its best epoch."""
_NAME = r"[A-Za-z0-9_-]{1,80}"
"""Pattern of ids and stages, of which other tools make paths."""
OF_AN_EPOCH = (
    "train_loss",
    "train_accuracy",
    "val_loss",
    "val_accuracy",
    "lr",
    *(f"val_{name}" for name in ADDED),
    "seconds",
)
COSTS = {"seconds": "seconds", "parameters": "parameters", "bytes": "model_bytes"}
"""Objective that is no metric -> its column."""
FACTS = ("parent_id", "confirms", "error", "stopped_by", "best_epoch", "epochs_done", "device", "host", "precision")


@dataclass(frozen=True)
class Going:
    """A trial that goes to another tool."""

    id: str
    stage: str
    status: str
    """How it ended, or running."""
    settings: Mapping[str, Value]
    """Every hyperparameter, the seed among them; those that the trial does not have are left out."""
    params: Mapping[str, Value]
    """Of these, the values on the axes of its stage that apply to it."""
    epochs: tuple[Mapping[str, float], ...] = ()
    """Each with `epoch`, and what was measured after it and is a finite number."""
    scores: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else is known and not null, of `FACTS` and `COSTS`."""
    started_at: datetime | None = None
    """With its zone, UTC."""
    seconds: float | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing more is to come, but where a failed trial is tried again."""
        return self.status != RUNNING


@dataclass(frozen=True)
class GoingSweep:
    """A sweep that goes to another tool."""

    sweep: Sweep
    results: str
    """Folder or URI of its results."""
    report: str
    """URI of its report, which may not be made yet."""
    trials: tuple[Going, ...]

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages that have trials, in the order of the sweep."""
        known = [stage.name for stage in self.sweep.stages]
        found = {trial.stage for trial in self.trials}
        return tuple(name for name in [*known, *sorted(found - {*known})] if name in found)

    def objectives(self, stage: str) -> dict[str, bool]:
        """What the trials of a stage are judged by: column -> whether more is better."""
        search = next((one.search for one in self.sweep.stages if one.name == stage), None)
        aims = search.aims if search is not None and search.is_adaptive and search.objectives else (self.sweep.measure,)
        return {COSTS.get(aim, aim): aim in HIGHER_IS_BETTER for aim in aims}

    def space(self, stage: str) -> dict[str, Values]:
        """The axes that vary among the trials of a stage, also by the stages that it starts from."""
        return space_of(self.sweep, stage)


def gathered(results: Path, shown: str | None = None) -> GoingSweep:
    """Read the trials of a results folder, also of a sweep that runs at the moment. The folder is only read.

    Args:
        results: the folder.
        shown: what it is called where it is the copy of one in a bucket.

    Raises ResultsError.
    """
    tables = load(results, store=False)
    for column in ("trial_id", "stage"):
        if odd := [name for name in set(tables.trials[column]) if not re.fullmatch(_NAME, str(name))]:
            raise ResultsError(f"{results / 'trials.parquet'} is damaged ({column} holds {document.shown(odd[0])})")
    look = Folder(results).look()
    space = functools.cache(functools.partial(space_of, tables.sweep))
    ended = list(_ended(tables, space))
    known = {trial.id for trial in ended}
    running = [_begun(one, space(one.stage)) for one in look.running if one.trial_id not in known]
    place = shown if shown is not None else str(results.resolve())
    report = f"{redacted(place)}/report.html" if is_uri(place) else (typed_path(place) / "report.html").as_uri()
    return GoingSweep(tables.sweep, redacted(place), report, (*ended, *running))


def space_of(sweep: Sweep, stage: str) -> dict[str, Values]:
    """The axes that vary among the trials of a stage. Those of the stage that confirms may be of any other."""
    by_name = {one.name: one for one in sweep.stages}
    if stage not in by_name:
        return _varying([one.space for one in sweep.stages])
    found: list[Mapping[str, Values]] = []
    at: Stage | None = by_name[stage]
    while at is not None:
        found.append({axis: values for axis, values in at.space.items() if not any(axis in one for one in found)})
        at = by_name.get(at.start_from.stage) if at.start_from else None
    return _varying(reversed(found))


def _varying(spaces: Iterable[Mapping[str, Values]]) -> dict[str, Values]:
    found: dict[str, list[Values]] = {}
    for space in spaces:
        for axis, values in space.items():
            found.setdefault(axis, []).append(values)
    merged = {axis: _merged(several) for axis, several in found.items()}
    return {axis: values for axis, values in merged.items() if values.varies}


def _merged(several: list[Values]) -> Values:
    """All values that an axis takes in several stages."""
    if len(several) == 1:
        return several[0]
    if all(one.kind in NUMERIC_KINDS for one in several) and len({one.kind for one in several}) == 1:
        bounds = (min(one.args[0] for one in several), max(one.args[1] for one in several))
        return several[0].model_copy(update={"args": bounds, "when": {}})
    listed = [value for one in several if one.kind not in NUMERIC_KINDS for value in one.args]
    different = [value for index, value in enumerate(listed) if value not in listed[:index]]
    return Values.model_validate({LISTED_KINDS[0]: different}) if different else several[0]


def _ended(tables: Tables, space: Any) -> Iterable[Going]:
    epochs = {str(id_): rows for id_, rows in tables.epochs.groupby("trial_id")}
    for row in tables.trials.to_dict("records"):
        settings = {axis: value for axis, value in axis_values(row).items() if value is not None}
        settings["seed"] = int(row["seed"])
        started: Any = row.get("started_at")
        facts = {name: _plain(row[name]) for name in (*FACTS, *COSTS.values()) if not is_missing(row.get(name))}
        yield Going(
            id=str(row["trial_id"]),
            stage=str(row["stage"]),
            status=row["status"],
            settings=settings,
            params=params_of(settings, space(str(row["stage"]))),
            epochs=_epochs(epochs[str(row["trial_id"])].to_dict("records")) if str(row["trial_id"]) in epochs else (),
            scores=_numbers(row, SCORES),
            facts=facts,
            started_at=None if is_missing(started) else pd.Timestamp(started).to_pydatetime().replace(tzinfo=UTC),
            seconds=None if is_missing(row.get("seconds")) else float(row["seconds"]),
        )


def _begun(trial: Begun, space: Mapping[str, Values]) -> Going:
    left_out = ("metric", "code")
    settings = {axis: value for axis, value in trial.settings.flat().items() if axis not in left_out}
    return Going(
        id=trial.trial_id,
        stage=trial.stage,
        status=RUNNING,
        settings=settings,
        params=params_of(settings, space),
        epochs=_epochs(trial.epochs),
        started_at=datetime.fromtimestamp(trial.begun_at, UTC),
    )


def params_of(settings: Mapping[str, Value], space: Mapping[str, Values]) -> dict[str, Value]:
    """A trial's values on the axes of a space. An axis whose condition does not hold is none of its."""
    return {
        axis: settings[axis]
        for axis, values in space.items()
        if axis in settings and settings[axis] in values and values.applies(settings)
    }


def _epochs(rows: Iterable[Mapping[Any, Any]]) -> tuple[Mapping[str, float], ...]:
    return tuple({"epoch": int(row["epoch"]), **_numbers(row, OF_AN_EPOCH)} for row in rows)


def _numbers(row: Mapping[Any, Any], names: Iterable[str]) -> dict[str, float]:
    """The columns of a row that hold a finite number."""
    return {name: float(row[name]) for name in names if not is_missing(row.get(name)) and math.isfinite(row[name])}


def _plain(value: Any) -> Any:
    """A cell of a table as Python has it; whole numbers beside nulls come as fractions."""
    value = value.item() if hasattr(value, "item") else value
    return int(value) if isinstance(value, float) and value.is_integer() else value
