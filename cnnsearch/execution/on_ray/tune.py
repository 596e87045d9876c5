"""What adapts Ray Tune to a queue of jobs: searcher, trial scheduler, callbacks, and what keeps Tune small.

Tune places trials, keeps workers alive between them and replaces those that die. It is never the record: what counts is
what the results folder holds, and every run starts a fresh Tuner, in a temporary folder, on the trials that remain.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from typing import Any

import psutil
import ray
from ray import tune
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.search import Searcher

from cnnsearch.errors import DiskError, RunError
from cnnsearch.execution.context import SharedContext
from cnnsearch.execution.events import Ended, EpochDone, Event, Started
from cnnsearch.execution.machine.hardware import Layout
from cnnsearch.execution.machine.placement import Capacity, resources
from cnnsearch.execution.metrics import Metrics
from cnnsearch.execution.on_ray.cluster import is_alive
from cnnsearch.execution.on_ray.placing import InOrderScheduler
from cnnsearch.execution.on_ray.running import Running, diagnosis
from cnnsearch.execution.on_ray.stuck import BEAT_SECONDS, IDLE_SECONDS, Idle, patience
from cnnsearch.execution.on_ray.worker import DISK_FULL, Worker, from_config, plain, to_config
from cnnsearch.execution.retries import Retries, Trouble, Watchdog
from cnnsearch.execution.warden import Warden
from cnnsearch.planning.job import Job
from cnnsearch.planning.labels import job_label, told_axes
from cnnsearch.planning.queue import Queue
from cnnsearch.planning.trial import EpochRow, Trial
from cnnsearch.results.place import results_at
from cnnsearch.results.record import Record
from cnnsearch.spec.sweep import RunSpec

SAVING_SECONDS = 30.0
"""Seconds to wait, when the time is up, for running trials to finish their epoch and be saved."""
SIGNAL_SECONDS = 0.1
"""Most seconds by which waiting for workers delays the handling of a signal."""
MOST_NAMED = 500
"""Most jobs whose steps are named in Ray's dashboard: its metrics count tasks by name, and never forget a name."""
KEPT_BY_TUNE = 200
"""Ended trials that may stay in Tune's list before they are dropped."""
MOST_PENDING = 10_000
"""Trials that Tune may have waiting for resources."""


class EndTuneError(Exception):
    """Raised in a callback to make Tune return, once the queue's time is up and the running trials are saved."""


