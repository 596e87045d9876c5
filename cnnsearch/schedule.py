"""Run trials with Ray Tune, on this machine or a cluster. The only module that imports Ray.

Tune places trials, keeps workers alive between them and restarts those that die. It is never the record: what counts
is what `records` wrote, and every run starts a fresh Tuner, in a temporary folder, on the trials that remain.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# Read when Ray is imported: no output of its own, no handlers of its own, nothing sent anywhere.
os.environ.update(
    {
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
        "TUNE_GLOBAL_CHECKPOINT_S": "100000",
        "TUNE_WARN_THRESHOLD_S": "100000",
    }
)

import psutil
import ray
from ray import tune
from ray.tune.search import Searcher
from ray.util.metrics import Gauge
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cnnsearch import allocator, authentication, hardware
from cnnsearch.epoch import EpochRow
from cnnsearch.errors import DiskError, OutOfMemoryError, RequestError, RunError
from cnnsearch.events import Ended, EpochDone, Event, Ready, Started
from cnnsearch.hardware import Layout
from cnnsearch.job_queue import Job, Queue
from cnnsearch.metrics import Metrics
from cnnsearch.plan import Status, Trial
from cnnsearch.records import Record, Results
from cnnsearch.retries import Retries, Trouble
from cnnsearch.spec import RunSpec, Settings, Sweep
from cnnsearch.stopping import Orders, Stop
from cnnsearch.warden import Warden
from cnnsearch.watchdog import Watchdog
from cnnsearch.words import job_label, told_axes
from cnnsearch.worker_log import WorkerLog
from cnnsearch.workplace import Workplace

_TOKEN = secrets.token_hex(32)
"""Who knows it may run code on the Ray this process starts; one a process, since Ray remembers the first it saw."""
RECONNECT_SECONDS = 10
"""Ray ends this process when its control process on this machine has not answered for so long; by default after 60."""
DISK_FULL = "disk full"
"""What a worker says that cannot write: the end of the run, not of a trial."""
STEP_SECONDS = 1.0
"""Epochs are reported together for this long: Tune takes some hundredths of a second for a report."""
SAVING_SECONDS = 30.0
"""When the time is up, running trials may take so long to come to the end of an epoch and be saved."""
INTERRUPTED_SECONDS = 1.5
"""The same for whoever interrupts, and expects an end in a few seconds."""
MOST_NAMED = 500
"""Jobs whose steps are named in Ray's dashboard: its metrics count tasks by name, and never forget one."""
OBJECT_STORE_BYTES = 128 * 1024**2
"""Images reach workers through a mapped file, so Ray's own store stays small."""


