"""Tables that name image files: CSV, TSV and Parquet with columns path and label, and optionally split and group."""

from __future__ import annotations

import csv
import os
import stat
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from cnnsearch.data.examples import FileContent
from cnnsearch.data.folders import ANYWHERE, OUTSIDE, lies_in, link_problem
from cnnsearch.data.rows import DELIMITED, Rows, refuse_contradictions, splits_of
from cnnsearch.errors import DataError
from cnnsearch.storage.reading import opened
from cnnsearch.words import decoded, listed, printable

NEEDED, OPTIONAL = ("path", "label"), ("split", "group")
"""Columns of a table of paths."""
_HEADER_BYTES = 1 << 20
_AS_TEXT = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_integer,
    pa.types.is_boolean,
)


def table_rows(
    source: str,
    files: Sequence[Path],
    *,
    base: str,
    follow_links: bool = False,
    labelled: bool = True,
    group: str | None = None,
) -> Rows:
    """Read tables that name image files.

    The images of a class are in the order of their names by Unicode code point, whatever the order of the rows: the
    same files in a folder per class make the same data.

    Args:
        source: what the user asked for.
        files: the tables, all of them with the same columns. The name of one may say which split it holds.
        base: the folder of the tables, as messages show it.
        follow_links: whether paths and links may lead out of the folder of their table.
        labelled: whether a label is needed.
        group: the column of groups; by default `group`.

    Raises:
        DataError: a table cannot be read or lacks a column, or what it says cannot be used.
    """
    needed = NEEDED if labelled else NEEDED[:1]
    tables = [_read(file, needed, group or "group") for file in files]
    columns = {name for table in tables for name in table.column_names}
    places = Places(tables, files)
    given = [path for table in tables for path in table["path"].to_pylist()]
    found = _Files.of(given, places, follow_links=follow_links)
    rows = Rows(
        source=source,
        base=base,
        names=found.names,
        order=found.names,
        labels=column(tables, "label"),
        splits=column(tables, "split") if "split" in columns else places.splits(),
        groups=column(tables, "group") if "group" in columns else None,
        where=places.where,
        content=lambda row: FileContent(found.paths[row]),
        problems=found.problems,
    )
    if found.problems and len(found.problems) == found.missing == len(given):
        raise DataError(
            f"{printable(source)} names {len(given):,} files, and none of them is there, for example "
            f"{printable(given[0])} ({places.where(0)}).\nPaths are relative to the folder of the table."
        )
    if labelled:
        refuse_contradictions(rows, found.repeated(), "file")
    return rows


@dataclass(frozen=True)
class Places:
    """Which row of which file the rows of several tables are."""

    tables: Sequence[pa.Table]
    files: Sequence[Path]

    def file(self, row: int) -> tuple[Path, int]:
        """The file that a row is in, and its number there, from 1."""
        for file, table in zip(self.files, self.tables, strict=True):
            if row < table.num_rows:
                return file, row + 1
            row -= table.num_rows
        raise IndexError(row)

    def where(self, row: int) -> str:
        """How messages name a row: `row 3`, or `train.csv, row 3` where there are several files."""
        file, number = self.file(row)
        return f"row {number:,}" if len(self.files) == 1 else f"{decoded(file.name)}, row {number:,}"

    def splits(self) -> list[str] | None:
        """The split of each row, as far as the names of the files say."""
        parts = splits_of(self.files)
        if parts is None:
            return None
        return [part for part, table in zip(parts, self.tables, strict=True) for _ in range(table.num_rows)]


def column(tables: Sequence[pa.Table], name: str) -> list[str]:
    """The texts of a column, without spaces around them; "" where there is none."""
    return [
        text
        for table in tables
        for text in (
            pc.fill_null(pc.utf8_trim_whitespace(table[name]), "").to_pylist()
            if name in table.column_names
            else [""] * table.num_rows
        )
    ]


