"""Time the training steps of a sweep's models on a machine, once, and remember what they took. Without torch."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from cnnsearch.errors import DiskError
from cnnsearch.execution.machine.estimate import Calibration, work_of_step, workload_key
from cnnsearch.execution.machine.hardware import Hardware, Layout
from cnnsearch.execution.machine.pace import at_pace, pace, slower
from cnnsearch.planning.trial import Trial
from cnnsearch.spec.settings import Settings
from cnnsearch.storage.cache import cache_root
from cnnsearch.storage.durable import read_checked, write_checked
from cnnsearch.training.compute import allocator
from cnnsearch.training.models.checked_code import as_plain
from cnnsearch.training.models.other_process import ask

VERSIONS = {"cpu": "11", "cuda": "11", "xpu": "11", "mps": "11"}
"""Device -> version of what is measured on it; remembered timings of another version are not used."""
OF_MACHINE = ("precision", "import_seconds", "import_pace")
"""What is found out once for each machine."""


def calibrate(
    trials: Iterable[Trial],
    classes: int,
    layout: Layout,
    hardware: Hardware,
    measure: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None,
) -> Calibration:
    """Look up how long these trials' steps take on a machine, timing those not yet known (about 3 s each).

    What was timed on this machine at another time is scaled to how fast it is now: see `pace`.

    Args:
        trials: trials whose steps are timed.
        classes: number of classes of the images.
        layout: device and threads of a trial.
        hardware: of the machine.
        measure: sends a request to another machine and returns its answer; None: `answer` on this machine.

    Raises RequestError where a model cannot be built as requested, RunError where the timing process fails.
    """
    file = _cache_file(hardware, layout)
    known = read_checked(file) or {}
    needed = {workload_key(trial.settings): trial.settings for trial in trials}
    missing = {key: settings for key, settings in needed.items() if key not in known.get("workloads", {})}
    if missing or not known:
        ordered = sorted(missing.items(), key=lambda item: work_of_step(item[1]))
        request = _request([settings for _, settings in ordered], classes, layout, known)
        found = (measure or answer)(request)
        timed = dict(zip((key for key, _ in ordered), found["workloads"], strict=True))
        known = {name: found.get(name) for name in OF_MACHINE} | {"workloads": {**known.get("workloads", {}), **timed}}
        with contextlib.suppress(OSError, DiskError):  # without it, steps are timed again
            file.parent.mkdir(parents=True, exist_ok=True)
            write_checked(file, known)
    if measure is not None or layout.device != "cpu" or not known["import_pace"]:  # it is not for this process to say
        return Calibration(known["precision"], known["workloads"], known["import_seconds"])
    now = pace()
    workloads = {key: at_pace(timed, now) for key, timed in known["workloads"].items()}
    return Calibration(known["precision"], workloads, known["import_seconds"] * slower(known["import_pace"], now))


def _request(settings: list[Settings], classes: int, layout: Layout, known: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{name: known.get(name) for name in OF_MACHINE},
        "device": layout.device,
        "threads": layout.threads,
        "classes": classes,
        "workloads": [s.model_dump() for s in settings],
        "code": as_plain(s.code for s in settings),
    }


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Have a process of this machine answer a request: see `calibrate.main`. Raises RequestError, RunError."""
    environment = os.environ | allocator.environment()
    return ask("cnnsearch.execution.machine.calibrate", request, "timing this sweep's models failed", environment)


def _cache_file(hardware: Hardware, layout: Layout) -> Path:
    facts = [
        hardware.key,
        layout.device,
        str(layout.threads),
        importlib.metadata.version("torch"),
        VERSIONS[layout.device],
    ]
    return cache_root() / "machines" / f"{hashlib.sha256(' '.join(facts).encode()).hexdigest()[:16]}.json"
