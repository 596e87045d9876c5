"""Reads the runs of an MLflow store: of an SQLite database, opened for reading only, or of a folder `mlruns`.

MLflow itself is not needed, and nothing in the store is changed or run.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from cnnsearch.errors import RequestError, SpecError
from cnnsearch.exchange.foreign import MOST_COLUMNS, MOST_ROWS, STATUS, TRIAL, Raw, State
from cnnsearch.exchange.from_optuna import refuse_large
from cnnsearch.exchange.to_optuna import SQLITE
from cnnsearch.spec.document import read_back
from cnnsearch.storage.paths import typed_path
from cnnsearch.storage.reading import read_bytes
from cnnsearch.words import printable

EXPERIMENT = "experiment"
_STAGE = "cnnsearch.stage"
_STATES = {
    "FINISHED": State.DONE, "FAILED": State.FAILED, "KILLED": State.PRUNED, "RUNNING": State.RUNNING,
    "SCHEDULED": State.RUNNING, "3": State.DONE, "4": State.FAILED, "5": State.PRUNED, "1": State.RUNNING,
    "2": State.RUNNING,
}  # fmt: skip
"""Status as a database, and as the number that a folder has for it -> ours."""
_MOST_CELLS = 5_000_000
_MOST_FILE = 64 * 2**20

Row = tuple[str, str, Any]
"""Id of a run, name, value."""


def read(place: str, shown: str) -> Raw:
    """Read the runs of a store; of several experiments, each as a stage. Raises RequestError."""
    if place.startswith(("http://", "https://", "databricks")):
        raise RequestError(
            f"{shown}: servers are not read; give the store behind it, mlflow:sqlite:///FILE or mlflow:DIR"
        )
    path = typed_path(place.removeprefix(SQLITE).removeprefix("file://"))
    try:
        found = _from_folder(path) if path.is_dir() else _from_database(path)
    except (OSError, sqlite3.Error, ValueError, SpecError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise RequestError(f"{shown} is no store of MLflow that can be read: {printable(reason)[:300]}") from None
    runs, params, metrics, stages = found
    if not runs:
        raise RequestError(f"{shown} holds no runs")
    names = {name for _, name, _ in params}
    rows = {id_: {TRIAL: id_, STATUS: _STATES.get(status, State.DONE), EXPERIMENT: of} for id_, status, of in runs}
    for kind in (metrics, params):
        for id_, name, value in kind:
            if id_ in rows:
                rows[id_][name if kind is params or name not in names else f"metric {name}"] = value
    for id_, _, value in stages:
        if id_ in rows:
            rows[id_][EXPERIMENT] = value
    if len({name for row in rows.values() for name in row}) > MOST_COLUMNS:
        raise RequestError(f"{shown} has more than {MOST_COLUMNS:,} parameters and metrics")
    frame = pd.DataFrame(list(rows.values()))
    settings = list(dict.fromkeys(name for _, name, _ in params))
    for name in settings:  # which MLflow keeps as text
        numbers = pd.to_numeric(frame[name], errors="coerce")
        if numbers.notna().sum() == frame[name].notna().sum():
            frame[name] = numbers
    several = frame[EXPERIMENT].nunique() > 1
    return Raw(shown, "MLflow", frame, params=settings, stage=EXPERIMENT if several else None,
               measured="the latest value of each metric")  # fmt: skip


Found = tuple[list[Row], list[Row], list[Row], list[Row]]
"""Runs with status and experiment, parameters, metrics, and the stage that a sweep of ours gave a run."""


def _from_database(file: Path) -> Found:
    refuse_large(file)
    with closing(sqlite3.connect(f"file:{quote(str(file.absolute()))}?mode=ro", uri=True)) as database:
        database.execute("PRAGMA trusted_schema = OFF")
        database.text_factory = lambda content: content.decode("utf-8", "replace")
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if missing := {"experiments", "runs", "params", "latest_metrics", "tags"} - tables:
            raise ValueError(f"it has no table {min(missing)}")

        def rows(query: str) -> list[Any]:
            return list(_bounded(database.execute(query), _MOST_CELLS))

        runs = rows(
            "SELECT r.run_uuid, r.status, e.name FROM runs r JOIN experiments e USING (experiment_id) "
            "WHERE r.lifecycle_stage = 'active' ORDER BY r.start_time, r.run_uuid"
        )
        if len(runs) > MOST_ROWS:
            raise ValueError(f"it has more than {MOST_ROWS:,} runs")
        params = rows("SELECT run_uuid, key, value FROM params ORDER BY key")
        metrics = rows(
            "SELECT run_uuid, key, CASE WHEN is_nan THEN NULL ELSE value END FROM latest_metrics ORDER BY key"
        )
        stages = rows(f"SELECT run_uuid, key, value FROM tags WHERE key = '{_STAGE}'")
    return runs, params, metrics, stages


def _bounded(rows: Iterable[Any], most: int) -> Iterator[Any]:
    for number, row in enumerate(rows):
        if number == most:
            raise ValueError(f"it holds more than {most:,} rows")
        yield row


def _from_folder(folder: Path) -> Found:
    runs: list[Row] = []
    params: list[Row] = []
    metrics: list[Row] = []
    stages: list[Row] = []
    for experiment in _folders(folder):
        if not (experiment / "meta.yaml").is_file() or experiment.name == ".trash":
            continue
        name = str(_meta(experiment).get("name", experiment.name))
        for run in _folders(experiment):
            if not (run / "meta.yaml").is_file():
                continue
            meta = _meta(run)
            if meta.get("lifecycle_stage", "active") != "active":
                continue
            runs.append((run.name, str(meta.get("status")), name))
            params += [(run.name, key, text.strip()) for key, text in _files(run / "params")]
            metrics += [(run.name, key, _latest(text)) for key, text in _files(run / "metrics")]
            stages += [(run.name, key, text) for key, text in _files(run / "tags") if key == _STAGE]
            if len(runs) > MOST_ROWS:
                raise ValueError(f"it has more than {MOST_ROWS:,} runs")
    return runs, params, metrics, stages


def _folders(folder: Path) -> list[Path]:
    return sorted(one for one in folder.iterdir() if one.is_dir() and not one.is_symlink())


def _meta(folder: Path) -> dict[str, Any]:
    file = folder / "meta.yaml"
    found = read_back(read_bytes(file, _MOST_FILE).decode(errors="replace"), str(file))
    return found if isinstance(found, dict) else {}


def _files(folder: Path) -> Iterator[tuple[str, str]]:
    """Name -> content of the files in a folder; names with slashes are folders in it."""
    for file in sorted(folder.rglob("*")) if folder.is_dir() and not folder.is_symlink() else ():
        if file.is_file() and not file.is_symlink():
            yield file.relative_to(folder).as_posix(), read_bytes(file, _MOST_FILE).decode(errors="replace")


def _latest(text: str) -> float | None:
    """The value of the last line of a metric's file: time, value, step."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    try:
        value = float(max(lines, key=lambda line: (int(line[2]) if len(line) > 2 else 0, int(line[0])))[1])
    except (ValueError, IndexError):
        return None
    return value if value == value and abs(value) != float("inf") else None
