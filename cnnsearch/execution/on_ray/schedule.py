"""Run trials with Ray Tune, on this machine or a cluster. With `worker`, `running` and `cluster` the only
module that imports Ray.

Tune places trials, keeps workers alive between them and restarts those that die. It is never the record: what counts
is what `records` wrote, and every run starts a fresh Tuner, in a temporary folder, on the trials that remain.
"""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher
from ray.util.metrics import Gauge

from cnnsearch.errors import DiskError, RunError
from cnnsearch.execution.events import Ended, EpochDone, Event, Started
from cnnsearch.execution.machine import hardware
from cnnsearch.execution.machine.hardware import Layout
from cnnsearch.execution.machine.placement import Cluster, Node, most_room, resources, slots
from cnnsearch.execution.metrics import Metrics
from cnnsearch.execution.on_ray import pulse
from cnnsearch.execution.on_ray.cluster import RemoteDepot, head_processes, is_alive, report_seconds, started
from cnnsearch.execution.on_ray.running import Running, diagnosis
from cnnsearch.execution.on_ray.worker import DISK_FULL, JobRunner, Worker, from_config, plain, to_config
from cnnsearch.execution.retries import Retries, Trouble
from cnnsearch.execution.warden import Warden
from cnnsearch.execution.watchdog import Watchdog
from cnnsearch.execution.workplace import Workplace
from cnnsearch.planning.labels import job_label, told_axes
from cnnsearch.planning.queue import Job, Queue
from cnnsearch.planning.stopping import Stop
from cnnsearch.planning.trial import EpochRow, Trial
from cnnsearch.results.mirror import results_at
from cnnsearch.results.records import Record
from cnnsearch.spec.sweep import RunSpec

SAVING_SECONDS = 30.0
"""When the time is up, running trials may take so long to come to the end of an epoch and be saved."""
INTERRUPTED_SECONDS = 1.5
"""The same for whoever interrupts, and expects an end in a few seconds."""
SIGNAL_SECONDS = 0.1
"""The longest that a wait keeps a signal waiting."""
MOST_PENDING = 10_000
"""Trials that Tune may have waiting for a place."""
NODES_SECONDS = 3.0
"""Machines that joined a cluster or left it are noticed so often."""
MOST_NAMED = 500
"""Jobs whose steps are named in Ray's dashboard: its metrics count tasks by name, and never forget one."""
KEPT_BY_TUNE = 200
"""Ended trials that may stay in Tune's list."""


def execute(
    queue: Queue,
    place: Workplace,
    layout: Layout,
    run: RunSpec,
    listen: Callable[[Event], None],
    cluster: Cluster | None = None,
    warden: Warden | None = None,
    run_job: JobRunner | None = None,
) -> None:
    """Run everything in the queue.

    Args:
        queue: hands out trials and learns how they ended.
        place: what all trials share.
        layout: resources of a trial, and how many run at once on this machine.
        run: retries and the dashboard.
        listen: called with every event, from this thread.
        cluster: that is attached to; None starts Ray on this machine for the time of the run.
        warden: is told of temporary folders.
        run_job: what a worker does with a job, a function that can be sent to it; None: `jobs.run_job`.

    When the queue's time is up, or on Ctrl-C, what runs is saved after its epoch, as far as that comes soon.

    Raises:
        RunError: Ray stopped before the work was done, or the disk is full.
    """
    with contextlib.ExitStack() as stack:
        if cluster:
            stack.enter_context(pulse.watched(cluster.address, warden))
        ready = cluster.ready if cluster else stack.enter_context(started(layout, run, warden))
        scratch = stack.enter_context(_scratch(warden))
        depot = stack.enter_context(contextlib.closing(RemoteDepot(place))) if cluster else None
        listen(ready)
        machines = _Machines(layout, run, cluster)
        queue.slots = machines.slots
        # By default Tune starts one worker at a time for a searcher of one's own, and drops it for a freed one. Here
        # the queue says how many there are, which changes as machines come and go.
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(MOST_PENDING)
        heart = {} if cluster else head_processes()
        metrics = Metrics(queue, place, _gpu_share(layout), Gauge, report_seconds() / 3)
        dispatcher = _Dispatcher(queue, listen, place, run, machines, heart, warden, metrics)

        def wanted(config: dict[str, Any]) -> tune.PlacementGroupFactory:
            return tune.PlacementGroupFactory([resources(machines.layout, config["room"])])

        tuner = tune.Tuner(
            _named(
                tune.with_resources(
                    tune.with_parameters(Worker, place=place, sweep=queue.sweep, depot=depot, run_job=run_job),
                    wanted,
                )
            ),
            tune_config=tune.TuneConfig(
                search_alg=_QueueSearcher(queue),
                scheduler=_InOrder(),
                num_samples=-1,
                reuse_actors=True,
                trial_name_creator=_name,
                trial_dirname_creator=_name,
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=scratch,
                callbacks=[dispatcher],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=0),
                verbose=0,
            ),
        )
        try:
            tuner.fit()
        except _TimeIsUpError:
            return
        except KeyboardInterrupt:
            dispatcher.save(INTERRUPTED_SECONDS)
            raise
    if not queue.is_exhausted:
        raise RunError("Ray stopped before every trial had ended; the same command goes on")


