"""What a trial was computed with, as recorded and as it is now: whatever may change how its numbers round."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from cnnsearch import told
from cnnsearch.execution.machine import software
from cnnsearch.execution.machine.hardware import detect
from cnnsearch.results.record import Record
from cnnsearch.spec.model_names import is_timm

_SLACK = timedelta(seconds=2)
"""Runs record when they began in whole seconds."""
_UNUSED = frozenset({"ray"})
"""Packages that have no part in training a trial alone."""


def run_of(record: Record, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The run that trained a trial; {} where none of these did, as of trials taken over from another sweep."""
    if record.started_at is None:
        return {}
    at = record.started_at if record.started_at.tzinfo else record.started_at.replace(tzinfo=UTC)
    for run in runs[::-1]:
        if run.get("started_at") and run.get("seconds") is not None:
            began = datetime.fromisoformat(run["started_at"])
            if began - _SLACK <= at <= began + timedelta(seconds=run["seconds"]) + _SLACK:
                return run
    return {}


def differing(then: Record, now: Record, runs: Sequence[dict[str, Any]]) -> list[told.Condition]:
    """List what differs between a recorded training and one that this machine has just made."""
    return [told.Condition(name=name, then=was, now=is_) for name, was, is_ in _both(then, now, runs) if was != is_]


def _both(then: Record, now: Record, runs: Sequence[dict[str, Any]]) -> list[tuple[str, str | None, str | None]]:
    run, hardware = run_of(then, runs), detect()
    was, is_ = run.get("versions") or {}, software.versions()
    machine = run.get("hardware") or {}
    found: list[tuple[str, str | None, str | None]]
    unused = _UNUSED if is_timm(now.settings.model) else _UNUSED | {"timm"}
    found = [(name, was.get(name), version) for name, version in is_.items() if name not in unused]
    found += [
        ("code", run.get("git_commit"), software.commit()),
        ("record version", str(then.schema_version), str(now.schema_version)),
        ("trial id", then.trial_id, now.trial_id),
        ("processor", machine.get("cpu"), hardware.cpu),
    ]
    found += [(name, _text(getattr(then, name)), _text(getattr(now, name))) for name in ("device", "threads")]
    found += [("precision", then.precision, now.precision)] if now.precision else []
    if {then.device, now.device} - {"cpu", None}:
        gpus = machine.get("gpus")
        found.append(("GPUs", None if gpus is None else ", ".join(gpus), ", ".join(hardware.gpus)))
    return found


def _text(value: object) -> str | None:
    return None if value is None else str(value)
