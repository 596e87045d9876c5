"""Reads a folder of Ray Tune's results: params.json and result.json of each trial. Nothing there is ever unpickled."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from cnnsearch.errors import RequestError
from cnnsearch.exchange.foreign import MOST_COLUMNS, MOST_ROWS, STATUS, TRIAL, Raw, State
from cnnsearch.storage.reading import opened, parsed, read_bytes
from cnnsearch.words import counted, printable

PARAMS, RESULT, ERROR = "params.json", "result.json", "error.txt"
ITERATION = "training_iteration"
_OWN = {
    "timestamp", "checkpoint_dir_name", "should_checkpoint", "done", ITERATION, "trial_id", "date", "time_this_iter_s",
    "time_total_s", "pid", "hostname", "node_ip", "config", "time_since_restore", "iterations_since_restore",
    "experiment_tag", "episodes_total", "timesteps_total", "timesteps_since_restore", "warmup_time",
}  # fmt: skip
"""Keys of a result that Ray adds."""
_MOST_RESULT = 256 * 2**20
_MOST_LINE = 4 * 2**20
"""Most bytes of a file of results, and of one of its lines."""


def is_one(folder: Path) -> bool:
    """Whether a folder holds results of Ray Tune."""
    return any(True for _ in _trials(folder))


def read(folder: Path, shown: str) -> Raw:
    """Read the last result of every trial in a folder. Raises RequestError."""
    rows: list[dict[str, Any]] = []
    params: dict[str, None] = {}
    try:
        for trial in _trials(folder):
            settings = _flat(parsed(read_bytes(trial / PARAMS, _MOST_LINE), gaps=True))
            last = _flat(_last(trial / RESULT) or {})
            measured = {key: value for key, value in last.items() if key not in _OWN and not key.startswith("config/")}
            params |= dict.fromkeys(settings)
            name = str(last.get("trial_id") or trial.name)
            rows.append({**measured, **settings, TRIAL: name, STATUS: State.DONE, ITERATION: last.get(ITERATION)})
            rows[-1][STATUS] = State.FAILED if (trial / ERROR).exists() or not measured else State.DONE
            if len(rows) > MOST_ROWS or len(rows[-1]) > MOST_COLUMNS:
                raise RequestError(
                    f"{shown} holds too much: at most {MOST_ROWS:,} trials with {MOST_COLUMNS:,} numbers"
                )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise RequestError(f"{shown} cannot be read: {printable(getattr(error, 'filename', None) or trial.name)}: "
                           f"{printable(reason)}") from None  # fmt: skip
    if not rows:
        raise RequestError(f"{shown} holds no trials of Ray Tune: no folder in it has {PARAMS} and {RESULT}")
    most = max((row[ITERATION] or 0 for row in rows), default=0)
    stopped = [row for row in rows if row[STATUS] is State.DONE and (row[ITERATION] or 0) < most]
    for row in stopped:  # a rule stopped them, and fewer iterations are not compared with more
        row[STATUS] = State.PRUNED
    frame = pd.DataFrame(rows).drop(columns=ITERATION)
    measured_at = f"each trial's last report, of {counted(int(most), 'iteration')}"
    return Raw(shown, "Ray Tune", frame, params=list(params), measured=measured_at)


def _trials(folder: Path) -> Iterator[Path]:
    """The folders of trials in that of an experiment, in order; it may hold several experiments."""
    for inner in sorted(folder.iterdir()) if folder.is_dir() else ():
        if inner.is_symlink() or not inner.is_dir():
            continue
        if (inner / PARAMS).is_file() and (inner / RESULT).is_file():
            yield inner
        else:
            for one in sorted(inner.iterdir()):
                if not one.is_symlink() and (one / PARAMS).is_file() and (one / RESULT).is_file():
                    yield one


def _last(file: Path) -> Mapping[str, Any] | None:
    """The last whole line of a file of JSON lines; None where there is none."""
    with opened(file) as content:
        size = content.seek(0, 2)
        if size > _MOST_RESULT:
            raise ValueError(f"it has more than {_MOST_RESULT:,} bytes")
        content.seek(max(0, size - _MOST_LINE))
        lines = [line for line in content.read().split(b"\n") if line.strip()]
    for line in reversed(lines):
        try:
            found = parsed(line, gaps=True)
        except ValueError:
            continue  # cut off while it was being written
        return found if isinstance(found, dict) else None
    return None


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested keys as one, with slashes between, as Ray shows them; lists as JSON."""
    if not isinstance(values, dict):
        raise ValueError("it holds no JSON object")
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            found |= _flat(value, f"{name}/")
        else:
            found[name] = json.dumps(value) if isinstance(value, list | dict) else value
    return found
