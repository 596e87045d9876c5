"""Writes trials as runs of MLflow, in an experiment named like the sweep. It needs the extra `mlflow`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

from cnnsearch.errors import RequestError
from cnnsearch.exchange.going import OF_AN_EPOCH, Going, GoingSweep
from cnnsearch.exchange.writing import Written
from cnnsearch.words import printable

ID, STATUS, EPOCHS = "cnnsearch.trial_id", "cnnsearch.status", "cnnsearch.epochs"
"""Tags of a run by which it is found again, and that say what was written of it."""
_STATES = {"running": "RUNNING", "done": "FINISHED", "pruned": "KILLED", "failed": "FAILED", "diverged": "FAILED"}
_AT_ONCE = 500
"""Metrics that are sent at a time; MLflow takes 1,000 items."""


def write(sweep: GoingSweep, place: str) -> Written:
    """Write what is new to a tracking store: sqlite:///FILE, or the address of a server. Raises RequestError."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError:
        raise RequestError("--to mlflow: needs MLflow: pip install 'cnnsearch[mlflow]'") from None
    try:
        client = MlflowClient(tracking_uri=place)
        experiment = _experiment(client, sweep)
        known = {run.data.tags[ID]: run for run in _runs(client, experiment) if ID in run.data.tags}
        counts = {"added": 0, "updated": 0, "same": 0, "epochs": 0}
        for trial in sweep.trials:
            what, epochs = _write_trial(client, experiment, sweep, trial, known.get(trial.id))
            counts[what] += 1
            counts["epochs"] += epochs
    except MlflowException as error:
        reason = printable(str(error).splitlines()[0])[:300]
        raise RequestError(f"--to mlflow:{printable(place)} cannot be written: {reason}") from None
    return Written(f"mlflow:{place}", **counts)


def _experiment(client: Any, sweep: GoingSweep) -> str:
    """The id of the sweep's experiment, made where there is none, with what the sweep is as tags."""
    found = client.get_experiment_by_name(sweep.sweep.name)
    id_ = str(found.experiment_id if found else client.create_experiment(sweep.sweep.name))
    tags = {"cnnsearch.question": sweep.sweep.question, "cnnsearch.report": sweep.report}
    for stage in sweep.stages:
        space = {axis: values.model_dump() for axis, values in sweep.space(stage).items()}
        aims = {aim: "maximize" if higher else "minimize" for aim, higher in sweep.objectives(stage).items()}
        tags |= {f"cnnsearch.space.{stage}": json.dumps(space), f"cnnsearch.objectives.{stage}": json.dumps(aims)}
    for key, value in tags.items():
        if value and (not found or found.tags.get(key) != value):
            client.set_experiment_tag(id_, key, value)
    return id_


def _runs(client: Any, experiment: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_runs([experiment], max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _write_trial(client: Any, experiment: str, sweep: GoingSweep, trial: Going, run: Any) -> tuple[str, int]:
    """Write what is new of a trial; returns added, updated or same, and the number of epochs written."""
    from mlflow.entities import Metric, Param, RunTag

    began = round(trial.started_at.timestamp() * 1000) if trial.started_at else 0
    tags = run.data.tags if run else {}
    last = int(tags.get(EPOCHS, -1))
    new = [row for row in trial.epochs if row["epoch"] > last]
    if run and not new and tags.get(STATUS) == trial.status:
        return "same", 0
    id_ = run.info.run_id if run else None
    if id_ is None:
        first = {ID: trial.id, "cnnsearch.stage": trial.stage, "cnnsearch.report": sweep.report}
        name = f"{trial.stage} {trial.id}"
        id_ = client.create_run(experiment, start_time=began or None, tags=first, run_name=name).info.run_id
        client.log_batch(id_, params=[Param(axis, str(value)) for axis, value in trial.settings.items()])
    spent, metrics = 0.0, []
    for row in trial.epochs:
        spent += row.get("seconds", 0.0)
        if row in new:
            at, step = began + round(spent * 1000), int(row["epoch"])
            metrics += [Metric(name, row[name], at, step) for name in OF_AN_EPOCH if name in row]
    if trial.has_ended and tags.get(STATUS) != trial.status:
        at, step = began + round((trial.seconds or 0.0) * 1000), int(trial.facts.get("best_epoch", 0))
        costs = {"seconds": trial.seconds, **{name: trial.facts.get(name) for name in ("parameters", "model_bytes")}}
        final = {**trial.scores, **{name: float(value) for name, value in costs.items() if value is not None}}
        metrics += [Metric(f"best.{name}", value, at, step) for name, value in final.items()]
    for begin in range(0, len(metrics), _AT_ONCE):
        client.log_batch(id_, metrics=metrics[begin : begin + _AT_ONCE])
    facts = {f"cnnsearch.{name}": str(value)[:5000] for name, value in trial.facts.items()}
    epochs = str(max((int(row["epoch"]) for row in trial.epochs), default=-1))
    # The tags come last: what was cut off before them is written again, which changes nothing.
    client.log_batch(id_, tags=[RunTag(k, v) for k, v in {**facts, EPOCHS: epochs, STATUS: trial.status}.items()])
    if trial.has_ended:
        ended = began + round((trial.seconds or 0.0) * 1000)
        client.set_terminated(id_, _STATES[trial.status], end_time=ended or None)
    return ("updated" if run else "added"), len(new)