class Dispatcher(tune.Callback):  # type: ignore[misc]
    """Enters what workers report to Tune into the queue, and decides what happens to jobs that fail."""

    def __init__(
        self,
        queue: Queue,
        listen: Callable[[Event], None],
        context: SharedContext,
        run: RunSpec,
        capacity: Capacity,
        head_processes: dict[str, psutil.Process],
        warden: Warden | None,
        metrics: Metrics,
    ) -> None:
        self._queue = queue
        self._listen = listen
        self._metrics = metrics
        self._axes = told_axes(queue.sweep)
        self._named = 0
        """Number of jobs whose steps were given a name."""
        self._results = results_at(context.results, context.remote)
        self._capacity = capacity
        self._retries = Retries(run.max_retries, capacity.max_slots)
        self._watchdog = Watchdog(run.patience_seconds)
        self._head_processes = head_processes
        self._warden = warden
        self._troubles: dict[str, tuple[Trouble, str]] = {}
        """Tune's trial id -> why it is about to fail, if that is known in advance."""
        self._workers: dict[str, Running] = {}
        """Tune's trial id -> its worker."""
        self._whereabouts: dict[str, Any] = {}
        """Actor id -> reference to its node and process. Asked for once: a stopped actor no longer answers."""
        self._steps: dict[str, Any] = {}
        """Actor id -> its method that takes a step, before the method was given a name."""
        self._fatal: RunError | None = None
        self._beat_at = -math.inf
        self._idle = Idle(psutil.Process()) if head_processes else None

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
        heard: set[str] = set()
        events = result.get("events", [])
        for told in events:
            one = trials_by_id[told["trial"]]
            if one.id in self._queue.outcomes:
                continue  # reported before by a worker that died
            if "record" in told:
                self._end(one, Record.model_validate(told["record"]))
            else:
                row = EpochRow(**told["row"])
                self._queue.hear(one, row)
                heard.add(one.id)
                self._metrics.hear(EpochDone(one, row))
                self._listen(EpochDone(one, row))
        try:
            self._queue.commit()
        except DiskError as error:
            self.give_up(error)
        # Tune keeps the last report of every trial, and writes all of them at the end.
        events.clear()
        # What one trial showed may have decided about others that were heard of at the same time.
        if stops := {trial_id: self._queue.stops[trial_id] for trial_id in heard if trial_id in self._queue.stops}:
            self._workers[trial.trial_id].actor.end_early.remote(plain(stops))
        if waits := {trial_id: self._queue.waits[trial_id] for trial_id in heard if trial_id in self._queue.waits}:
            self._workers[trial.trial_id].actor.let_wait.remote(waits)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._forget(trial)
        job = from_config(trial.config)
        self._queue.leave(one for one in job.trials if one.id not in self._queue.outcomes)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Handle the loss of a worker: run its unfinished trials again, or give them up."""
        running = self._forget(trial)
        job = from_config(trial.config)
        self._queue.leave(one for one in job.trials if one.id in self._queue.waits)
        left = [one for one in job.trials if one.id not in self._queue.outcomes and one.id not in self._queue.waits]
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
        """Check, several times per second, what no worker reports: Ray's health, machines, time, silent workers."""
        for name, process in self._head_processes.items():
            if not is_alive(process):
                self._fatal = RunError(f"Ray's process {name} has died; what is finished is kept")
                if self._warden:  # Ray may end this process before the process itself can report this
                    self._warden.last_words(f"error: {self._fatal}. The same command goes on.")
        self._beat()
        try:
            self._capacity.look()
        except RunError as error:
            self._fatal = error
        self._queue.slots = self._capacity.slots
        self._retries.max_slots = self._capacity.max_slots
        if self._fatal:
            raise self._fatal
        if self._queue.is_time_up:
            self.save()
            raise EndTuneError
        if len(trials) > KEPT_BY_TUNE + 2 * self._queue.slots:
            drop_ended(trials)
        for trial in trials:
            # A worker with an earlier job is being given this one, which Tune does not announce.
            if trial.status == "PENDING" and trial.temporary_state.ray_actor and trial.trial_id not in self._workers:
                self._watch(trial, from_config(trial.config))
        for tune_id, seconds in self._watchdog.look():
            self._troubles[tune_id] = (Trouble.SILENT, f"nothing was heard of it for {seconds:.0f} s")
            self._workers[tune_id].kill()
        self._metrics.publish()

    def _beat(self) -> None:
        """Tell the warden that the run goes on, and end it where it does not though nothing is stuck."""
        if time.monotonic() - self._beat_at < BEAT_SECONDS or self._idle is None:
            return
        self._beat_at = time.monotonic()
        if self._warden:
            self._warden.expect(*patience())
        seconds = self._idle.look(is_waiting=not self._workers and not self._queue.is_exhausted)
        if seconds > IDLE_SECONDS:
            what = f"for {seconds:.0f} s trials have waited, and Ray has started no worker for them"
            self._fatal = RunError(f"{what}; what is finished is kept")

    def give_up(self, error: RunError) -> None:
        """End the run with this error at the next step: raised here, Tune would blame a trial."""
        self._fatal = error

    def _watch(self, trial: Any, job: Job) -> None:
        """Start watching this trial's worker for signs of life."""
        actor = trial.temporary_state.ray_actor
        if (actor_id := actor._actor_id.hex()) not in self._whereabouts:
            self._whereabouts[actor_id] = actor.whereabouts.remote()
        self._workers[trial.trial_id] = Running(actor, self._whereabouts[actor_id], actor.oom_kills.remote())
        self._watchdog.started(trial.trial_id, self._queue.silence(job))

    def _name_steps(self, trial: Any, job: Job) -> None:
        """Make Ray's dashboard name the tasks of this job after its trials, since a worker runs many jobs.

        A task is a call of the actor's `train`, which Tune makes for each step without a way to name it.
        """
        actor = trial.temporary_state.ray_actor
        step = self._steps.setdefault(actor._actor_id.hex(), actor.train)
        is_named = self._named < MOST_NAMED
        actor.train = step.options(name=job_label(job.trials, self._axes)) if is_named else step
        self._named += is_named

    def save(self, seconds: float = SAVING_SECONDS) -> None:
        """Have running trials saved at the end of their epoch, and wait at most this long for it."""
        unsaved = [running.actor.pause.remote() for running in self._workers.values()]
        deadline = time.monotonic() + seconds
        while unsaved and (left := deadline - time.monotonic()) > 0:
            # While it waits, Ray looks for signals only once a second: too long for a second Ctrl-C.
            _, unsaved = ray.wait(unsaved, num_returns=len(unsaved), timeout=min(left, SIGNAL_SECONDS))

    def _end(self, trial: Trial, record: Record) -> None:
        try:
            self._queue.finish(trial, record.outcome)
        except DiskError as error:  # of the next suggestion's record, or of what a rule decided
            self.give_up(error)
        self._listen(Ended(trial, record))

    def _forget(self, trial: Any) -> Running | None:
        self._watchdog.ended(trial.trial_id)
        return self._workers.pop(trial.trial_id, None)


