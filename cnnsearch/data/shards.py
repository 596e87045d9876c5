"""Parquet files that hold the images themselves, as the data sets of Hugging Face do: a column image, a column label.

Images are read by row group, and contents in the order in which they are stored, so that each group is read once.
"""

from __future__ import annotations

import bisect
import functools
import json
import threading
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from cnnsearch.data.examples import InnerContent
from cnnsearch.data.images import BadImageError
from cnnsearch.data.index import MAX_FILE_BYTES, UnreadableError
from cnnsearch.data.rows import Rows
from cnnsearch.data.tables import OPTIONAL, Places, as_text, column
from cnnsearch.errors import DataError
from cnnsearch.storage.reading import opened
from cnnsearch.words import decoded, listed, printable

_KEPT_GROUPS, _KEPT_BYTES = 3, 2**28
"""Row groups that are kept in memory: so many, and more while they are small, for threads that read far apart."""
_MOST_BYTES = 2**31
"""Most bytes of images in a row group, which is read as a whole; Arrow reads no more at once."""


def has_images(file: Path) -> bool:
    """Whether a Parquet file holds images, not paths. False for what is no Parquet file."""
    try:
        with opened(file, follow=True):
            schema = pa.parquet.read_schema(file)
    except (OSError, pa.ArrowException):
        return False
    return _image_column(schema) is not None


def shard_rows(
    source: str, files: Sequence[Path], *, base: str, labelled: bool = True, group: str | None = None
) -> Rows:
    """Read what Parquet files say of the images in them.

    Images of a class are in the order of their paths, where all rows have one, else in the order of the rows. Classes
    that have names in the schema's metadata are in the order there; others are in the order of their names.

    Args:
        source: what the user asked for.
        files: with the same columns and classes. The names of several may say which splits they hold.
        base: the folder of the files, as messages show it.
        labelled: whether a label is needed.
        group: the column of groups; by default `group`.

    Raises:
        DataError: a file cannot be read or lacks a column, or what it says cannot be used.
    """
    shards = [_Shard.of(file, labelled=labelled, group=group or "group") for file in files]
    odd = next((shard for shard in shards if shard.classes != shards[0].classes), None)
    if odd is not None:
        first, other = (printable(decoded(shard.file.name)) for shard in (shards[0], odd))
        raise DataError(f"{printable(source)}: {other} names other classes than {first}.")
    tables = [shard.rows for shard in shards]
    columns = {name for table in tables for name in table.column_names}
    store, paths = _Store(shards), column(tables, "path")
    of_file = [(at, row) for at, table in enumerate(tables) for row in range(table.num_rows)]
    count = Counter((at, path) for (at, _), path in zip(of_file, paths, strict=True))
    places, shown, whole = Places(tables, files), [decoded(file.name) for file in files], [str(file) for file in files]

    def name(row: int) -> str:
        at, number = of_file[row]
        is_unique = paths[row] and count[at, paths[row]] == 1
        return f"{shown[at]}/{paths[row]}" if is_unique else f"{shown[at]} row {number + 1:,}"

    def content(row: int) -> InnerContent:
        at, number = of_file[row]
        return InnerContent(whole[at], number, functools.partial(store.fetch, at, number))

    return Rows(
        source=source,
        base=base,
        names=[name(row) for row in range(len(paths))],
        order=paths if all(paths) else [""] * len(paths),
        labels=column(tables, "label"),
        splits=column(tables, "split") if "split" in columns else places.splits(),
        groups=column(tables, "group") if "group" in columns else None,
        where=places.where,
        content=content,
        classes=shards[0].classes,
    )


@dataclass(frozen=True)
class _Shard:
    """One file: what it says of its images, and where these are."""

    file: Path
    rows: pa.Table
    """Texts: label, path, and split and group where there are any."""
    column: str
    """Where the bytes of the images are."""
    starts: Sequence[int]
    """First row of each row group, and the number of rows."""
    metadata: Any
    classes: Sequence[str] | None
    """Names of the classes, by the numbers that are the labels; None if the labels are names."""

    @classmethod
    def of(cls, file: Path, *, labelled: bool, group: str) -> _Shard:
        """Read all but the images. Raises DataError."""
        shown = printable(decoded(str(file)))
        try:
            with opened(file, follow=True), pa.parquet.ParquetFile(file) as parquet:
                schema, metadata = parquet.schema_arrow, parquet.metadata
                features = _features(schema)
                image, label = _image_column(schema), _label_column(schema, features)
                if image is None or (label is None and labelled):
                    lacking = "a column of images" if image is None else "the column label"
                    raise DataError(
                        f"{shown} has the columns {listed([printable(name) for name in schema.names])}; it lacks "
                        f"{lacking}.\nNeeded: image and label; {listed(OPTIONAL)} are optional."
                    )
                is_struct = pa.types.is_struct(schema.field(image).type)
                has_path = is_struct and schema.field(image).type.get_field_index("path") >= 0
                also = {
                    name: source
                    for name, source in (("split", "split"), ("group", group))
                    if source in schema.names and source not in (image, label)
                }
                wanted = [*([label] if label else []), *also.values(), *([f"{image}.path"] if has_path else [])]
                read = parquet.read(columns=list(dict.fromkeys(wanted)))
        except OSError as error:
            raise DataError(f"{shown} cannot be read ({error.strerror or error}).") from None
        except pa.ArrowException as error:
            raise DataError(f"{shown} cannot be read ({printable(str(error).splitlines()[0])[:200]}).") from None
        names, texts = None, {name: as_text(read[source], source, file) for name, source in also.items()}
        if label is not None:
            names = _class_names(features.get(label)) if pa.types.is_integer(read[label].type) else None
            texts["label"] = _named(read[label], names, shown) if names else as_text(read[label], label, file)
        if has_path:
            paths = [chunk.field("path") for chunk in read[image].chunks]
            texts["path"] = as_text(pa.chunked_array(paths, schema.field(image).type.field("path").type), "path", file)
        else:
            texts["path"] = pa.nulls(metadata.num_rows, pa.string())
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        bytes_column = f"{image}.bytes" if is_struct else image
        _refuse_large_groups(metadata, bytes_column, shown)
        return cls(file, pa.table(texts), bytes_column, np.cumsum([0, *sizes]).tolist(), metadata, names)


