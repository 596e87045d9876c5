"""The result tables on disk: three Parquet files, and tables.json that says what they hold and what they hash to.

tables.json is written last. With it any change to a file is found; a folder of an older version has none, and there the
tables are taken to be of the records whose digest they carry.
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


@dataclass(frozen=True)
class Stored:
    """Tables as they stand on disk."""

    tables: dict[str, pa.Table]
    """Those that were read. The strings of predictions are dictionaries: there may be millions of rows."""
    planned: int
    """Trials the sweep has."""
    checksums: dict[str, str]
    """File name -> SHA-256, where tables.json says it."""


def store(
    folder: Path, tables: Mapping[str, pa.Table], schemas: Mapping[str, pa.Schema], digest: str, planned: int
) -> dict[str, str]:
    """Write the tables and then what they are; their checksums by file name.

    Args:
        schemas: what readers find; dictionaries in `tables` become plain strings.
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
                store_schema=not _words(name, schemas[name]),
            ) as writer:
                writer.write_table(table)
                writer.add_key_value_metadata(metadata)
            facts["files"][file.name] = sha256(temporary)
    write_checked(folder / NOTE, facts)
    return dict(facts["files"])


def read(folder: Path, schemas: Mapping[str, pa.Schema], digest: str, *, any_digest: bool) -> Stored | None:
    """The tables of a folder; None where they are not there, are damaged, or were made from something else.

    Predictions that have a checksum are left for `read_predictions`.

    Args:
        schemas: name -> columns; those an older version did not have are null.
        digest: of what they should have been made from.
        any_digest: there is nothing to make them from again: take what there is.

    Raises ResultsError where there is nothing to make them from again, and they are damaged.
    """
    files = {name: folder / f"{name}.parquet" for name in schemas}
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
            table = pq.read_table(file, read_dictionary=_words(name, schemas[name]))
        except (OSError, pa.ArrowException):
            return None
        metadata = table.schema.metadata or {}
        if planned is None and not any_digest and metadata.get(b"cnnsearch.digest") != digest.encode():
            return None
        tables[name] = table
    if planned is None:
        metadata = tables["trials"].schema.metadata or {}
        planned = int(metadata.get(b"cnnsearch.planned", b"0")) or len(tables["trials"])
    tables = {name: with_columns(table, schemas[name]) for name, table in tables.items()}
    return Stored(tables, planned, checksums)


def read_predictions(folder: Path, schema: pa.Schema, checksum: str) -> pa.Table:
    """The predictions that have this checksum. Raises ResultsError where they are no longer there."""
    file = folder / "predictions.parquet"
    try:
        if sha256(file) == checksum:
            return with_columns(pq.read_table(file, read_dictionary=_words("predictions", schema)), schema)
    except (OSError, pa.ArrowException):
        pass
    raise ResultsError(f"{file} has changed since these tables were loaded; load them again")


def with_columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table of an older schema with the columns it lacks, null."""
    for column in schema:
        if column.name not in table.column_names:
            table = table.append_column(column, pa.nulls(len(table), column.type))
    return table.select(schema.names)


def _changed(folder: Path, note: dict[str, Any]) -> list[Path]:
    """The files that are not what the note says."""
    changed = []
    for name, expected in note["files"].items():
        found = None
        with contextlib.suppress(OSError):
            found = sha256(folder / name)
        if found != expected:
            changed.append(folder / name)
    return changed


def _words(name: str, schema: pa.Schema) -> list[str]:
    """The columns of a table that hold few different strings in very many rows."""
    return [column.name for column in schema if column.type == pa.string()] if name == "predictions" else []
