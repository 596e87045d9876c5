"""The three result tables: their columns, building them from records, and reading them.

A table is derived from records and can always be rebuilt from them. Accuracies are fractions in [0, 1], losses are
means over examples, times are seconds. Columns are only ever added.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cnnsearch.durable import replacing
from cnnsearch.errors import ResultsError, RunError
from cnnsearch.plan import Plan, make_plan
from cnnsearch.records import Measures, Record, Results
from cnnsearch.spec import Settings, Sweep
from cnnsearch.sweepfile import from_yaml

TRIALS = pa.schema(
    [
        ("trial_id", pa.string()),
        ("sweep", pa.string()),
        ("stage", pa.string()),
        ("parent_id", pa.string()),
        ("status", pa.string()),  # done, failed, diverged, pruned
        ("error", pa.string()),
        ("model", pa.string()),
        ("width", pa.float64()),
        ("weights", pa.string()),
        ("fine_tune", pa.string()),
        ("lr", pa.float64()),
        ("batch_size", pa.int64()),
        ("dropout", pa.float64()),
        ("optimizer", pa.string()),
        ("weight_decay", pa.float64()),
        ("momentum", pa.float64()),
        ("image_size", pa.int64()),
        ("epochs", pa.int64()),
        ("seed", pa.int64()),
        ("precision", pa.string()),
        ("parameters", pa.int64()),
        ("best_epoch", pa.int64()),
        ("train_loss", pa.float64()),
        ("train_accuracy", pa.float64()),
        ("val_loss", pa.float64()),
        ("val_accuracy", pa.float64()),
        ("test_loss", pa.float64()),
        ("test_accuracy", pa.float64()),
        ("val_accuracy_before", pa.float64()),
        ("test_accuracy_before", pa.float64()),
        ("val_loss_before", pa.float64()),
        ("test_loss_before", pa.float64()),
        ("seconds", pa.float64()),
        ("images_per_second", pa.float64()),
        ("peak_memory_bytes", pa.int64()),
        ("device", pa.string()),
        ("threads", pa.int64()),
        ("host", pa.string()),
        ("started_at", pa.timestamp("us", tz="UTC")),
        ("schema_version", pa.int64()),
    ]
)

EPOCHS = pa.schema(
    [
        ("trial_id", pa.string()),
        ("epoch", pa.int64()),  # 0 is before training, where that was measured
        ("train_loss", pa.float64()),
        ("train_accuracy", pa.float64()),
        ("val_loss", pa.float64()),
        ("val_accuracy", pa.float64()),
        ("lr", pa.float64()),
        ("seconds", pa.float64()),
    ]
)

PREDICTIONS = pa.schema(
    [
        ("trial_id", pa.string()),
        ("split", pa.string()),  # val, test
        ("moment", pa.string()),  # before (any training of this trial), best (its best epoch)
        ("example", pa.string()),
        ("label", pa.string()),
        ("predicted", pa.string()),
        ("confidence", pa.float32()),
    ]
)

SCHEMAS = {"trials": TRIALS, "epochs": EPOCHS, "predictions": PREDICTIONS}


@dataclass(frozen=True)
class Tables:
    """Everything a report is made from."""

    folder: Path
    trials: pd.DataFrame
    """A row a trial that ended; columns of `TRIALS`."""
    epochs: pd.DataFrame
    """A row a trial and epoch; columns of `EPOCHS`."""
    predictions: pd.DataFrame
    """A row a trial, split, moment and example; columns of `PREDICTIONS`."""
    sweep: dict[str, Any]
    """The resolved sweep, as in sweep.yaml."""
    provenance: dict[str, Any]
    """Runs with their commands, versions and hardware."""
    data: dict[str, Any]
    """Source, classes, counts a class and split, fingerprint, warnings."""
    pictures: dict[str, Any]
    """Base64 PNGs of some examples; may be empty."""
    planned: int
    """Trials the sweep has, ended or not."""


def load(folder: Path | str) -> Tables:
    """Read the tables of a results folder, building them anew where records have changed since.

    Raises ResultsError where the folder holds no sweep.
    """
    results = Results(Path(folder))
    if not results.path.is_dir():
        raise ResultsError(f"there is no folder {results.path}")
    try:
        text = results.sweep_file.read_text(encoding="utf-8")
    except OSError:
        raise ResultsError(f"{results.path} is not the results of a sweep: it has no sweep.yaml") from None
    sweep = from_yaml(text, str(results.sweep_file))
    data = results.read("data.json")
    records = results.records()
    digest = _digest(text, data, records)
    stored = _stored(results, digest, any_digest=not records)
    if stored is None:
        outcomes = {id_: record.outcome for id_, record in records.items()}
        weights = {(model, name): digest for model, name, digest in data.get("weights", [])}
        plan = make_plan(sweep, data["fingerprint"], outcomes, weights)
        tables, planned = _build(results, sweep, data, plan, records), plan.total
        with contextlib.suppress(RunError):  # a folder that cannot be written can still be read
            _store(results, tables, digest, planned)
    else:
        tables, planned = stored
    data.pop("examples", None)  # they are in the predictions
    frames = {name: table.to_pandas() for name, table in tables.items()}
    return Tables(
        folder=results.path,
        **frames,
        sweep=sweep.to_dict(),
        provenance=results.read("provenance.json"),
        data=data,
        pictures=results.read("pictures.json"),
        planned=planned,
    )


def _digest(sweep: str, data: dict[str, Any], records: dict[str, Record]) -> str:
    """Changes whenever sweep, data or records do, and not with the version that reads them."""
    parts = [sweep, str(data.get("fingerprint")), *(f"{id_} {records[id_].checksum}" for id_ in sorted(records))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _stored(results: Results, digest: str, *, any_digest: bool) -> tuple[dict[str, pa.Table], int] | None:
    """The tables on disk and the number of trials planned, where they are whole and of these records."""
    tables, planned = {}, 0
    for name, schema in SCHEMAS.items():
        file = results.path / f"{name}.parquet"
        try:
            table = pq.read_table(file)
        except (OSError, pa.ArrowException):
            return None
        written = table.schema.metadata or {}
        if not any_digest and written.get(b"cnnsearch.digest") != digest.encode():
            return None
        planned = int(written.get(b"cnnsearch.planned", b"0"))
        tables[name] = _with_columns(table, schema)
    return tables, planned or len(tables["trials"])


def _with_columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table of an older schema with the columns it lacks, null."""
    for column in schema:
        if column.name not in table.column_names:
            table = table.append_column(column, pa.nulls(len(table), column.type))
    return table.select(schema.names)