def _read(file: Path, needed: Sequence[str], group: str) -> pa.Table:
    """Read the columns of a table of paths, as text. Raises DataError where one that is needed is not there."""
    ending = file.suffix.lower()
    try:
        with opened(file, follow=True) as content:
            if ending in DELIMITED:
                found = _read_text(content, DELIMITED[ending], file, needed, group)
            else:
                found = _read_parquet(file, needed, group)
    except OSError as error:
        raise DataError(f"{_shown(file)} cannot be read ({error.strerror or error}).") from None
    except (pa.ArrowException, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        if isinstance(error, UnicodeDecodeError) or "UTF8" in reason:
            raise DataError(f"{_shown(file)} is not text in UTF-8; save it as UTF-8.") from None
        raise DataError(f"{_shown(file)} cannot be read ({printable(reason)[:200]}).") from None
    return pa.table({name: as_text(values, name, file) for name, values in found.items()})


def _refuse_lacking(names: Sequence[str], file: Path, needed: Sequence[str], also: str = "") -> None:
    """Raise DataError where a table lacks a column that it needs, or has one twice."""
    lacking = [name for name in needed if name not in names]
    has = f"has the columns {listed([printable(name) for name in names])}" if names else "has no columns"
    if lacking:
        optional = listed([name for name in (*NEEDED, *OPTIONAL) if name not in needed])
        raise DataError(
            f"{_shown(file)} {has}; it lacks {listed(lacking)}.\n"
            f"Needed: {listed(needed)}{also}; {optional} are optional."
        )
    if twice := [name for name in (*NEEDED, *OPTIONAL) if list(names).count(name) > 1]:
        raise DataError(f"{_shown(file)} has the column {twice[0]} twice.")


def as_text(values: pa.ChunkedArray, name: str, file: Path) -> pa.ChunkedArray:
    """Turn a column of words or whole numbers into texts. Raises DataError."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    kind = values.type
    if pa.types.is_null(kind):
        return pa.chunked_array([pa.nulls(len(values), pa.string())])
    if pa.types.is_floating(kind):
        try:  # whole numbers become these where some are missing
            values = pc.if_else(pc.is_nan(values), pa.scalar(None, kind), values).cast(pa.int64())
        except pa.ArrowInvalid:
            raise DataError(
                f"{_shown(file)}: {name} has numbers that are not whole; allowed: text, whole numbers."
            ) from None
    elif not any(is_kind(kind) for is_kind in _AS_TEXT):
        raise DataError(f"{_shown(file)}: {name} is of type {kind}; allowed: text, whole numbers.")
    return values.cast(pa.string())


def _taken(names: Collection[str], group: str) -> dict[str, str]:
    """What is taken from a table: by its name in what follows, the column that it is in."""
    found = {name: name for name in (*NEEDED, "split") if name in names}
    return found | ({"group": group} if group in names else {})


def _read_text(
    content: Any, delimiter: str, file: Path, needed: Sequence[str], group: str
) -> dict[str, pa.ChunkedArray]:
    line = content.readline(_HEADER_BYTES).decode("utf-8-sig")
    if delimiter == "," and "," not in line and ";" in line:  # as spreadsheets write where the comma is in numbers
        delimiter = ";"
    names = [name.strip() for name in next(csv.reader([line], delimiter=delimiter), [])]
    _refuse_lacking(names, file, needed)
    content.seek(0)
    taken = _taken(names, group)
    wanted = list(dict.fromkeys(taken.values()))
    unique = [name if name in wanted else f"{at} {name}" for at, name in enumerate(names)]
    table = pa.csv.read_csv(
        content,
        pa.csv.ReadOptions(column_names=unique, skip_rows=1, use_threads=False),  # threads count no rows for messages
        pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        pa.csv.ConvertOptions(column_types=dict.fromkeys(wanted, pa.string()), include_columns=wanted),
    )
    return {name: table[source] for name, source in taken.items()}


def _read_parquet(file: Path, needed: Sequence[str], group: str) -> dict[str, pa.ChunkedArray]:
    with pa.parquet.ParquetFile(file) as opened_table:
        names = opened_table.schema_arrow.names
        _refuse_lacking(names, file, needed, ", or an image column with the images themselves and a label")
        taken = _taken(names, group)
        table = opened_table.read(columns=list(dict.fromkeys(taken.values())))
    return {name: table[source] for name, source in taken.items()}


@dataclass
class _Files:
    """The files that rows name."""

    paths: list[str]
    names: list[str]
    """Relative to the folder of the table; of files outside it, as the table has them."""
    problems: dict[int, str]
    missing: int
    """How many are not there."""

    @classmethod
    def of(cls, given: Sequence[str | None], places: Places, *, follow_links: bool) -> _Files:
        """Look at each file once, and at each folder once, however many rows name them."""
        paths, names, problems, missing = [], [], {}, 0
        real_folders: dict[str, str] = {}
        row = 0
        for file, table in zip(places.files, places.tables, strict=True):
            root = os.path.dirname(os.path.abspath(file))
            real = os.path.realpath(root)
            inside = ANYWHERE if follow_links else real
            for number in range(1, table.num_rows + 1):
                name = given[row] or ""
                folder, base = os.path.split(os.path.join(root, name))
                if folder not in real_folders:
                    real_folders[folder] = os.path.realpath(folder) if "\0" not in folder else folder
                path = os.path.join(real_folders[folder], base)
                reason = _problem(path, name, inside)
                if reason is not None:
                    problems[row] = reason
                    missing += reason == _MISSING
                paths.append(path)
                names.append(_plain(name, path, real) if name else f"{decoded(file.name)} row {number:,}")
                row += 1
        return cls(paths, names, problems, missing)

    def repeated(self) -> dict[str, list[int]]:
        """Path -> rows, for files that several rows name."""
        seen: set[str] = set()
        again = {path for path in self.paths if path in seen or seen.add(path)}  # type: ignore[func-returns-value]
        rows: dict[str, list[int]] = {}
        for row, path in enumerate(self.paths if again else ()):
            if path in again and row not in self.problems:
                rows.setdefault(path, []).append(row)
        return {path: found for path, found in rows.items() if len(found) > 1}


_MISSING = "is not there"


def _problem(path: str, given: str, inside: str) -> str | None:
    """Say why a file cannot be used, worded to follow its name; None if it can."""
    if not given:
        return "names no file"
    if not lies_in(path, inside):
        return f"lies in {printable(decoded(os.path.dirname(path)))}, {OUTSIDE}"
    try:
        mode = os.lstat(path).st_mode
    except (OSError, ValueError):  # no access, or a NUL in the name
        return _MISSING
    if stat.S_ISLNK(mode):
        return link_problem(path, inside) or ("is a folder" if os.path.isdir(path) else None)
    return "is a folder" if stat.S_ISDIR(mode) else None


def _plain(name: str, path: str, root: str) -> str:
    """A path without . and .., relative to the folder of the table if it lies there."""
    if os.path.isabs(name) or ".." in name.split("/"):
        name = os.path.relpath(path, root) if path.startswith(root + os.sep) else name
    else:
        name = os.path.normpath(name)
    return name.replace(os.sep, "/")  # it is hashed, and the same everywhere


def _shown(file: Path) -> str:
    return printable(decoded(str(file)))
