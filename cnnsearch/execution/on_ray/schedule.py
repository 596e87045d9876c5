"""Run trials in Ray's workers, on this machine or a cluster. An `executor.Executor`."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import ray
from ray.util.metrics import Gauge

from cnnsearch.errors import RunError
from cnnsearch.execution.context import SharedContext
from cnnsearch.execution.events import Event
from cnnsearch.execution.machine.hardware import Layout
from cnnsearch.execution.machine.placement import Capacity, Cluster, resources
from cnnsearch.execution.metrics import Metrics
from cnnsearch.execution.on_ray import pulse
from cnnsearch.execution.on_ray.cluster import head_processes, report_seconds, started
from cnnsearch.execution.on_ray.depot import DepotClient
from cnnsearch.execution.on_ray.stuck import patience
from cnnsearch.execution.on_ray.tune import Dispatcher, EndTuneError, make_tuner
from cnnsearch.execution.on_ray.worker import JobRunner
from cnnsearch.execution.warden import Warden
from cnnsearch.planning.job import Job
from cnnsearch.planning.queue import Queue
from cnnsearch.spec.sweep import RunSpec
from cnnsearch.storage.scratch import scratch

INTERRUPTED_SECONDS = 1.5
"""Seconds to wait, after an interrupt, for running trials to be saved."""


def execute(
    queue: Queue,
    context: SharedContext,
    layout: Layout,
    run: RunSpec,
    listen: Callable[[Event], None],
    cluster: Cluster | None = None,
    warden: Warden | None = None,
    run_job: JobRunner | None = None,
) -> None:
    """See `Executor`. On Ctrl-C, too, running trials are saved after their epoch, if it ends soon.

    Args:
        queue, context, layout, run, listen: see `Executor`.
        cluster: the cluster that this process is attached to; None starts Ray on this machine for the time of the run.
        warden: is told of temporary folders.
        run_job: what a worker does with a job, a function that can be sent to it; None: `jobs.run_job`.
    """
    with contextlib.ExitStack() as stack:
        if cluster:
            stack.enter_context(pulse.watched(cluster.address, warden))
        ready = cluster.ready if cluster else stack.enter_context(started(layout, run, warden))
        if warden and not cluster:
            stack.enter_context(warden.expecting(*patience()))
        folder = stack.enter_context(_scratch(warden))
        depot = stack.enter_context(contextlib.closing(DepotClient(context))) if cluster else None
        listen(ready)
        capacity = Capacity(layout, run, cluster)
        queue.slots = capacity.slots
        processes = {} if cluster else head_processes()
        metrics = Metrics(queue, context, _gpu_share(layout), Gauge, report_seconds() / 3)
        dispatcher = Dispatcher(queue, listen, context, run, capacity, processes, warden, metrics)
        tuner = make_tuner(queue, dispatcher, capacity.layout, folder, context=context, depot=depot, run_job=run_job)
        try:
            tuner.fit()
        except EndTuneError:
            return
        except KeyboardInterrupt:
            dispatcher.save(INTERRUPTED_SECONDS)
            raise
    if not queue.is_exhausted:
        raise RunError("Ray stopped before every trial had ended; the same command goes on")


def _gpu_share(layout: Layout) -> Callable[[Job], float]:
    """Make a function that returns the share of all the cluster's GPUs that a job has, 0-1."""
    gpus: float = ray.cluster_resources().get("GPU", 0.0)
    return lambda job: resources(layout, job.slots).get("GPU", 0.0) / gpus if gpus else 0.0


@contextlib.contextmanager
def _scratch(warden: Warden | None) -> Iterator[str]:
    """A temporary folder for what Tune writes."""
    with scratch("cnnsearch-tune-", Path(tempfile.gettempdir())) as folder:
        if warden:
            warden.remove(folder)
        yield str(folder)