def _store(results: Results, tables: dict[str, pa.Table], digest: str, planned: int) -> None:
    metadata = {"cnnsearch.digest": digest, "cnnsearch.planned": str(planned)}
    for name, table in tables.items():
        with replacing(results.path / f"{name}.parquet") as temporary:
            pq.write_table(table.replace_schema_metadata(metadata), temporary, compression="zstd")


def _build(
    results: Results, sweep: Sweep, data: dict[str, Any], plan: Plan, records: dict[str, Record]
) -> dict[str, pa.Table]:
    stages = {trial_id: trial.stage for trial_id, trial in plan.trials.items()}
    ended = [records[trial_id] for trial_id in plan.trials if trial_id in records]
    rows = [_trial_row(sweep.name, stages[record.trial_id], record) for record in ended]
    epochs = [
        {"trial_id": record.trial_id, **row} for record in ended for row in results.trial(record.trial_id).epochs()
    ]
    return {
        "trials": pa.Table.from_pylist(rows, schema=TRIALS),
        "epochs": pa.Table.from_pylist(epochs, schema=EPOCHS),
        "predictions": pa.Table.from_batches(_prediction_batches(results, data, ended), schema=PREDICTIONS),
    }


def _trial_row(sweep: str, stage: str, record: Record) -> dict[str, Any]:
    settings: Settings = record.settings
    best, before = record.best, record.before
    columns = {**settings.model_dump(), **record.model_dump(exclude={"settings", "best", "before"})}
    columns |= {"sweep": sweep, "stage": stage, "status": record.status.value}
    columns |= {"precision": record.precision or settings.precision}
    for name in Measures.model_fields:
        columns[name] = getattr(best, name) if best else None
        columns[f"{name}_before"] = getattr(before, name) if before else None
    return {name: columns.get(name) for name in TRIALS.names}


def _prediction_batches(results: Results, data: dict[str, Any], ended: Sequence[Record]) -> Iterator[pa.RecordBatch]:
    classes = pa.array(data["classes"], pa.string())
    examples = {
        split: (pa.array(listed["names"], pa.string()), classes.take(pa.array(listed["labels"], pa.int64())))
        for split, listed in data.get("examples", {}).items()
    }
    for record in ended:
        for (split, moment), (predicted, confidence) in results.trial(record.trial_id).predictions().items():
            names, labels = examples[split]
            n = len(predicted)
            yield pa.record_batch(
                [
                    _repeated(record.trial_id, n),
                    _repeated(split, n),
                    _repeated(moment, n),
                    names,
                    labels,
                    classes.take(pa.array(predicted)),
                    pa.array(confidence),
                ],
                schema=PREDICTIONS,
            )


def _repeated(value: str, n: int) -> pa.Array:
    return pa.array([value]).take(pa.array(np.zeros(n, np.int8)))
