"""The result tables on disk: their columns, three Parquet files, and tables.json, which holds the files' checksums.

Accuracies are fractions in [0, 1], losses are means over examples, times are seconds. Columns are only ever added.

tables.json is written last. With it any change to a file is found. A folder of an older version has none: there, the
digest that a file carries says which records it was made from.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cnnsearch.errors import ResultsError
from cnnsearch.results import stored_table
from cnnsearch.results.shapes import TablesNote, problem
from cnnsearch.spec.metric import ADDED
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
        ("head_lr_factor", pa.float64()),
        ("grad_clip", pa.float64()),
        ("ema", pa.float64()),
        ("erasing", pa.float64()),
        ("mixup", pa.float64()),
        ("cutmix", pa.float64()),
        ("loss", pa.string()),
        ("focal_gamma", pa.float64()),
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
        ("model_args", pa.string()),  # arguments of a network of the user's own, as a JSON object; null without any
        ("code", pa.string()),  # digest of the code of such a network, or null
        ("metric", pa.string()),  # of the sweep: what chose the best epoch
        ("fold", pa.int64()),  # counted from 0; null where images are split once
        ("optimizer_args", pa.string()),  # arguments of the optimizer, as a JSON object; null without any
        ("repeat", pa.int64()),  # how often images had been dealt into folds before this fold
        *((f"{split}_{name}", pa.float64()) for split in ("val", "test") for name in ADDED),
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
        # of the sweep's metric; the others are null
        *((f"val_{name}", pa.float64()) for name in ADDED),
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
                store_schema=name != "predictions",
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
    planned, checksums, tables = None, {}, {}
    has_note = os.path.lexists(folder / NOTE)
    try:
        if has_note:
            note = _note(folder)
            if not (any_digest or note["digest"] == digest):
                return None
            planned, checksums = note["planned"], note["files"]
        for name in SCHEMAS:
            if name == "predictions" and has_note:
                continue
            if not has_note and not os.path.lexists(folder / f"{name}.parquet"):
                return None
            tables[name], notes = _table(folder, name)
            if not has_note and not any_digest and notes.get(b"cnnsearch.digest") != digest.encode():
                return None
            if planned is None:
                noted = notes.get(b"cnnsearch.planned", b"")
                planned = int(noted) if noted.isdigit() and len(noted) < 9 else 0
    except ResultsError as error:
        if any_digest:
            raise ResultsError(f"{error}, and there are no records to make the tables from again") from None
        return None
    return Stored(tables, planned or len(tables["trials"]), checksums)


def _note(folder: Path) -> dict[str, Any]:
    """What tables.json says. Raises ResultsError where it is damaged, or a table is not the one that it names."""
    note = read_checked(folder / NOTE)
    reason = "" if note is None else problem(TablesNote, note)
    if note is None or reason:
        raise ResultsError(f"{folder / NOTE} is damaged" + (f" ({reason})" if reason else ""))
    for name, expected in note["files"].items():
        found = None
        with contextlib.suppress(OSError):
            found = sha256(folder / name)
        if found != expected:
            raise ResultsError(f"{folder / name} is damaged")
    return note


def read_predictions(folder: Path, checksum: str) -> pa.Table:
    """Read the predictions with this checksum. Raises ResultsError if the file has another one by now."""
    file = folder / "predictions.parquet"
    with contextlib.suppress(OSError):
        if sha256(file) == checksum:
            return _table(folder, "predictions")[0]
    raise ResultsError(f"{file} has changed since these tables were loaded; load them again")


def _table(folder: Path, name: str) -> tuple[pa.Table, dict[bytes, bytes]]:
    """Read a table and its notes; the strings of predictions, few different ones in very many rows, as dictionaries."""
    return stored_table.read(folder / f"{name}.parquet", SCHEMAS[name], coded=name == "predictions")
