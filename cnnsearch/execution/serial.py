"""Run trials one after another in this process, as tests and debuggers want it. An `executor.Executor`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from cnnsearch.errors import OutOfMemoryError
from cnnsearch.execution.context import SharedContext
from cnnsearch.execution.events import Ended, EpochDone, Event, Ready, Started
from cnnsearch.execution.jobs import run_job
from cnnsearch.execution.machine.hardware import Layout
from cnnsearch.execution.spool import RemoteStore, Spool
from cnnsearch.planning.queue import Queue
from cnnsearch.planning.stopping import Orders
from cnnsearch.planning.trial import Trial
from cnnsearch.results.place import results_at
from cnnsearch.results.record import Record
from cnnsearch.spec.sweep import RunSpec
from cnnsearch.training.compute.device import lent_process


def execute(
    queue: Queue, context: SharedContext, layout: Layout, run: RunSpec, listen: Callable[[Event], None]
) -> None:
    """See `Executor`. A trial that runs out of memory fails at once: it already had all there is.

    Afterwards, torch's threads, default precision and generators are as they were.
    """

    def end(trial: Trial, record: Record) -> None:
        queue.finish(trial, record.outcome)
        listen(Ended(trial, record))

    listen(Ready())
    orders = Orders(queue.stops, queue.waits)
    with lent_process(), _spool(context) as spool:
        here = spool.context_here() if spool else context
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
                            end(trial, event)
                        else:
                            queue.hear(trial, event)
                            listen(EpochDone(trial, event))
                    queue.commit()
                    orders.pause = queue.is_time_up
                if spool:
                    spool.send()  # what was saved after the last event
            except OutOfMemoryError as error:
                results = results_at(context.results, context.remote)
                for trial in job.trials:
                    if trial.id not in queue.outcomes and trial.id not in queue.waits:
                        end(trial, results.commit_failure(trial, f"out of memory; {error}"))
            if not orders.pause:
                queue.leave(trial for trial in job.trials if trial.id not in queue.outcomes)


@contextlib.contextmanager
def _spool(context: SharedContext) -> Iterator[Spool | None]:
    """Make the spool that trials write into if results are kept under a URI; None if they use the results folder."""
    if context.remote is None:
        yield None
        return
    with contextlib.closing(Spool.open(context, RemoteStore(context.remote))) as spool:
        yield spool
