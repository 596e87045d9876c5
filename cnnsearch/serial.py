"""Run trials one after another in this process: what tests and debuggers want. Same signature as `schedule.execute`."""

from __future__ import annotations

from collections.abc import Callable

from cnnsearch.events import Ended, EpochDone, Event, Ready, Started
from cnnsearch.hardware import Layout
from cnnsearch.plan import Queue
from cnnsearch.records import Record
from cnnsearch.spec import RunSpec
from cnnsearch.work import Workplace, run_trial


def execute(queue: Queue, place: Workplace, layout: Layout, run: RunSpec, listen: Callable[[Event], None]) -> None:
    """Run everything in the queue."""
    listen(Ready())
    while (trial := queue.take()) is not None:
        listen(Started(trial))
        for event in run_trial(trial, place):
            if isinstance(event, Record):
                queue.finish(trial, event.outcome)
                listen(Ended(trial, event))
            else:
                listen(EpochDone(trial, event))