def drop_ended(trials: list[Any]) -> None:
    """Keep Tune's memory, and the time of its steps, from growing with the number of ended trials.

    Args:
        trials: Tune's own list, which it looks through at every step; changed in place. Tune holds every trial in
            other collections too, so their reports are emptied. The latest trial stays in the list: if that were
            empty, Tune would read its files again.
    """
    for trial in trials[:-1]:
        if trial.is_finished():
            trial.run_metadata = type(trial.run_metadata)()
            trial.config.clear()
            trial.evaluated_params.clear()
    trials[:-1] = [trial for trial in trials[:-1] if not trial.is_finished()]


class QueueSearcher(Searcher):  # type: ignore[misc]
    """Gives Tune the jobs of the queue as configurations of its trials."""

    def __init__(self, queue: Queue, give_up: Callable[[RunError], None]) -> None:
        super().__init__(metric="training_iteration", mode="max")
        self._queue = queue
        self._give_up = give_up

    def suggest(self, trial_id: str) -> Any:
        if self._queue.is_exhausted:
            return Searcher.FINISHED
        try:
            job = self._queue.take()
        except DiskError as error:
            self._give_up(error)
            return None
        return None if job is None else to_config(job, self._queue.stops)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        pass

    def __getstate__(self) -> dict[str, Any]:
        return {}  # see Dispatcher.__getstate__

    def save(self, checkpoint_path: str) -> None:
        pass

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("the queue is rebuilt from records, never restored")


class SilentReporter(tune.ProgressReporter):  # type: ignore[misc]
    """Shows nothing. In a notebook, Tune's own reporter clears what the cell has printed."""

    def should_report(self, trials: list[Any], done: bool = False) -> bool:
        return False

    def report(self, trials: list[Any], done: bool, *system: Any) -> None:
        pass


class SilentTrials(TrialProgressCallback):  # type: ignore[misc]
    """Shows no trial. In a notebook, Tune's own callback of this kind displays the results of each."""

    def log_result(self, trial: Any, result: dict[str, Any], error: bool = False) -> None:
        pass

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        pass


def make_tuner(queue: Queue, dispatcher: Dispatcher, layout: Layout, folder: str, **shared: Any) -> tune.Tuner:
    """A Tuner that runs the jobs of a queue.

    Args:
        queue: hands out jobs.
        dispatcher: is told what happens.
        layout: resources of a trial.
        folder: for what Tune writes.
        shared: arguments of `Worker.setup`, the same for all workers.
    """
    # By default Tune starts one worker at a time for a searcher that is not its own, and drops that worker for a freed
    # one. Here the queue limits the number, which changes as machines come and go.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(MOST_PENDING)

    def wanted(config: dict[str, Any]) -> tune.PlacementGroupFactory:
        return tune.PlacementGroupFactory([resources(layout, config["slots"])])

    worker = tune.with_resources(tune.with_parameters(Worker, sweep=queue.sweep, **shared), wanted)
    worker.__name__ = worker.__qualname__ = "Worker"  # what Ray's dashboard shows
    return tune.Tuner(
        worker,
        tune_config=tune.TuneConfig(
            search_alg=QueueSearcher(queue, dispatcher.give_up),
            scheduler=InOrderScheduler(),
            num_samples=-1,
            reuse_actors=True,
            trial_name_creator=_name,
            trial_dirname_creator=_name,
        ),
        run_config=tune.RunConfig(
            name="trials",
            storage_path=folder,
            callbacks=[dispatcher, SilentTrials()],
            progress_reporter=SilentReporter(),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=0),
            verbose=0,
        ),
    )


def _name(trial: Any) -> str:
    return f"{from_config(trial.config).id}-{trial.trial_id}"  # the second part tells attempts apart
