"""Run trials one after another in this process: what tests and debuggers want. Same signature as `schedule.execute`."""

from __future__ import annotations

from collections.abc import Callable

from cnnsearch.events import Ended, EpochDone, Event, Ready, Started
from cnnsearch.hardware import Layout
from cnnsearch.jobs import run_job
from cnnsearch.plan import Queue
from cnnsearch.records import Record
from cnnsearch.spec import RunSpec
from cnnsearch.work import Workplace


def execute(queue: Queue, place: Workplace, layout: Layout, run: RunSpec, listen: Callable[[Event], None]) -> None:
    """Run everything in the queue."""
    listen(Ready())
    while (job := queue.take()) is not None:
        for trial in job.trials:
            listen(Started(trial))
        for events in run_job(job, place):
            for trial, event in events:
                if isinstance(event, Record):
                    queue.finish(trial, event.outcome)
                    listen(Ended(trial, event))
                else:
                    listen(EpochDone(trial, event))