def _refuse_large_groups(metadata: Any, column: str, shown: str) -> None:
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        parts = [group.column(at) for at in range(group.num_columns)]
        size = sum(part.total_uncompressed_size for part in parts if part.path_in_schema == column)
        if size > _MOST_BYTES:
            raise DataError(
                f"{shown} has {size:,} bytes of images in one row group, which is read as a whole; the limit is "
                f"{_MOST_BYTES:,}.\nWrite it with fewer images in each, such as row_group_size=100."
            )


def _features(schema: pa.Schema) -> dict[str, Any]:
    """What Hugging Face's library notes of the columns; empty where it has not written the file."""
    try:
        noted = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return {name: facts for name, facts in noted.items() if isinstance(facts, dict)} if isinstance(noted, dict) else {}


def _of_type(features: Mapping[str, Any], kind: str, schema: pa.Schema) -> list[str]:
    return [name for name, facts in features.items() if facts.get("_type") == kind and name in schema.names]


def _image_column(schema: pa.Schema) -> str | None:
    """The column that holds images: called image, noted as such, or the only one that can if there are no paths."""
    able = [field.name for field in schema if _holds_bytes(field.type)]
    noted = [name for name in _of_type(_features(schema), "Image", schema) if name in able]
    if "image" in able:
        return "image"
    if len(noted) == 1:
        return noted[0]
    return able[0] if len(able) == 1 and "path" not in schema.names else None


def _label_column(schema: pa.Schema, features: Mapping[str, Any]) -> str | None:
    noted = _of_type(features, "ClassLabel", schema)
    return "label" if "label" in schema.names else noted[0] if len(noted) == 1 else None


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_bytes(kind.field("bytes").type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _class_names(feature: Any) -> list[str] | None:
    """The names of the classes by number, told apart where two are the same; None if there are none."""
    names = feature.get("names") if isinstance(feature, dict) else None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name.strip() for name in names):
        return None
    counts = Counter(names)
    return [name.strip() if counts[name] == 1 else f"{name.strip()} ({at})" for at, name in enumerate(names)]


def _named(labels: pa.ChunkedArray, names: Sequence[str], shown: str) -> pa.Array:
    """The names of numbered classes; -1, as where a test set keeps its labels secret, is no label."""
    numbers = labels.to_pylist()
    for row, number in enumerate(numbers, start=1):
        if number is not None and not -1 <= number < len(names):
            raise DataError(f"{shown}, row {row:,}: label is {number}; there are {len(names):,} names, from 0.")
    return pa.array([None if number is None or number < 0 else names[number] for number in numbers], pa.string())


class _Store:
    """Reads images from shards. `fetch` may be called from several threads."""

    def __init__(self, shards: Sequence[_Shard]) -> None:
        self._shards = shards
        self._lock = threading.Lock()
        self._groups: OrderedDict[tuple[int, int], pa.ChunkedArray] = OrderedDict()

    def fetch(self, at: int, row: int) -> bytes:
        """Return the bytes of the image in a row of a shard. Raises BadImageError."""
        shard = self._shards[at]
        group = bisect.bisect_right(shard.starts, row) - 1
        with self._lock:
            try:
                found = self._group(at, group)[row - shard.starts[group]].as_py()
            except (OSError, pa.ArrowException) as error:
                raise UnreadableError(f"cannot be read ({printable(str(error).splitlines()[0])[:200]})") from None
            except IndexError:
                raise UnreadableError("changed while it was being read") from None
        if found is None:
            raise BadImageError("holds no image")
        if len(found) > MAX_FILE_BYTES:
            raise BadImageError(f"has {len(found):,} bytes; the limit is {MAX_FILE_BYTES:,}")
        content: bytes = found
        return content

    def _group(self, at: int, group: int) -> pa.ChunkedArray:
        if (at, group) in self._groups:
            self._groups.move_to_end((at, group))
            return self._groups[at, group]
        shard = self._shards[at]
        with pa.parquet.ParquetFile(shard.file, metadata=shard.metadata) as parquet:
            read = parquet.read_row_group(group, columns=[shard.column], use_threads=False)
        values = read.column(0)
        if pa.types.is_struct(values.type):
            kind = values.type.field("bytes").type
            values = pa.chunked_array([chunk.field("bytes") for chunk in values.chunks], kind)
        self._groups[at, group] = values
        while len(self._groups) > _KEPT_GROUPS and sum(kept.nbytes for kept in self._groups.values()) > _KEPT_BYTES:
            self._groups.popitem(last=False)
        return values
