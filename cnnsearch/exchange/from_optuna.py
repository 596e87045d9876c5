"""Reads the trials of Optuna's studies: of an SQLite database, opened for reading only, or of a journal file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
import pandas as pd
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from cnnsearch.errors import RequestError
from cnnsearch.exchange.foreign import MOST_COLUMNS, MOST_ROWS, STATUS, TRIAL, Raw, State
from cnnsearch.exchange.to_optuna import SQLITE, refuse_other_lines
from cnnsearch.spec.explain import did_you_mean
from cnnsearch.storage.paths import typed_path
from cnnsearch.storage.reading import opened
from cnnsearch.words import LISTED, printable

STUDY = "study"
_MOST_BYTES = 2**31
_SQLITE_HEAD = b"SQLite format 3\0"
_STATES = {
    TrialState.COMPLETE: State.DONE,
    TrialState.PRUNED: State.PRUNED,
    TrialState.FAIL: State.FAILED,
    TrialState.RUNNING: State.RUNNING,
    TrialState.WAITING: State.RUNNING,
}


def read(place: str, shown: str, study: str | None = None) -> Raw:
    """Read a study, or all studies of a store that have the same objective, each as a stage. Raises RequestError."""
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    try:
        storage = _storage(typed_path(place.removeprefix(SQLITE)), place.startswith(SQLITE))
        names = sorted(optuna.get_all_study_names(storage))
        if study is not None and study not in names:
            known = ", ".join(map(printable, names[:LISTED]))
            raise RequestError(f"{shown} has no study {printable(study)}.{did_you_mean(study, names)} It has {known}")
        studies = [optuna.load_study(storage=storage, study_name=name) for name in names if study in (None, name)]
        studies = [one for one in studies if one.get_trials(deepcopy=False)]
        if not studies:
            raise RequestError(f"{shown} holds no trials")
        scores = _scores(studies, shown)
        rows = [_row(one, trial, scores) for one in studies for trial in one.get_trials(deepcopy=False)]
    except RequestError:
        raise
    except OSError as error:
        raise RequestError(f"{shown} cannot be read: {printable(error.strerror or str(error))}") from None
    except Exception as error:  # SQLAlchemy's, alembic's, and whatever a damaged file causes
        reason = printable(str(error).splitlines()[0] if str(error) else type(error).__name__)[:300]
        raise RequestError(f"{shown} is no store of this version of Optuna: {reason}") from None
    if len(rows) > MOST_ROWS or len({name for row in rows for name in row}) > MOST_COLUMNS:
        raise RequestError(f"{shown} holds more than {MOST_ROWS:,} trials, or than {MOST_COLUMNS:,} names")
    params = dict.fromkeys(name for row in rows for name in row if name.startswith(_PARAM))
    frame = pd.DataFrame(rows).rename(columns={name: _short(name, rows) for name in params})
    return Raw(
        source=shown,
        tool="Optuna",
        frame=frame,
        params=[_short(name, rows) for name in params],
        scores=scores,
        stage=STUDY if len(studies) > 1 else None,
    )


_PARAM, _ATTRIBUTE = "param\0", "attribute\0"
"""Before the names of parameters and attributes, until it is known whether they are also those of another column."""


def _short(name: str, rows: list[dict[str, Any]]) -> str:
    plain = name.removeprefix(_PARAM)
    return plain if not any(plain in row for row in rows[:1]) else f"param {plain}"


def refuse_large(file: Path) -> None:
    """Raise ValueError where a file is larger than any store is read, OSError where it is none."""
    with opened(file, follow=True) as content:
        if os.fstat(content.fileno()).st_size > _MOST_BYTES:
            raise ValueError(f"it has more than {_MOST_BYTES:,} bytes")


def _storage(file: Path, is_database: bool) -> BaseStorage:
    refuse_large(file)
    with opened(file, follow=True) as content:
        is_database = is_database or content.read(len(_SQLITE_HEAD)) == _SQLITE_HEAD
    if is_database:
        return RDBStorage(f"{SQLITE}file:{quote(str(file.absolute()))}?mode=ro&uri=true")
    try:
        refuse_other_lines(file)
    except ValueError as error:
        raise RequestError(f"{file} is no journal of Optuna: {error}") from None
    return JournalStorage(JournalFileBackend(str(file)))


def _scores(studies: list[Study], shown: str) -> dict[str, bool | None]:
    """Objective -> whether more is better. Raises RequestError where studies have different objectives."""
    found: list[dict[str, bool | None]] = []
    for study in studies:
        many = len(study.directions)
        names = study.metric_names or (["value"] if many == 1 else [f"value {index}" for index in range(many)])
        ways = [direction is StudyDirection.MAXIMIZE for direction in study.directions]
        found.append(dict(zip(names, ways, strict=True)))
    if any(one != found[0] for one in found):
        known = ", ".join(printable(study.study_name) for study in studies[:LISTED])
        raise RequestError(f"{shown} holds studies with different objectives; choose one: --map study=NAME, of {known}")
    return found[0]


def _row(study: Study, trial: FrozenTrial, scores: dict[str, bool | None]) -> dict[str, Any]:
    values = trial.values or [None] * len(scores)
    plain = {
        key: value
        for key, value in trial.user_attrs.items()
        if key not in (TRIAL, STATUS, STUDY, *scores) and isinstance(value, str | int | float | bool)
    }
    return {
        TRIAL: str(trial.number),
        STATUS: _STATES[trial.state],
        STUDY: study.study_name,
        **dict(zip(scores, values, strict=True)),
        **{f"{_PARAM}{name}": _plain(value) for name, value in trial.params.items()},
        **plain,
    }


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool) or value is None else json.dumps(value, default=str)
