"""Run trials with Ray Tune, on this machine or a cluster. The only module that imports Ray.

Tune places trials, keeps workers alive between them and restarts those that die. It is never the record: what counts
is what `records` wrote, and every run starts a fresh Tuner, in a temporary folder, on the trials that remain.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
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

import ray
from ray import tune
from ray.tune.search import Searcher

from cnnsearch.errors import RequestError, RunError
from cnnsearch.events import Ended, EpochDone, Event, Ready, Started
from cnnsearch.hardware import Layout
from cnnsearch.jobs import run_job
from cnnsearch.plan import Job, Queue, Trial
from cnnsearch.records import Record, Results
from cnnsearch.spec import RunSpec, Settings
from cnnsearch.train import EpochRow
from cnnsearch.work import Workplace

OBJECT_STORE_BYTES = 128 * 1024**2
"""Images reach workers through a mapped file, so Ray's own store stays small."""


def execute(
    queue: Queue,
    place: Workplace,
    layout: Layout,
    run: RunSpec,
    listen: Callable[[Event], None],
    address: str | None = None,
) -> None:
    """Run everything in the queue.

    Args:
        queue: hands out trials and learns how they ended.
        place: what all trials share.
        layout: resources of a trial, and how many run at once on this machine.
        run: retries and the dashboard.
        listen: called with every event, from this thread.
        address: of a running Ray cluster; None starts Ray on this machine for the time of the run.

    Raises:
        RunError: Ray stopped before the work was done.
    """
    with _ray(layout, run, address) as dashboard, tempfile.TemporaryDirectory(prefix="cnnsearch-tune-") as scratch:
        listen(Ready(dashboard))
        slots = _slots(layout) if address else layout.trials_at_once
        # By default Tune starts one worker at a time for a searcher of one's own, and drops it for a freed one.
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(slots)
        dispatcher = _Dispatcher(queue, slots, listen, place, run)
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(_Worker, place=place), {"cpu": layout.threads, "gpu": layout.gpus}
            ),
            tune_config=tune.TuneConfig(
                search_alg=dispatcher.searcher,
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
                failure_config=tune.FailureConfig(max_failures=run.max_retries),
                verbose=0,
            ),
        )
        tuner.fit()
    if not queue.is_exhausted:
        raise RunError("Ray stopped before every trial had ended; the same command goes on")


class _Worker(tune.Trainable):  # type: ignore[misc]
    """A process that runs jobs one after another; a step is an epoch of each trial of the job."""

    def setup(self, config: dict[str, Any], place: Workplace) -> None:
        self._place = place
        self._events = self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._events.close()
        self._events = self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> Any:
        job = _from_config(config)
        self._left = {trial.id for trial in job.trials}
        return run_job(job, self._place)

    def step(self) -> dict[str, Any]:
        told = []
        for trial, event in next(self._events):
            if isinstance(event, Record):
                self._left.discard(trial.id)
                told.append({"trial": trial.id, "record": event.model_dump(mode="json")})
            else:
                told.append({"trial": trial.id, "row": asdict(event)})
        return {"events": told, "done": not self._left}

    def cleanup(self) -> None:
        self._events.close()


