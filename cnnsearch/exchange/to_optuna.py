"""Writes trials into an Optuna storage: one study for each stage, named SWEEP/STAGE, that Optuna's own tools read."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import check_distribution_compatibility
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from cnnsearch.errors import RequestError
from cnnsearch.exchange.going import Going, GoingSweep
from cnnsearch.exchange.writing import Written
from cnnsearch.planning.search import distribution
from cnnsearch.spec.arguments import plain_value
from cnnsearch.spec.metric import MEASURES
from cnnsearch.spec.values import Values
from cnnsearch.storage.paths import typed_path
from cnnsearch.storage.reading import opened, parsed
from cnnsearch.words import printable

SQLITE = "sqlite:///"
ID, STATUS = "trial_id", "status"
"""Attributes of a trial by which it is found again."""
_STATES = {
    "running": TrialState.RUNNING,
    "done": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "diverged": TrialState.FAIL,
}
_Known = dict[tuple[str, str], FrozenTrial]
"""(trial id, status) -> the trial in the study."""


def write(sweep: GoingSweep, place: str) -> Written:
    """Write what is new into a journal file or an SQLite database. Raises RequestError."""
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    storage = _storage(place)
    counts = {"added": 0, "updated": 0, "same": 0, "epochs": 0}
    for stage in sweep.stages:
        study = _study(storage, sweep, stage)
        space, aims = sweep.space(stage), sweep.objectives(stage)
        before = study.get_trials(deepcopy=False)
        _refuse_other_choices(study.study_name, before, space)
        known = {_key(one): one for one in before if ID in one.user_attrs}
        for trial in sweep.trials:
            if trial.stage == stage:
                what, epochs = _write_trial(study, sweep, trial, known, space, aims)
                counts[what] += 1
                counts["epochs"] += epochs
    return Written(f"optuna:{place}", **counts)


def _storage(place: str) -> BaseStorage:
    if "://" in place and not place.startswith(SQLITE):
        raise RequestError(f"--to optuna:{printable(place)}: allowed are a journal file and sqlite:///FILE")
    file = typed_path(place.removeprefix(SQLITE))
    if file.is_dir() or not place.removeprefix(SQLITE):
        raise RequestError(f"--to optuna:{printable(place)}: give a file, not a folder")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if place.startswith(SQLITE):
            return RDBStorage(f"{SQLITE}{file}")
        if file.exists():
            refuse_other_lines(file)
        return JournalStorage(JournalFileBackend(str(file)))
    except OSError as error:
        raise RequestError(f"--to optuna:{printable(place)} cannot be written: {error.strerror or error}") from None
    except ValueError as error:
        raise RequestError(f"--to optuna:{printable(place)} is no journal of Optuna: {error}") from None
    except Exception as error:  # SQLAlchemy's and alembic's own
        reason = printable(str(error).splitlines()[0])
        raise RequestError(f"--to optuna:{printable(place)} is no database of this Optuna: {reason}") from None


def refuse_other_lines(file: Path) -> None:
    """Raise ValueError where a file has a line that no journal of Optuna has, OSError where it cannot be read."""
    with opened(file, follow=True) as content:
        for number, line in enumerate(content, 1):
            try:
                entry = parsed(line, gaps=True)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None
            if not isinstance(entry, dict) or not isinstance(entry.get("op_code"), int):
                raise ValueError(f"line {number} has no op_code")


def _study(storage: BaseStorage, sweep: GoingSweep, stage: str) -> Study:
    name, aims = f"{sweep.sweep.name}/{stage}", sweep.objectives(stage)
    directions = [StudyDirection.MAXIMIZE if higher else StudyDirection.MINIMIZE for higher in aims.values()]
    try:
        study = optuna.create_study(storage=storage, study_name=name, directions=directions)
    except DuplicatedStudyError:
        study = optuna.load_study(storage=storage, study_name=name)
        if study.directions != directions:
            raise RequestError(
                f"study {name} there has other objectives than {', '.join(aims)}; give another file"
            ) from None
    if list(study.metric_names or []) != list(aims):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names(list(aims))
    told = {
        "sweep": sweep.sweep.name,
        "stage": stage,
        "question": sweep.sweep.question,
        "results": sweep.results,
        "report": sweep.report,
    }
    for key, value in told.items():
        if study.user_attrs.get(key) != value:
            study.set_user_attr(key, value)
    return study


def _refuse_other_choices(name: str, trials: list[FrozenTrial], space: Mapping[str, Values]) -> None:
    """Raise RequestError where an axis has other values in a study: Optuna's searchers and plots take one space."""
    there = {axis: known for trial in trials for axis, known in trial.distributions.items()}
    for axis in there.keys() & space.keys():
        try:
            check_distribution_compatibility(there[axis], distribution(space[axis]))
        except ValueError:
            raise RequestError(f"study {name} there has other values of {axis}; give another file") from None


