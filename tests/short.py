"""A report of one line and timings that are made up: for sweeps of tests that look at neither.

Drawing a report takes longer than most sweeps of tests train, and timing their models takes a process that imports
torch. Run as a program this file is `python -m cnnsearch.sweep` with both left out, and what reports import with them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import cnnsearch
from cnnsearch import prepare
from cnnsearch.execution.machine import timing
from cnnsearch.execution.machine.estimate import Calibration, workload_key
from cnnsearch.execution.machine.hardware import Hardware, Layout
from cnnsearch.planning.trial import Trial
from cnnsearch.report.beside import Beside
from cnnsearch.results.tables import Tables

if TYPE_CHECKING:
    from cnnsearch.report import Refreshed

TIMED = {
    "step_seconds": 0.002,
    "eval_image_seconds": 0.00005,
    "prefix_image_seconds": 0.0,
    "features_image_bytes": 0,
    "memory_bytes": 400_000_000,
    "shared_bytes": 150_000_000,
    "weights_bytes": 50_000,
    "parameters": 10_000,
}


def refresh(
    tables: Tables, pictures_of: Callable[[list[str]], dict[str, Any]], training_of: Any = None, beside: Any = None
) -> Refreshed:
    """Write one line in the place of a report; the answer and the pictures are the real ones."""
    from cnnsearch.evidence.evidence import Evidence
    from cnnsearch.evidence.mistakes import examples_wanted
    from cnnsearch.report import Refreshed
    from cnnsearch.report.findings import summary

    tables = replace(tables, pictures=pictures_of(examples_wanted(tables)))
    evidence = Evidence(tables)
    return Refreshed(tables, _line(tables), summary(evidence), evidence)


def _line(tables: Tables) -> Path:
    page = tables.folder / "report.html"
    page.write_text("the answer", encoding="utf-8")
    return page


def refresh_alone(
    tables: Tables, pictures_of: Callable[[list[str]], dict[str, Any]], training_of: Any = None, beside: Any = None
) -> tuple[Tables, Path, list[Any], None]:
    """Write that line without what it takes seconds to import: there is no answer then, and no picture."""
    return tables, _line(tables), [], None


def calibrate(
    trials: Iterable[Trial], classes: int, layout: Layout, hardware: Hardware, measure: Any = None
) -> Calibration:
    """Say of every model that it is as small as those of most tests; no error is found, and nothing is remembered."""
    return Calibration("fp32", {workload_key(trial.settings): TIMED for trial in trials})


WHOLE: dict[tuple[Any, str], Any] = {}
"""What `shorten` stands in for, as it is in the package."""


def shorten(put: Callable[[Any, str, Any], None]) -> None:
    """Leave out reports and timings from now on; `put` is `setattr`, or one that can be undone."""
    from cnnsearch import report

    WHOLE.update({(report, "refresh"): report.refresh, (prepare, "calibrate"): timing.calibrate})
    WHOLE[Beside, "start"] = Beside.start
    put(report, "refresh", refresh)
    put(*ALONE)
    put(*TIMINGS)


ALONE = (Beside, "start", lambda self, trials=0: None)
"""What `setattr` takes to have no process beside this one."""
TIMINGS = (prepare, "calibrate", calibrate)
"""What `setattr` takes to leave out timings alone."""


if __name__ == "__main__":
    from cnnsearch.cli import run_alone, sweep

    sys.path[0] = os.getcwd()  # as `python -m` has it
    setattr(*TIMINGS)
    setattr(*ALONE)
    vars(cnnsearch)["report"] = SimpleNamespace(refresh=refresh_alone)  # what `from cnnsearch import report` finds
    run_alone(sweep)
