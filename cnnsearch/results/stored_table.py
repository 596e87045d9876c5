"""Reading a Parquet table that a stranger may have made: of known columns, bounded size and possible values."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cnnsearch.errors import ResultsError
from cnnsearch.planning.trial import Status
from cnnsearch.spec.document import shown
from cnnsearch.spec.metric import METRICS
from cnnsearch.storage.reading import opened
from cnnsearch.words import printable

MOST_ROWS = 250_000_000
"""Most rows of a table: 10,000 trials that answered 25,000 examples."""
MOST_BYTES = 8 * 2**30
"""Most bytes of a table's columns, as the file says."""
MOST_TEXT = 2**30
"""Most characters of a column of words."""
_LARGEST = 2**53
"""Numbers beyond this are no count, no time and no loss of a trial."""
_SHARES = frozenset(name for name, metric in METRICS.items() if metric.is_share)
_NEEDED = frozenset({"trial_id", "stage", "status", "epoch", "split", "moment", "example", "label", "predicted"})
"""Columns without which a row says nothing."""


def read(file: Path, schema: pa.Schema, *, coded: bool) -> tuple[pa.Table, dict[bytes, bytes]]:
    """Read a table and the notes in its file. Columns that an older version did not have are null.

    Args:
        file: Parquet.
        schema: of the result; other columns are left out.
        coded: whether columns of words come as dictionaries, which hold each word once.

    Raises ResultsError where the file cannot be read, or holds what no table of ours can hold.
    """
    try:
        with opened(file) as content:
            table, notes = _decoded(content, schema, coded)
    except OSError as error:
        raise ResultsError(f"{file} cannot be read: {printable(error.strerror or str(error))}") from None
    except Exception as error:  # Arrow's own, and whatever else damaged bytes cause
        raise ResultsError(f"{file} is damaged ({printable(str(error))[:200]})") from None
    if reason := _problem(table):
        raise ResultsError(f"{file} is damaged ({reason})")
    return table, notes


def _decoded(content: io.BufferedReader, schema: pa.Schema, coded: bool) -> tuple[pa.Table, dict[bytes, bytes]]:
    facts = pq.read_metadata(content)
    size = sum(facts.row_group(number).total_byte_size for number in range(facts.num_row_groups))
    if facts.num_rows > MOST_ROWS or not 0 <= size <= MOST_BYTES:
        raise ValueError(f"it holds {facts.num_rows:,} rows in {size:,} bytes")
    present = {column.name: column.type for column in facts.schema.to_arrow_schema()}
    words = [column.name for column in schema if column.type == present.get(column.name) == pa.string()]
    # As dictionaries, a word that a file repeats in many rows takes its memory once.
    stored = pq.ParquetFile(content, metadata=facts, read_dictionary=words)
    table = stored.read([name for name in schema.names if name in present])
    table.validate(full=True)  # words that are no text, and numbers of words that are not there
    columns = [
        _column(table[column.name], column, coded)
        if column.name in present
        else pa.chunked_array([pa.nulls(len(table), column.type)])
        for column in schema
    ]
    return pa.Table.from_arrays(columns, names=schema.names), dict(facts.metadata or {})


def _column(held: pa.ChunkedArray, wanted: pa.Field, coded: bool) -> pa.ChunkedArray:
    """Return a column as its table has it. Raises ValueError or Arrow's errors where it cannot be that."""
    if not pa.types.is_dictionary(held.type):
        if held.type != wanted.type and not pa.types.is_null(held.type) and not _are_numbers(held.type, wanted.type):
            raise ValueError(f"{wanted.name} holds {held.type} in place of {wanted.type}")
        return held.cast(wanted.type)
    if wanted.type != pa.string() or held.type.value_type != pa.string():
        raise ValueError(f"{wanted.name} holds {held.type} in place of {wanted.type}")
    if coded:
        return held
    longest = max((pc.max(pc.binary_length(part.dictionary)).as_py() or 0 for part in held.chunks), default=0)
    if longest * len(held) > MOST_TEXT:
        raise ValueError(f"{wanted.name} holds too long words")
    return held.cast(pa.string())


def _are_numbers(*types: pa.DataType) -> bool:
    return all(pa.types.is_integer(one) or pa.types.is_floating(one) for one in types)


def _problem(table: pa.Table) -> str:
    """Say which column holds what no trial can give; empty if none does."""
    for name in table.column_names:
        column = table[name]
        if name in _NEEDED and column.null_count:
            return f"{name} is missing in {column.null_count:,} rows"
        if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
            continue
        if name != "confidence" and pc.all(pc.is_finite(column)).as_py() is False:
            return f"{name} holds what is no number"
        ends = pc.min_max(column).as_py()
        low, high = ends["min"] or 0, ends["max"] or 0
        is_share = name.partition("_")[2] in _SHARES or "accuracy" in name or name == "confidence"
        if low < (-1 if "loss" in name else 0) or high > (1.001 if is_share else _LARGEST):
            return f"{name} holds numbers from {low:g} to {high:g}"
    if "status" in table.column_names:
        if odd := set(pc.unique(table["status"]).to_pylist()) - set(Status):
            return f"status holds {shown(min(odd))}"
        if len(pc.unique(table["trial_id"])) != len(table):
            return "a trial_id is there twice"
    return ""