def _key(trial: FrozenTrial) -> tuple[str, str]:
    status = "running" if trial.state is TrialState.RUNNING else str(trial.user_attrs.get(STATUS))
    return str(trial.user_attrs[ID]), status


def _write_trial(
    study: Study, sweep: GoingSweep, trial: Going, known: _Known, space: Mapping[str, Values], aims: Mapping[str, bool]
) -> tuple[str, int]:
    """Write what is new of a trial; returns added, updated or same, and the number of epochs written."""
    first = next(iter(aims))
    reached = {int(row["epoch"]): row[first] for row in trial.epochs if first in row and first in MEASURES}
    before = known.get((trial.id, "running"))
    if before is None:
        if (trial.id, trial.status) in known:
            return "same", 0
        study.add_trial(_frozen(sweep, trial, space, aims, reached))
        return "added", len(reached)
    new = {epoch: value for epoch, value in reached.items() if epoch not in before.intermediate_values}
    storage, number = study._storage, before._trial_id
    for epoch, value in new.items():
        storage.set_trial_intermediate_value(number, epoch, value)
    if trial.has_ended:
        state, values = _outcome(trial, aims)
        for key, value in _attributes(sweep, trial).items():
            storage.set_trial_user_attr(number, key, value)
        storage.set_trial_state_values(number, state, values)
    return ("updated" if new or trial.has_ended else "same"), len(new)


def _frozen(
    sweep: GoingSweep, trial: Going, space: Mapping[str, Values], aims: Mapping[str, bool], reached: Mapping[int, float]
) -> FrozenTrial:
    state, values = _outcome(trial, aims)
    distributions = {axis: distribution(space[axis]) for axis in trial.params}
    params = {axis: distributions[axis].to_external_repr(distributions[axis].to_internal_repr(plain_value(value)))
              for axis, value in trial.params.items()}  # fmt: skip
    started = trial.started_at.astimezone().replace(tzinfo=None) if trial.started_at else datetime.now()
    return FrozenTrial(
        number=-1,  # the storage counts
        trial_id=-1,
        state=state,
        value=None,
        values=values,
        datetime_start=started,
        datetime_complete=started + timedelta(seconds=trial.seconds or 0.0) if state.is_finished() else None,
        params=params,
        distributions=distributions,
        user_attrs=_attributes(sweep, trial),
        system_attrs={},
        intermediate_values=dict(reached),
    )


def _outcome(trial: Going, aims: Mapping[str, bool]) -> tuple[TrialState, list[float] | None]:
    """The state of a trial and its values; without all of its values a trial cannot be complete."""
    state = _STATES[trial.status]
    found = [trial.scores.get(aim, trial.facts.get(aim)) for aim in aims]
    values = [float(value) for value in found if value is not None and math.isfinite(value)]
    if len(values) < len(aims):
        return (TrialState.FAIL if state is TrialState.COMPLETE else state), None
    return state, values if state in (TrialState.COMPLETE, TrialState.PRUNED) else None


def _attributes(sweep: GoingSweep, trial: Going) -> dict[str, Any]:
    """All else that is known of a trial, as JSON has it."""
    found: dict[str, Any] = {
        ID: trial.id,
        STATUS: trial.status,
        "seed": trial.settings.get("seed"),
        "settings": dict(trial.settings),
        "report": sweep.report,
    }
    if trial.has_ended:
        found |= {"scores": dict(trial.scores), "epochs": [dict(row) for row in trial.epochs], **trial.facts}
        found |= {"train_seconds": trial.seconds}
    return dict(json.loads(json.dumps(found)))
