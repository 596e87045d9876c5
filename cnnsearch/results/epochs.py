"""The epochs of many trials, read together as columns: a tenth of the time that their rows take one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from cnnsearch.errors import ResultsError
from cnnsearch.results.parquet import EPOCHS
from cnnsearch.results.shapes import EpochLine, problem
from cnnsearch.results.trial_folder import TrialFolder
from cnnsearch.storage.reading import read_bytes

COLUMNS = pa.schema([column for column in EPOCHS if column.name != "trial_id"])
TOGETHER_BYTES = 4 * 2**20
"""Bytes of files that are parsed at a time."""
_LARGEST = 2.0**63
"""Whole numbers from here on are read one by one, which tells them from numbers with a point."""


@dataclass(frozen=True)
class Epochs:
    """The epochs of some trials."""

    rows: pa.Table
    """All rows, trial by trial; columns of `COLUMNS`."""
    counts: tuple[int, ...]
    """Number of rows of each trial."""


def read_epochs(folders: Sequence[TrialFolder]) -> Iterator[tuple[Sequence[TrialFolder], Epochs | ResultsError]]:
    """Read the epochs of trials in parts, each of some trials that follow each other.

    Every line is held against its shape. Yields folders with their epochs; a folder alone with the error where its
    file cannot be read, or a line is no row.
    """
    for some in _portions(folders):
        contents = [_content(folder) for folder in some]
        found = None if None in contents else _parsed([content for content in contents if content is not None])
        if found is not None:
            yield some, found
            continue
        for folder in some:  # one of them has to be looked at line by line
            try:
                yield [folder], _line_by_line(folder)
            except ResultsError as error:
                yield [folder], error


def _portions(folders: Sequence[TrialFolder]) -> Iterator[Sequence[TrialFolder]]:
    """Divide folders so that the files of each portion have `TOGETHER_BYTES` or little more."""
    start = size = 0
    for index, folder in enumerate(folders):
        try:
            size += folder.epochs_file.lstat().st_size
        except OSError:
            continue
        if size >= TOGETHER_BYTES:
            yield folders[start : index + 1]
            start, size = index + 1, 0
    if start < len(folders):
        yield folders[start:]


def _content(folder: TrialFolder) -> bytes | None:
    """The content of a file with one object on each line; empty where there is none, None where it is anything else."""
    try:
        content = read_bytes(folder.epochs_file)
    except FileNotFoundError:
        return b""
    except OSError:
        return None
    lines = content.count(b"\n")
    is_plain = content.startswith(b"{") and content.endswith(b"}\n") and content.count(b"}\n{") == lines - 1
    return content if not content or (is_plain and content.count(b"{") == lines) else None


def _parsed(contents: Sequence[bytes]) -> Epochs | None:
    """Parse files of whole lines; None where they hold anything but rows of epochs with plain numbers."""
    counts = tuple(content.count(b"\n") for content in contents)
    if not any(counts):
        return Epochs(COLUMNS.empty_table(), counts)
    how = pj.ParseOptions(explicit_schema=COLUMNS, unexpected_field_behavior="error")
    try:
        rows = pj.read_json(pa.BufferReader(b"".join(contents)), pj.ReadOptions(use_threads=False), how)
    except pa.ArrowInvalid:
        return None
    return Epochs(_slim(rows), counts) if len(rows) == sum(counts) and _fits(rows) else None


def _slim(rows: pa.Table) -> pa.Table:
    """The same rows, in which all columns without a number share their memory: most metrics are in few sweeps."""
    nothing = pa.nulls(len(rows), pa.float64())
    for index, name in enumerate(rows.column_names):
        if rows[name].null_count == len(rows):
            rows = rows.set_column(index, name, nothing)
    return rows


def _fits(rows: pa.Table) -> bool:
    """Whether every row is that of an epoch. All that a shape asks of a number is that it is finite and within limits.

    So it asks the same of the least and the largest of each column.
    """
    ends: list[dict[str, Any]] = [{}, {}]
    for name in rows.column_names:
        column = rows[name]
        if EpochLine.model_fields[name].is_required() and column.null_count:
            return False
        if column.null_count == len(column):
            continue
        if pc.all(pc.is_finite(column)).as_py() is False:
            return False
        found = pc.min_max(column).as_py()
        ends[0][name], ends[1][name] = found["min"], found["max"]
    largest = max(abs(value) for one in ends for value in one.values())
    return largest < _LARGEST and not any(problem(EpochLine, one) for one in ends)


def _line_by_line(folder: TrialFolder) -> Epochs:
    rows = folder.epochs(strict=True)
    values = np.array([[row.get(name) for name in COLUMNS.names] for row in rows], dtype=np.float64)
    columns = values.reshape(len(rows), len(COLUMNS)).T
    arrays = [pa.array(values, from_pandas=True).cast(one.type) for values, one in zip(columns, COLUMNS, strict=True)]
    return Epochs(pa.Table.from_arrays(arrays, schema=COLUMNS), (len(rows),))
