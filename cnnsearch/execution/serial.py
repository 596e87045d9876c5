"""Run trials one after another in this process: what tests and debuggers want. Same signature as `schedule.execute`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from cnnsearch.errors import OutOfMemoryError
from cnnsearch.execution.direct import Direct
from cnnsearch.execution.events import Ended, EpochDone, Event, Ready, Started
from cnnsearch.execution.jobs import run_job
from cnnsearch.execution.machine.hardware import Layout
from cnnsearch.execution.spool import Spool
from cnnsearch.execution.workplace import Workplace
from cnnsearch.planning.queue import Queue
from cnnsearch.planning.stopping import Orders
from cnnsearch.results.mirror import results_at
from cnnsearch.results.records import Record
from cnnsearch.spec.sweep import RunSpec


def execute(queue: Queue, place: Workplace, layout: Layout, run: RunSpec, listen: Callable[[Event], None]) -> None:
    """Run everything in the queue.

    When the queue's time is up, the trial that runs is saved after its epoch, and the call ends. Raises DiskError where
    something cannot be written. A trial that runs out of memory had all there is, and fails.
    """
    listen(Ready())
    orders = Orders(queue.stops)
    with _spool(place) as spool:
        here = spool.here() if spool else place
        while not queue.is_time_up and (job := queue.take()) is not None:
            for trial in job.trials:
                listen(Started(trial))
            if spool:
                spool.begin(job.trials)
            try:
                for events in run_job(job, here, orders):
                    if spool:
                        spool.send()
                    for trial, event in events:
                        if isinstance(event, Record):
                            queue.finish(trial, event.outcome)
                            listen(Ended(trial, event))
                        else:
                            queue.hear(trial, event)
                            listen(EpochDone(trial, event))
                    orders.pause = queue.is_time_up
                if spool:
                    spool.send()  # what was saved of it after its last event
            except OutOfMemoryError as error:
                for trial in job.trials:
                    if trial.id not in queue.outcomes:
                        results = results_at(place.results, place.remote)
                        record = results.commit_failure(trial, f"out of memory; {error}")
                        queue.finish(trial, record.outcome)
                        listen(Ended(trial, record))


@contextlib.contextmanager
def _spool(place: Workplace) -> Iterator[Spool | None]:
    """Where trials are written whose results go to a URI."""
    if place.remote is None:
        yield None
        return
    with contextlib.closing(Spool.open(place, Direct(place.remote))) as spool:
        yield spool