class _Machines:
    """How many trials there is room for: fixed on this machine, and followed on a cluster."""

    def __init__(self, layout: Layout, run: RunSpec, cluster: Cluster | None) -> None:
        # On this machine Ray is given no more CPUs than trials that fit its memory.
        self.layout = layout if cluster else replace(layout, host_bytes=0)
        self._fixed = run.trials_at_once != "auto"
        self._cluster = cluster
        self._looked_at = time.monotonic()
        cpus = float(layout.trials_at_once * layout.threads)
        gpus = float(len(hardware.detect().gpus))
        self._nodes = cluster.nodes if cluster else (Node("", "", cpus, gpus, math.inf, hardware.detect()),)

    @property
    def slots(self) -> int:
        """Trials at a time. Those that are asked for may wait for a cluster that grows by itself."""
        if self._cluster is None or self._fixed:
            return self.layout.trials_at_once
        return slots(self.layout, self._nodes)

    @property
    def most_room(self) -> int:
        """See `placement.most_room`."""
        return most_room(self.layout, self._nodes)

    def look(self) -> None:
        """Now and then, notice who came and went. Raises RunError where one came that cannot be used."""
        if self._cluster is None or time.monotonic() - self._looked_at < NODES_SECONDS:
            return
        self._looked_at = time.monotonic()
        self._nodes = self._cluster.look() or self._nodes


class _TimeIsUpError(Exception):
    """Raised where Tune calls us, to end it when all is saved."""


