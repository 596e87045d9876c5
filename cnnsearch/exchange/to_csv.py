"""Writes trials and epochs as CSV: trials.csv with a column for each setting and score, epochs.csv, sweep.json."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd

from cnnsearch.errors import RequestError
from cnnsearch.exchange.going import OF_AN_EPOCH, Going, GoingSweep
from cnnsearch.exchange.writing import Written
from cnnsearch.storage.durable import write_whole
from cnnsearch.storage.paths import typed_path
from cnnsearch.storage.reading import read_bytes
from cnnsearch.words import printable

_FOUND_BY = ("trial_id", "status", "epochs_recorded")
"""Columns that say which trials a file holds, and how much of them."""


def write(sweep: GoingSweep, place: str) -> Written:
    """Write the files anew, each whole or not at all. Raises RequestError where the folder cannot be written."""
    folder = typed_path(place)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"--to csv:{printable(place)} cannot be written: {error.strerror or error}") from None
    file = folder / "trials.csv"
    before = _known(file)
    rows = [_row(trial) for trial in sweep.trials]
    trials = pd.DataFrame(rows, columns=None if rows else [*_FOUND_BY])
    epochs = [{"trial_id": trial.id, **row} for trial in sweep.trials for row in trial.epochs]
    curves = pd.DataFrame(epochs, columns=["trial_id", "epoch", *OF_AN_EPOCH]).dropna(axis="columns", how="all")
    write_whole(file, trials.to_csv(index=False).encode())
    write_whole(folder / "epochs.csv", curves.to_csv(index=False).encode())
    write_whole(folder / "sweep.json", (json.dumps(_facts(sweep), indent=1) + "\n").encode())
    now = {trial.id: (trial.status, len(trial.epochs)) for trial in sweep.trials}
    added = [id_ for id_ in now if id_ not in before]
    same = [id_ for id_, found in now.items() if before.get(id_) == found]
    new = [max(0, epochs - before.get(id_, ("", 0))[1]) for id_, (_, epochs) in now.items()]
    return Written(f"csv:{place}", len(added), len(now) - len(added) - len(same), len(same), sum(new))


def _known(file: Path) -> dict[str, tuple[str, int]]:
    """Trial id -> (status, epochs), of the trials in a file that was written before. Raises RequestError."""
    if not file.exists():
        return {}
    try:
        frame = pd.read_csv(io.BytesIO(read_bytes(file)), usecols=_FOUND_BY, dtype=str)
        ids, statuses, epochs = (frame[name].tolist() for name in _FOUND_BY)
        return {id_: (status, int(many)) for id_, status, many in zip(ids, statuses, epochs, strict=True)}
    except (OSError, ValueError):
        raise RequestError(f"{file} is there and was not written by share: give another folder") from None


def _row(trial: Going) -> dict[str, Any]:
    settings = {axis: value for axis, value in trial.settings.items() if axis != "seed"}
    return {
        "trial_id": trial.id,
        "stage": trial.stage,
        "status": trial.status,
        "seed": trial.settings.get("seed"),
        **settings,
        **trial.scores,
        **{name: value for name, value in trial.facts.items() if name not in settings},
        "seconds": trial.seconds,
        "started_at": trial.started_at.isoformat() if trial.started_at else None,
        "epochs_recorded": len(trial.epochs),
    }


def _facts(sweep: GoingSweep) -> dict[str, Any]:
    def of_stage(stage: str) -> dict[str, Any]:
        aims = {aim: "maximize" if higher else "minimize" for aim, higher in sweep.objectives(stage).items()}
        return {
            "objectives": aims,
            "space": {axis: values.model_dump() for axis, values in sweep.space(stage).items()},
        }

    return {
        "sweep": sweep.sweep.name,
        "title": sweep.sweep.title,
        "question": sweep.sweep.question,
        "results": sweep.results,
        "report": sweep.report,
        "stages": {stage: of_stage(stage) for stage in sweep.stages},
    }