def execute(
    queue: Queue,
    place: Workplace,
    layout: Layout,
    run: RunSpec,
    listen: Callable[[Event], None],
    address: str | None = None,
    warden: Warden | None = None,
) -> None:
    """Run everything in the queue.

    Args:
        queue: hands out trials and learns how they ended.
        place: what all trials share.
        layout: resources of a trial, and how many run at once on this machine.
        run: retries and the dashboard.
        listen: called with every event, from this thread.
        address: of a running Ray cluster; None starts Ray on this machine for the time of the run.
        warden: is told of temporary folders.

    When the queue's time is up, or on Ctrl-C, what runs is saved after its epoch, as far as that comes soon.

    Raises:
        RunError: Ray stopped before the work was done, or the disk is full.
    """
    with _ray(layout, run, address, warden) as ready, _scratch(warden) as scratch:
        listen(ready)
        queue.slots = _slots(layout) if address else layout.trials_at_once
        # By default Tune starts one worker at a time for a searcher of one's own, and drops it for a freed one.
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(queue.slots)
        most_room = _most_room(layout, queue.slots)
        heart = {} if address else _head_processes()
        metrics = Metrics(queue, place, _gpu_share(layout), Gauge, _report_seconds() / 3)
        dispatcher = _Dispatcher(queue, listen, place, run, most_room, heart, warden, metrics)

        def resources(config: dict[str, Any]) -> tune.PlacementGroupFactory:
            return tune.PlacementGroupFactory([_resources(layout, config["room"])])

        tuner = tune.Tuner(
            _named(tune.with_resources(tune.with_parameters(_Worker, place=place, sweep=queue.sweep), resources)),
            tune_config=tune.TuneConfig(
                search_alg=_QueueSearcher(queue),
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


class _TimeIsUpError(Exception):
    """Raised where Tune calls us, to end it when all is saved."""


class _UsedUpError(Exception):
    """Raised in a worker that is not to run anything else: Tune throws such a worker away and starts another."""


class _Worker(tune.Trainable):  # type: ignore[misc]
    """A process that runs jobs one after another; a step is an epoch of a job's trials, or several quick ones."""

    def setup(self, config: dict[str, Any], place: Workplace, sweep: Sweep) -> None:
        self._place = place
        self._sweep = sweep
        self._log = WorkerLog(told_axes(sweep), lambda line: print(line, file=sys.stderr, flush=True))
        self._events = self._begin(config)

    def __repr__(self) -> str:
        # Read once, when the worker is made: it has to be true of all trials to come.
        return f"worker of {self._sweep.name}"

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._events.close()
        self._events = self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> Any:
        job = _from_config(config)
        self._log.begins(job.trials)
        self._left = {trial.id for trial in job.trials}
        self._used_up = False
        self._orders = Orders({trial_id: Stop(**stop) for trial_id, stop in config["stops"].items()})
        from cnnsearch.jobs import run_job  # imports torch, which only workers need

        return run_job(job, self._place, self._orders)

    def end_early(self, stops: dict[str, dict[str, Any]]) -> None:
        """Trials are to end. Ray calls an actor's methods in order: this one comes before the next step."""
        self._orders.stops.update({trial_id: Stop(**stop) for trial_id, stop in stops.items()})

    def pause(self) -> None:
        """Save what runs; after the step that is being taken, at the end of an epoch."""
        self._orders.pause = True
        next(self._events, None)

    def whereabouts(self) -> tuple[str, int]:
        """Node and process, for whoever has to kill it."""
        return ray.get_runtime_context().get_node_id(), os.getpid()

    def step(self) -> dict[str, Any]:
        if self._used_up:
            raise _UsedUpError
        told: list[dict[str, Any]] = []
        failed, asks, began = False, False, time.monotonic()
        try:
            while self._left and not (failed or asks) and (not told or time.monotonic() - began < STEP_SECONDS):
                for trial, event in next(self._events):
                    told.append(_told(trial, event))
                    self._log.hears(trial, event)
                    if isinstance(event, Record):
                        self._left.discard(trial.id)
                        failed |= event.status is Status.FAILED
                    else:
                        asks |= self._place.awaits_word(trial, event.epoch)
        except (OutOfMemoryError, DiskError) as error:
            self._used_up = True
            self._log.breaks(str(error))
            trouble = DISK_FULL if isinstance(error, DiskError) else Trouble.MEMORY.value
            return {"events": told, "trouble": trouble, "reason": str(error), "done": False}
        # An exception may have left anything behind in this process.
        self._used_up = failed
        spoiled = {"trouble": Trouble.SPOILED.value, "reason": "another trial broke"} if failed and self._left else {}
        return {"events": told, "done": not self._left and not failed, **spoiled}

    def cleanup(self) -> None:
        self._events.close()


def _told(trial: Trial, event: EpochRow | Record) -> dict[str, Any]:
    """An event as it travels: plain values."""
    if isinstance(event, Record):
        return {"trial": trial.id, "record": event.model_dump(mode="json")}
    return {"trial": trial.id, "row": asdict(event)}


class _Dispatcher(tune.Callback):  # type: ignore[misc]
    """Stands between the queue and Tune: takes results out, and decides what becomes of jobs that go wrong."""

    def __init__(
        self,
        queue: Queue,
        listen: Callable[[Event], None],
        place: Workplace,
        run: RunSpec,
        most_room: int,
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
        self._results = Results(place.results)
        self._retries = Retries(run.max_retries, most_room)
        self._watchdog = Watchdog(run.patience_seconds)
        self._heart = heart
        self._warden = warden
        self._troubles: dict[str, tuple[Trouble, str]] = {}
        """Tune's trial id -> what is known of why it is about to fail."""
        self._workers: dict[str, _Running] = {}
        """Tune's trial id -> who runs it."""
        self._whereabouts: dict[str, Any] = {}
        """Actor id -> reference to where it is, asked for once: later it may be stopped, and not answer."""
        self._steps: dict[str, Any] = {}
        """Actor id -> its method that takes a step, without a name of ours."""
        self._fatal: RunError | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks in order to restore them, which never happens here

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._watch(trial)
        job = _from_config(trial.config)
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
        trials_by_id = {one.id: one for one in _from_config(trial.config).trials}
        stops: dict[str, Stop] = {}
        for told in result.get("events", ()):
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
        if stops:
            self._workers[trial.trial_id].actor.end_early.remote(_plain(stops))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._forget(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The worker is gone: what it had not ended runs again, or is given up."""
        running = self._forget(trial)
        job = _from_config(trial.config)
        left = [one for one in job.trials if one.id not in self._queue.outcomes]
        if not left or self._fatal:
            return
        known = self._troubles.pop(trial.trial_id) if trial.trial_id in self._troubles else None
        trouble, reason = _diagnosis(trial, running) if known is None else known
        again, given_up = self._retries.after(job, left, trouble, reason)
        for one, cause in given_up:
            self._end(one, self._results.trial(one.id).commit_failure(one, cause))
        for retried in again:
            self._queue.retry(retried)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Called several times a second: the place for what nobody reports."""
        for name, process in self._heart.items():
            if not _is_alive(process):
                self._fatal = RunError(f"Ray's process {name} has died; what is finished is kept")
                if self._warden:  # Ray may end this process before it comes to say so
                    self._warden.last_words(f"error: {self._fatal}. The same command goes on.")
        if self._fatal:
            raise self._fatal
        if self._queue.is_time_up:
            self.save()
            raise _TimeIsUpError
        for trial in trials[-2 * self._queue.slots :]:  # the latest: no more than these can be waiting
            # Its worker has had a job before and is being given this one, of which Tune tells nobody.
            if trial.status == "PENDING" and trial.temporary_state.ray_actor and trial.trial_id not in self._workers:
                self._watch(trial)
        for tune_id, seconds in self._watchdog.look():
            self._troubles[tune_id] = (Trouble.SILENT, f"nothing was heard of it for {seconds:.0f} s")
            self._workers[tune_id].kill()
        self._metrics.publish()

    def _watch(self, trial: Any) -> None:
        """From now on the worker of this trial is expected to be heard of."""
        actor = trial.temporary_state.ray_actor
        if (actor_id := actor._actor_id.hex()) not in self._whereabouts:
            self._whereabouts[actor_id] = actor.whereabouts.remote()
        self._workers[trial.trial_id] = _Running(actor, self._whereabouts[actor_id], hardware.oom_kills())
        self._watchdog.started(trial.trial_id, self._queue.silence(_from_config(trial.config)))

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
        saved = [running.actor.pause.remote() for running in self._workers.values()]
        if saved:
            ray.wait(saved, num_returns=len(saved), timeout=seconds)

    def _end(self, trial: Trial, record: Record) -> None:
        try:
            self._queue.finish(trial, record.outcome)
        except DiskError as error:  # the next suggestion cannot be recorded; here Tune would take it for the trial's
            self._fatal = error
        self._listen(Ended(trial, record))

    def _forget(self, trial: Any) -> _Running | None:
        self._watchdog.ended(trial.trial_id)
        return self._workers.pop(trial.trial_id, None)


@dataclass
class _Running:
    """The worker of a running job."""

    actor: Any
    whereabouts: Any
    """Reference to (node, process)."""
    oom_kills: int
    """Processes that the kernel had killed for want of memory when the job began."""

    def kill(self) -> None:
        """End the worker, even where it is stopped and obeys nobody."""
        ray.kill(self.actor)
        ready, _ = ray.wait([self.whereabouts], timeout=0)
        if not ready:
            return
        node, process = ray.get(ready[0])
        if node == ray.get_runtime_context().get_node_id():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        else:
            there = NodeAffinitySchedulingStrategy(node, soft=False)
            ray.remote(os.kill).options(num_cpus=0, scheduling_strategy=there).remote(process, signal.SIGKILL)


def _diagnosis(trial: Any, running: _Running | None) -> tuple[Trouble, str]:
    """Why a worker is gone, as far as Ray and the kernel tell."""
    error = trial.get_pickled_error() if trial.pickled_error_file else None
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return Trouble.MEMORY, "Ray killed the worker because the host's memory was nearly full"
    if running is not None and hardware.oom_kills() > running.oom_kills:
        return Trouble.MEMORY, "the kernel killed processes because the host's memory was full"
    lines = str(error).strip().splitlines() if error else []
    return Trouble.DIED, " ".join(lines[-1].split())[:300] if lines else "cause unknown"


class _QueueSearcher(Searcher):  # type: ignore[misc]
    """Tune asks it for configurations; it takes them from the queue."""

    def __init__(self, queue: Queue) -> None:
        super().__init__(metric="training_iteration", mode="max")
        self._queue = queue

    def suggest(self, trial_id: str) -> Any:
        if self._queue.is_exhausted:
            return Searcher.FINISHED
        job = self._queue.take()
        return None if job is None else _to_config(job, self._queue.stops)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        pass

    def __getstate__(self) -> dict[str, Any]:
        return {}  # see _Dispatcher

    def save(self, checkpoint_path: str) -> None:
        pass

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("the queue is rebuilt from records, never restored")


def _to_config(job: Job, stops: Mapping[str, Stop]) -> dict[str, Any]:
    trials = [{**vars(trial), "settings": trial.settings.model_dump()} for trial in job.trials]
    stopped = _plain({trial.id: stops[trial.id] for trial in job.trials if trial.id in stops})
    return {"trials": trials, "room": job.room, "attempt": job.attempt, "stops": stopped}


def _plain(stops: Mapping[str, Stop]) -> dict[str, dict[str, Any]]:
    """Orders as they travel."""
    return {trial_id: asdict(stop) for trial_id, stop in stops.items()}


def _from_config(config: dict[str, Any]) -> Job:
    fields = ("stage", "data", "parent_id", "weights")
    return Job(
        tuple(
            Trial(settings=Settings.model_validate(one["settings"]), **{name: one[name] for name in fields})
            for one in config["trials"]
        ),
        room=config["room"],
        attempt=config["attempt"],
    )


def _named(worker: Any) -> Any:
    """The class by the name that Ray's dashboard shows."""
    worker.__name__ = worker.__qualname__ = "Worker"
    return worker


def _name(trial: Any) -> str:
    return f"{_from_config(trial.config).id}-{trial.trial_id}"  # the second part tells attempts apart


def _slots(layout: Layout) -> int:
    """Trials that fit the cluster at once. Raises RequestError where not even one does: Ray would wait for ever."""
    there = ray.cluster_resources()
    slots = int(there.get("CPU", 0) / layout.threads)
    if layout.gpus:
        slots = min(slots, hardware.places(there.get("GPU", 0), layout.gpus))
    if slots < 1:
        raise RequestError(
            f"a trial needs {layout.threads} CPUs and {layout.gpus:g} GPUs, and the cluster has "
            f"{there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} GPUs"
        )
    return slots


def _most_room(layout: Layout, slots: int) -> int:
    """Places a single trial can have on one machine; never more than there are, for which the queue would wait."""
    if layout.gpus:
        return max(1, min(hardware.places(1, layout.gpus), slots))
    most = max((node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]), default=1)
    return max(1, int(most / layout.threads))


def _resources(layout: Layout, room: int) -> dict[str, float]:
    """What Ray sets aside for a job that takes so many places."""
    if not layout.gpus:
        return {"CPU": layout.threads * room}
    # Above one, Ray gives out whole GPUs only: seven times a seventh must not come to a little more.
    share = layout.gpus * room
    return {"CPU": layout.threads, "GPU": share if layout.gpus >= 1 else min(1.0, share)}


def _gpu_share(layout: Layout) -> Callable[[Job], float]:
    """What share of the cluster's GPUs a job has."""
    gpus: float = ray.cluster_resources().get("GPU", 0.0)
    return lambda job: _resources(layout, job.room).get("GPU", 0.0) / gpus if gpus else 0.0


def _report_seconds() -> float:
    """How often Ray sends gauges on."""
    return max(1.0, float(ray._config.metrics_report_interval_ms()) / 1000)


def _head_processes() -> dict[str, psutil.Process]:
    """The processes of a Ray started here without which nothing goes on, by name."""
    children = {child.name(): child for child in psutil.Process().children()}
    return {name: children[name] for name in ("gcs_server", "raylet") if name in children}


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@contextlib.contextmanager
def _scratch(warden: Warden | None) -> Iterator[str]:
    """A temporary folder for what Tune writes."""
    with tempfile.TemporaryDirectory(prefix="cnnsearch-tune-", ignore_cleanup_errors=True) as folder:
        if warden:
            warden.remove(Path(folder))
        yield folder


@contextlib.contextmanager
def _ray(layout: Layout, run: RunSpec, address: str | None, warden: Warden | None) -> Iterator[Ready]:
    """Ray, quiet, for the time of the block; yields where its dashboard is. Never stops a cluster it did not start."""
    for name in ("ray", "ray.tune", "ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    ray._private.worker._worker_logs_enabled = False  # else it prints the raylet's log when that dies
    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    scratch: Path | None = None
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        if address:
            try:
                context = ray.init(address=check_address(address), **quiet)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise RequestError(f"no Ray cluster answers at --address {address}: {error}") from None
        else:
            authentication.check_start()
            os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", str(RECONNECT_SECONDS))
            os.environ.update(allocator.environment())
            # Ray would keep a token in the home folder, where others may read it, or where it cannot be written.
            if "RAY_AUTH_TOKEN_PATH" not in os.environ:
                os.environ.setdefault("RAY_AUTH_TOKEN", _TOKEN)
            # Sockets live under it, and a socket's path has at most 107 bytes.
            scratch = Path(tempfile.mkdtemp(prefix="cnns-", dir="/tmp" if os.path.isdir("/tmp") else None))
            if warden:
                warden.remove(scratch)
            with _on_loopback():
                context = ray.init(
                    address="local",
                    num_cpus=layout.trials_at_once * layout.threads,
                    include_dashboard=run.dashboard,
                    object_store_memory=OBJECT_STORE_BYTES,
                    _temp_dir=str(scratch / "ray"),  # Ray opens it to everybody, but not the folder it is in
                    **quiet,
                )
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray puts a handler of its own there
        url = context.dashboard_url
        yield Ready(f"http://{url}", _token_place(scratch)) if url else Ready()
    finally:
        if scratch is not None and not all(map(_is_alive, _head_processes().values())):
            _end_children()  # what is left of a broken Ray would be waited for
        ray.shutdown()
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def _token_place(scratch: Path | None) -> str | None:
    """Where the dashboard's user finds the token; one made for this run is kept in its folder, for them alone."""
    if os.environ.get("RAY_AUTH_MODE", "token" if scratch else "").lower() != "token":
        return None
    if scratch is None or os.environ.get("RAY_AUTH_TOKEN") != _TOKEN:
        return authentication.source()
    path = scratch / "token"
    path.touch(mode=0o600)
    path.write_text(f"{_TOKEN}\n", encoding="utf-8")
    return str(path)


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """Let a Ray that is started in the block listen on 127.0.0.1 only, as it does where it knows of no other machines.

    Else its processes listen on every address; they want the token, but those that tell metrics do not. Ray takes
    127.0.0.1 for another address when asked for it as the node's.
    """
    constants = ray._private.ray_constants
    before = constants.ENABLE_RAY_CLUSTER
    constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before


def check_address(address: str) -> str:
    """The host and port of a cluster that may be used. Raises RequestError where it may not; attaches to nothing."""
    if address.startswith("ray://"):
        raise RequestError(
            f"--address {address}: Ray Client is not supported. Run the command on a node of the cluster with "
            "--address auto, or with ray job submit (docs/cluster.md)"
        )
    try:
        where = ray._private.services.canonicalize_bootstrap_address(address)
    except (OSError, ValueError, RuntimeError) as error:
        raise RequestError(f"no Ray cluster answers at --address {address}: {error}") from None
    if where is None:
        raise RequestError(f"--address {address} is no cluster: without --address, Ray is started on this machine")
    if authentication.check_cluster(where) and "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        ray._raylet.Config.initialize("")  # Ray has read its settings when it was imported
    return str(where)


def _end_children() -> None:
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