class _Dispatcher(tune.Callback):  # type: ignore[misc]
    """Stands between the queue and Tune: hands trials in, takes results out."""

    def __init__(
        self, queue: Queue, slots: int, listen: Callable[[Event], None], place: Workplace, run: RunSpec
    ) -> None:
        self.searcher = _QueueSearcher(queue, slots)
        self._queue = queue
        self._listen = listen
        self._results = Results(place.results)
        self._attempts = run.max_retries + 1

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks in order to restore them, which never happens here

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        for one in _from_config(trial.config).trials:
            if one.id not in self._queue.outcomes:
                self._listen(Started(one))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        trials_by_id = {one.id: one for one in _from_config(trial.config).trials}
        for told in result.get("events", ()):
            one = trials_by_id[told["trial"]]
            if one.id in self._queue.outcomes:
                continue  # a worker that died had told of it before
            if "record" in told:
                record = Record.model_validate(told["record"])
                self._queue.finish(one, record.outcome)
                self._listen(Ended(one, record))
            else:
                self._listen(EpochDone(one, EpochRow(**told["row"])))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The worker died more often than the limit allows: nobody else is left to write the record."""
        reason = f"the worker process died {self._attempts} times; the last time: {_last_line(trial)}"
        for one in _from_config(trial.config).trials:
            if one.id not in self._queue.outcomes:
                record = self._results.trial(one.id).commit_failure(one, reason)
                self._queue.finish(one, record.outcome)
                self._listen(Ended(one, record))


class _QueueSearcher(Searcher):  # type: ignore[misc]
    """Tune asks it for configurations; it takes them from the queue."""

    def __init__(self, queue: Queue, slots: int) -> None:
        super().__init__(metric="training_iteration", mode="max")
        self._queue = queue
        self._slots = slots

    def suggest(self, trial_id: str) -> Any:
        if self._queue.is_exhausted:
            return Searcher.FINISHED
        if self._queue.jobs_running >= self._slots:
            return None
        job = self._queue.take()
        return None if job is None else _to_config(job)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        pass

    def __getstate__(self) -> dict[str, Any]:
        return {}  # see _Dispatcher

    def save(self, checkpoint_path: str) -> None:
        pass

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("the queue is rebuilt from records, never restored")


def _to_config(job: Job) -> dict[str, Any]:
    return {"id": job.id, "trials": [{**vars(trial), "settings": trial.settings.model_dump()} for trial in job.trials]}


def _from_config(config: dict[str, Any]) -> Job:
    fields = ("stage", "data", "parent_id", "weights")
    return Job(
        tuple(
            Trial(settings=Settings.model_validate(one["settings"]), **{name: one[name] for name in fields})
            for one in config["trials"]
        )
    )


def _name(trial: Any) -> str:
    return str(trial.config["id"])


def _slots(layout: Layout) -> int:
    """Trials that fit the cluster at once. Raises RequestError where not even one does: Ray would wait for ever."""
    there = ray.cluster_resources()
    slots = int(there.get("CPU", 0) / layout.threads)
    if layout.gpus:
        slots = min(slots, int(there.get("GPU", 0) / layout.gpus + 1e-9))
    if slots < 1:
        raise RequestError(
            f"a trial needs {layout.threads} CPUs and {layout.gpus:g} GPUs, and the cluster has "
            f"{there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} GPUs"
        )
    return slots


def _last_line(trial: Any) -> str:
    error = trial.get_pickled_error() if trial.pickled_error_file else None
    lines = str(error).strip().splitlines() if error else []
    return " ".join(lines[-1].split())[:300] if lines else "cause unknown"


@contextlib.contextmanager
def _ray(layout: Layout, run: RunSpec, address: str | None) -> Iterator[str | None]:
    """Ray, quiet, for the time of the block; yields the dashboard's URL. Never stops a cluster it did not start."""
    for name in ("ray", "ray.tune", "ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    scratch: Path | None = None
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        if address:
            try:
                context = ray.init(address=address, **quiet)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise RequestError(f"no Ray cluster answers at --address {address}: {error}") from None
        else:
            # Sockets live under it, and a socket's path has at most 107 bytes.
            scratch = Path(tempfile.mkdtemp(prefix="cnns-", dir="/tmp" if os.path.isdir("/tmp") else None))
            context = ray.init(
                address="local",
                num_cpus=layout.trials_at_once * layout.threads,
                include_dashboard=run.dashboard,
                object_store_memory=OBJECT_STORE_BYTES,
                _temp_dir=str(scratch),
                **quiet,
            )
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray puts a handler of its own there
        url = context.dashboard_url
        yield f"http://{url}" if url else None
    finally:
        ray.shutdown()
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
