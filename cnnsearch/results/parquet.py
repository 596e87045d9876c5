"""The result tables on disk: their columns, three Parquet files, and tables.json, which holds the files' checksums.

Accuracies are fractions in [0, 1], losses are means over examples, times are seconds. Columns are only ever added.

tables.json is written last. With it any change to a file is found. A folder of an older version has none: there, the
digest that a file carries says which records it was made from.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cnnsearch.errors import ResultsError
from cnnsearch.storage.checksums import sha256
from cnnsearch.storage.durable import read_checked, replacing, write_checked

NOTE = "tables.json"

TRIALS = pa.schema(
    [
        ("trial_id", pa.string()),
        ("sweep", pa.string()),
        ("stage", pa.string()),
        ("parent_id", pa.string()),
        ("confirms", pa.string()),  # in stage confirm: first trial of the setting that this is a fresh seed of, or null
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
        ("lr_schedule", pa.string()),
        ("warmup_epochs", pa.float64()),
        ("label_smoothing", pa.float64()),
        ("augment", pa.string()),
        ("class_weights", pa.string()),
        ("image_size", pa.int64()),
        ("epochs", pa.int64()),  # planned
        ("seed", pa.int64()),
        ("precision", pa.string()),
        ("parameters", pa.int64()),
        ("epochs_done", pa.int64()),
        ("stopped_by", pa.string()),  # what pruned it: asha, hyperband, median, patience, max_seconds
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
        ("model_bytes", pa.int64()),
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
class Stored:
    """The tables of a folder."""

    tables: dict[str, pa.Table]
    """Name -> table, of those that were read. Strings of predictions are dictionaries: rows may be millions."""
    planned: int
    """Number of trials in the sweep, ended or not."""
    checksums: dict[str, str]
    """File name -> SHA-256, for the files listed in tables.json."""


def store(folder: Path, tables: Mapping[str, pa.Table], digest: str, planned: int) -> dict[str, str]:
    """Write the tables, then tables.json; returns file name -> SHA-256.

    Args:
        folder: of the sweep.
        tables: by name. Their dictionaries become plain strings.
        digest: of what the tables were made from.
        planned: see Stored.

    Raises DiskError.
    """
    facts: dict[str, Any] = {"digest": digest, "planned": planned, "files": {}}
    metadata = {"cnnsearch.digest": digest, "cnnsearch.planned": str(planned)}  # what older versions read
    for name, table in tables.items():
        file = folder / f"{name}.parquet"
        with replacing(file) as temporary:
            with pq.ParquetWriter(
                # A stored schema would make readers see dictionaries where the columns are strings.
                temporary,
                table.schema,
                compression="zstd",
                store_schema=not _dictionaries(name),
            ) as writer:
                writer.write_table(table)
                writer.add_key_value_metadata(metadata)
            facts["files"][file.name] = sha256(temporary)
    write_checked(folder / NOTE, facts)
    return dict(facts["files"])


def read(folder: Path, digest: str, *, any_digest: bool) -> Stored | None:
    """The tables of a folder; None where they are missing or damaged, or were made from something else.

    Columns that an older version did not have are null. Predictions with a checksum are left for `read_predictions`.

    Args:
        folder: of the sweep.
        digest: of what the tables should have been made from.
        any_digest: take tables made from anything, since there are no records to make them from again.

    Raises ResultsError where they are damaged and there are no records to make them from again.
    """
    files = {name: folder / f"{name}.parquet" for name in SCHEMAS}
    planned, checksums = None, {}
    if (folder / NOTE).exists():
        note = read_checked(folder / NOTE)
        damaged = [folder / NOTE] if note is None else _changed(folder, note)
        if damaged and any_digest:
            raise ResultsError(f"{damaged[0]} is damaged, and there are no records to make the tables from again")
        if damaged or note is None or not (any_digest or note["digest"] == digest):
            return None
        planned, checksums = int(note["planned"]), dict(note["files"])
        del files["predictions"]
    tables = {}
    for name, file in files.items():
        try:
            table = pq.read_table(file, read_dictionary=_dictionaries(name))
        except (OSError, pa.ArrowException):
            return None
        metadata = table.schema.metadata or {}
        if planned is None and not any_digest and metadata.get(b"cnnsearch.digest") != digest.encode():
            return None
        tables[name] = table
    if planned is None:
        metadata = tables["trials"].schema.metadata or {}
        planned = int(metadata.get(b"cnnsearch.planned", b"0")) or len(tables["trials"])
    tables = {name: _with_columns(table, SCHEMAS[name]) for name, table in tables.items()}
    return Stored(tables, planned, checksums)


def read_predictions(folder: Path, checksum: str) -> pa.Table:
    """Read the predictions with this checksum. Raises ResultsError if the file has another one by now."""
    file = folder / "predictions.parquet"
    try:
        if sha256(file) == checksum:
            return _with_columns(pq.read_table(file, read_dictionary=_dictionaries("predictions")), PREDICTIONS)
    except (OSError, pa.ArrowException):
        pass
    raise ResultsError(f"{file} has changed since these tables were loaded; load them again")


def _with_columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table of an older version, with null in the columns that it lacks."""
    for column in schema:
        if column.name not in table.column_names:
            table = table.append_column(column, pa.nulls(len(table), column.type))
    return table.select(schema.names)


def _changed(folder: Path, note: dict[str, Any]) -> list[Path]:
    """List the files whose checksum differs from the recorded one."""
    changed = []
    for name, expected in note["files"].items():
        found = None
        with contextlib.suppress(OSError):
            found = sha256(folder / name)
        if found != expected:
            changed.append(folder / name)
    return changed


def _dictionaries(name: str) -> list[str]:
    """List the columns that hold few different strings in very many rows, and so are dictionaries in memory."""
    return [column.name for column in PREDICTIONS if column.type == pa.string()] if name == "predictions" else []
