"""Reads trials from a table: CSV, TSV or Parquet, such as W&B exports or anybody writes."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cnnsearch.errors import RequestError
from cnnsearch.exchange.foreign import MOST_COLUMNS, MOST_ROWS, STATUS, TRIAL, Raw, State
from cnnsearch.storage.reading import opened, read_bytes
from cnnsearch.words import printable

ENDINGS = (".csv", ".tsv", ".parquet")
_MOST_BYTES = 512 * 2**20
_WANDB = {
    "Name", "State", "Notes", "User", "Tags", "Created", "Runtime", "Updated", "End Time", "ID", "Hostname", "Host",
    "GPU Type", "GPU Count", "Commit", "Github", "GitHub", "Report", "Project", "Group", "Job Type", "Start Time",
}  # fmt: skip
"""Columns of a W&B export that are about the run."""
_STATES = {
    State.DONE: {"finished", "complete", "completed", "done", "success", "succeeded", "terminated", "ok"},
    State.FAILED: {"failed", "crashed", "error", "fail", "diverged"},
    State.PRUNED: {"pruned", "stopped", "killed", "early_stopped"},
    State.RUNNING: {"running", "pending", "waiting", "queued", "scheduled", "preempting"},
}
_IDS = ("trial_id", "run_id", "id", "ID", "number", "Name", "name")


def read(file: Path, shown: str) -> Raw:
    """Read a table with a row for each trial. Raises RequestError."""
    try:
        frame = _parquet(file) if file.suffix.lower() == ".parquet" else _csv(file)
    except OSError as error:
        raise RequestError(f"{shown} cannot be read: {printable(error.strerror or str(error))}") from None
    except Exception as error:  # of pandas and Arrow, and whatever damaged bytes cause
        reason = printable(str(error).splitlines()[0] if str(error) else type(error).__name__)[:200]
        raise RequestError(f"{shown} is no table that can be read: {reason}") from None
    if not len(frame):
        raise RequestError(f"{shown} holds no trials")
    is_wandb = {"Name", "State"} <= set(frame.columns) and bool({"Created", "Runtime"} & set(frame.columns))
    state = next((name for name in ("State", "state", "status", "Status") if name in frame.columns), None)
    names = next((frame[name] for name in _IDS if name in frame.columns and frame[name].is_unique), None)
    states = [_state(value) for value in frame[state]] if state else [State.DONE] * len(frame)
    left_out = [name for name in frame.columns if name == state or (is_wandb and (name in _WANDB or name[:1] == "_"))]
    sweeps = frame["Sweep"].nunique() if is_wandb and "Sweep" in frame.columns else 0
    left_out += ["Sweep"] if sweeps == 1 else []
    rest = frame.drop(columns=[*{*left_out, TRIAL, STATUS} & {*frame.columns}])
    ids = names.astype(str) if names is not None else [str(row) for row in range(len(frame))]
    return Raw(
        shown,
        "W&B" if is_wandb else "a table",
        rest.assign(trial=list(ids), status=states),
        stage="Sweep" if sweeps > 1 else None,
    )


def _state(value: object) -> State:
    word = str(value).strip().lower()
    return next((state for state, words in _STATES.items() if word in words), State.DONE)


def _csv(file: Path) -> pd.DataFrame:
    content = read_bytes(file, _MOST_BYTES, follow=True)
    head = content.partition(b"\n")[0]
    separator = "\t" if file.suffix.lower() == ".tsv" or (b"\t" in head and b"," not in head) else ","
    if separator != "\t" and b";" in head and b"," not in head:
        separator = ";"
    if head.count(separator.encode()) >= MOST_COLUMNS:
        raise ValueError(f"it has more than {MOST_COLUMNS:,} columns")
    frame = pd.read_csv(io.BytesIO(content), sep=separator, nrows=MOST_ROWS + 1, low_memory=False, encoding="utf-8-sig")
    if len(frame) > MOST_ROWS:
        raise ValueError(f"it has more than {MOST_ROWS:,} rows")
    return frame.rename(columns=str)


def _parquet(file: Path) -> pd.DataFrame:
    with opened(file, follow=True) as content:
        facts = pq.read_metadata(content)
        size = sum(facts.row_group(number).total_byte_size for number in range(facts.num_row_groups))
        if facts.num_rows > MOST_ROWS or facts.num_columns > MOST_COLUMNS or size > _MOST_BYTES:
            raise ValueError(f"it has {facts.num_rows:,} rows of {facts.num_columns:,} columns in {size:,} bytes")
        table = pq.ParquetFile(content, metadata=facts).read()
        table.validate(full=True)
    plain = [
        name for name, kind in zip(table.column_names, table.schema.types, strict=True) if not pa.types.is_nested(kind)
    ]
    frame: pd.DataFrame = table.select(plain).to_pandas()
    return frame.rename(columns=str)