class _Dispatcher(tune.Callback):  # type: ignore[misc]
    """Stands between the queue and Tune: takes results out, and decides what becomes of jobs that go wrong."""

    def __init__(
        self,
        queue: Queue,
        listen: Callable[[Event], None],
        place: Workplace,
        run: RunSpec,
        machines: _Machines,
        heart: dict[str, psutil.Process],
        warden: Warden | None,
        metrics: Metrics,
    ) -> None:
        self._queue = queue
        self._listen = listen
        self._metrics = metrics
        self._axes = told_axes(queue.sweep)
        self._named = 0
        """Jobs whose steps were given a name."""
        self._results = results_at(place.results, place.remote)
        self._machines = machines
        self._retries = Retries(run.max_retries, machines.most_room)
        self._watchdog = Watchdog(run.patience_seconds)
        self._heart = heart
        self._warden = warden
        self._troubles: dict[str, tuple[Trouble, str]] = {}
        """Tune's trial id -> what is known of why it is about to fail."""
        self._workers: dict[str, Running] = {}
        """Tune's trial id -> who runs it."""
        self._whereabouts: dict[str, Any] = {}
        """Actor id -> reference to where it is, asked for once: later it may be stopped, and not answer."""
        self._steps: dict[str, Any] = {}
        """Actor id -> its method that takes a step, without a name of ours."""
        self._fatal: RunError | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks in order to restore them, which never happens here

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        job = from_config(trial.config)
        self._watch(trial, job)
        self._name_steps(trial, job)
        for one in job.trials:
            if one.id not in self._queue.outcomes:
                self._listen(Started(one))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self._watchdog.heard(trial.trial_id)
        if result.get("trouble") == DISK_FULL:
            self._fatal = DiskError(result["reason"])
        elif "trouble" in result:
            self._troubles[trial.trial_id] = (Trouble(result["trouble"]), result["reason"])
        trials_by_id = {one.id: one for one in from_config(trial.config).trials}
        stops: dict[str, Stop] = {}
        events = result.get("events", [])
        for told in events:
            one = trials_by_id[told["trial"]]
            if one.id in self._queue.outcomes:
                continue  # a worker that died had told of it before
            if "record" in told:
                self._end(one, Record.model_validate(told["record"]))
            else:
                row = EpochRow(**told["row"])
                if (stop := self._queue.hear(one, row)) is not None:
                    stops[one.id] = stop
                self._metrics.hear(EpochDone(one, row))
                self._listen(EpochDone(one, row))
        # Tune keeps what was last reported of every trial, and in the end writes it all down.
        events.clear()
        if stops:
            self._workers[trial.trial_id].actor.end_early.remote(plain(stops))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._forget(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The worker is gone: what it had not ended runs again, or is given up."""
        running = self._forget(trial)
        job = from_config(trial.config)
        left = [one for one in job.trials if one.id not in self._queue.outcomes]
        if not left or self._fatal:
            return
        known = self._troubles.pop(trial.trial_id) if trial.trial_id in self._troubles else None
        trouble, reason = diagnosis(trial, running) if known is None else known
        again, given_up = self._retries.after(job, left, trouble, reason)
        for one, cause in given_up:
            try:
                self._end(one, self._results.commit_failure(one, cause))
            except DiskError as error:
                self._fatal = error
        for retried in again:
            self._queue.retry(retried)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Called several times a second: the place for what nobody reports."""
        for name, process in self._heart.items():
            if not is_alive(process):
                self._fatal = RunError(f"Ray's process {name} has died; what is finished is kept")
                if self._warden:  # Ray may end this process before it comes to say so
                    self._warden.last_words(f"error: {self._fatal}. The same command goes on.")
        try:
            self._machines.look()
        except RunError as error:
            self._fatal = error
        self._queue.slots = self._machines.slots
        self._retries.most_room = self._machines.most_room
        if self._fatal:
            raise self._fatal
        if self._queue.is_time_up:
            self.save()
            raise _TimeIsUpError
        if len(trials) > KEPT_BY_TUNE + 2 * self._queue.slots:
            _drop_ended(trials)
        for trial in trials:
            # Its worker has had a job before and is being given this one, of which Tune tells nobody.
            if trial.status == "PENDING" and trial.temporary_state.ray_actor and trial.trial_id not in self._workers:
                self._watch(trial, from_config(trial.config))
        for tune_id, seconds in self._watchdog.look():
            self._troubles[tune_id] = (Trouble.SILENT, f"nothing was heard of it for {seconds:.0f} s")
            self._workers[tune_id].kill()
        self._metrics.publish()

    def _watch(self, trial: Any, job: Job) -> None:
        """From now on the worker of this trial is expected to be heard of."""
        actor = trial.temporary_state.ray_actor
        if (actor_id := actor._actor_id.hex()) not in self._whereabouts:
            self._whereabouts[actor_id] = actor.whereabouts.remote()
        self._workers[trial.trial_id] = Running(actor, self._whereabouts[actor_id], actor.oom_kills.remote())
        self._watchdog.started(trial.trial_id, self._queue.silence(job))

    def _name_steps(self, trial: Any, job: Job) -> None:
        """Have Ray's dashboard call the tasks of this job by what they train: a worker outlives its trials.

        Tune calls the actor's `train` for a step, and cannot be told how to name the call.
        """
        actor = trial.temporary_state.ray_actor
        step = self._steps.setdefault(actor._actor_id.hex(), actor.train)
        is_named = self._named < MOST_NAMED
        actor.train = step.options(name=job_label(job.trials, self._axes)) if is_named else step
        self._named += is_named

    def save(self, seconds: float = SAVING_SECONDS) -> None:
        """Have what runs saved at the end of its epoch, and wait so long for it."""
        unsaved = [running.actor.pause.remote() for running in self._workers.values()]
        deadline = time.monotonic() + seconds
        while unsaved and (left := deadline - time.monotonic()) > 0:
            # Ray looks for signals once a second: a second Ctrl-C would wait for that.
            _, unsaved = ray.wait(unsaved, num_returns=len(unsaved), timeout=min(left, SIGNAL_SECONDS))

    def _end(self, trial: Trial, record: Record) -> None:
        try:
            self._queue.finish(trial, record.outcome)
        except DiskError as error:  # the next suggestion cannot be recorded; here Tune would take it for the trial's
            self._fatal = error
        self._listen(Ended(trial, record))

    def _forget(self, trial: Any) -> Running | None:
        self._watchdog.ended(trial.trial_id)
        return self._workers.pop(trial.trial_id, None)


def _drop_ended(trials: list[Any]) -> None:
    """Keep what Tune does at a step, and holds, from growing with the trials that have ended.

    Args:
        trials: Tune's own list, which it looks through at every step. Other collections of it keep every trial, of
            which most is what was reported. The latest stays: of an empty list Tune would read its files again.
    """
    for trial in trials[:-1]:
        if trial.is_finished():
            trial.run_metadata = type(trial.run_metadata)()
            trial.config.clear()
            trial.evaluated_params.clear()
    trials[:-1] = [trial for trial in trials[:-1] if not trial.is_finished()]


class _QueueSearcher(Searcher):  # type: ignore[misc]
    """Tune asks it for configurations; it takes them from the queue."""

    def __init__(self, queue: Queue) -> None:
        super().__init__(metric="training_iteration", mode="max")
        self._queue = queue

    def suggest(self, trial_id: str) -> Any:
        if self._queue.is_exhausted:
            return Searcher.FINISHED
        job = self._queue.take()
        return None if job is None else to_config(job, self._queue.stops)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        pass

    def __getstate__(self) -> dict[str, Any]:
        return {}  # see _Dispatcher

    def save(self, checkpoint_path: str) -> None:
        pass

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("the queue is rebuilt from records, never restored")


class _InOrder(FIFOScheduler):  # type: ignore[misc]
    """Starts trials in the order they come in, and lets workers that are starting come up.

    By default Tune gives a freed worker to the first trial that waits for one, ends the worker that was being started
    for it, and asks for another for the trial that follows: hundreds of places are not filled for as long as a worker
    takes longer to start than a trial runs. It also looks through all trials there have been, at every step.
    """

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """None: Tune then starts what waits, in order, and gives freed workers to what has none."""


def _named(worker: Any) -> Any:
    """The class by the name that Ray's dashboard shows."""
    worker.__name__ = worker.__qualname__ = "Worker"
    return worker


def _name(trial: Any) -> str:
    return f"{from_config(trial.config).id}-{trial.trial_id}"  # the second part tells attempts apart


def _gpu_share(layout: Layout) -> Callable[[Job], float]:
    """What share of the cluster's GPUs a job has."""
    gpus: float = ray.cluster_resources().get("GPU", 0.0)
    return lambda job: resources(layout, job.room).get("GPU", 0.0) / gpus if gpus else 0.0


@contextlib.contextmanager
def _scratch(warden: Warden | None) -> Iterator[str]:
    """A temporary folder for what Tune writes."""
    with tempfile.TemporaryDirectory(prefix="cnnsearch-tune-", ignore_cleanup_errors=True) as folder:
        if warden:
            warden.remove(Path(folder))
        yield folder
