"""The processes that run trials, one job after another, and the messages between them and the driver."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import ray
from ray import tune

from cnnsearch.errors import DiskError, OutOfMemoryError
from cnnsearch.execution.context import SharedContext
from cnnsearch.execution.events import Progress
from cnnsearch.execution.machine import hardware
from cnnsearch.execution.on_ray.depot import DepotClient
from cnnsearch.execution.retries import Trouble
from cnnsearch.execution.spool import RemoteStore, Spool
from cnnsearch.execution.worker_log import WorkerLog
from cnnsearch.planning.job import Job
from cnnsearch.planning.labels import told_axes
from cnnsearch.planning.stopping import Orders, Stop
from cnnsearch.planning.trial import EpochRow, Status, Trial
from cnnsearch.results.record import Record
from cnnsearch.spec.own_code import trust
from cnnsearch.spec.settings import Settings
from cnnsearch.spec.sweep import Sweep
from cnnsearch.words import say

DISK_FULL = "disk full"
"""What a worker reports as its trouble if it cannot write: this ends the run, not only a trial."""
STEP_SECONDS = 1.0
"""Seconds of epochs that are reported together, since Tune takes some hundredths of a second for a report."""
INTEL_GPUS = "ZE_AFFINITY_MASK"
"""Environment variable that says which GPUs Intel's driver shows to a process, by their numbers."""
JobRunner = Callable[[Job, SharedContext, Orders], Iterator[Progress]]
"""See `jobs.run_job`."""


def show_own_gpus() -> None:
    """Let torch, which is not imported yet, see only those of Intel's GPUs that Ray gave this process.

    Ray does that itself where it can count them, with Intel's dpctl. Elsewhere it is told their number, takes them for
    NVIDIA's, and hides nothing.
    """
    manager = ray._private.accelerators.get_accelerator_manager_for_resource("GPU")
    if manager is None or manager.get_visible_accelerator_ids_env_var() != "CUDA_VISIBLE_DEVICES":
        return
    seen = os.environ.get(INTEL_GPUS, "")
    given = [int(number) for number in ray.get_gpu_ids()]
    os.environ[INTEL_GPUS] = ",".join(seen.split(",")[number] if seen else str(number) for number in given)


class UsedUpError(Exception):
    """Raised in a worker that must not run anything else: Tune then replaces it by a new one."""


class Worker(tune.Trainable):  # type: ignore[misc]
    """A process that runs jobs one after another; a step is an epoch of a job's trials, or several quick ones."""

    def setup(
        self,
        config: dict[str, Any],
        context: SharedContext,
        sweep: Sweep,
        depot: DepotClient | None = None,
        run_job: JobRunner | None = None,
    ) -> None:
        trust(context.code)
        if context.choices.device == "xpu":
            show_own_gpus()
        self._sweep = sweep
        self._run_job = run_job
        self._log = WorkerLog(told_axes(sweep), lambda line: say(line, sys.stderr))
        self._spool: Spool | None
        if context.remote:
            self._spool = Spool.open(context, RemoteStore(context.remote, depot.read if depot else None))
        else:
            self._spool = None if depot is None or depot.is_here() else Spool.open(context, depot)
        self._context = context if self._spool is None else self._spool.context_here()
        self._events = self._begin(config)

    def __repr__(self) -> str:
        # Ray reads it once, when the worker is made: it has to be true of every job.
        return f"worker of {self._sweep.name}"

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._events.close()
        self._events = self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> Any:
        job = from_config(config)
        self._log.begins(job.trials)
        self._left = {trial.id for trial in job.trials}
        self._used_up = False
        self._orders = Orders({trial_id: Stop(**stop) for trial_id, stop in config["stops"].items()})
        if self._run_job is None:
            from cnnsearch.execution.jobs import (
                run_job,
            )  # imports torch: here, so that the first step does not take longer

            self._run_job = run_job
        return self._running(job, self._run_job)

    def _running(self, job: Job, run_job: JobRunner) -> Iterator[Progress]:
        if self._spool:
            self._spool.begin(job.trials)
        yield from run_job(job, self._context, self._orders)

    def end_early(self, stops: dict[str, dict[str, Any]]) -> None:
        """Order trials to end. Ray calls an actor's methods in order, so this takes effect before the next step."""
        self._orders.stops.update({trial_id: Stop(**stop) for trial_id, stop in stops.items()})

    def let_wait(self, waits: dict[str, int]) -> None:
        """Order trials to be saved and left after an epoch; see `Orders.waits`. Takes effect like `end_early`."""
        self._orders.waits.update(waits)

    def pause(self) -> None:
        """Save the running trials. Called between steps, so the trials are at the end of an epoch."""
        self._orders.pause = True
        next(self._events, None)
        if self._spool:
            self._spool.send()

    def whereabouts(self) -> tuple[str, int]:
        """Node id and process id, for the driver, which may have to kill this process."""
        return ray.get_runtime_context().get_node_id(), os.getpid()

    def oom_kills(self) -> int:
        """See `hardware.oom_kills`."""
        return hardware.oom_kills()

    def step(self) -> dict[str, Any]:
        if self._used_up:
            raise UsedUpError
        result = self._run()
        if self._spool:
            try:
                self._spool.send()
            except DiskError as error:
                self._used_up = True
                return {"events": [], "trouble": DISK_FULL, "reason": str(error), "done": False}
        return result

    def _run(self) -> dict[str, Any]:
        told: list[dict[str, Any]] = []
        failed, asks, began = False, False, time.monotonic()
        try:
            while self._left and not (failed or asks) and (not told or time.monotonic() - began < STEP_SECONDS):
                events = next(self._events, None)
                if events is None:  # those left are saved, and wait for others
                    self._left.clear()
                    break
                for trial, event in events:
                    told.append(_told(trial, event))
                    self._log.hears(trial, event)
                    if isinstance(event, Record):
                        self._left.discard(trial.id)
                        failed |= event.status is Status.FAILED
                    else:
                        asks |= self._context.awaits_decision(trial, event.epoch)
        except (OutOfMemoryError, DiskError) as error:
            self._used_up = True
            self._log.breaks(str(error))
            trouble = DISK_FULL if isinstance(error, DiskError) else Trouble.MEMORY.value
            return {"events": told, "trouble": trouble, "reason": str(error), "done": False}
        # An exception may have left this process in any state.
        self._used_up = failed
        spoiled = {"trouble": Trouble.SPOILED.value, "reason": "another trial broke"} if failed and self._left else {}
        return {"events": told, "done": not self._left and not failed, **spoiled}

    def cleanup(self) -> None:
        self._events.close()
        if self._spool:
            self._spool.close()


def _told(trial: Trial, event: EpochRow | Record) -> dict[str, Any]:
    """Return an event as a message of plain values."""
    if isinstance(event, Record):
        return {"trial": trial.id, "record": event.model_dump(mode="json")}
    return {"trial": trial.id, "row": dict(vars(event))}


def to_config(job: Job, stops: Mapping[str, Stop]) -> dict[str, Any]:
    """Return a job as the configuration of one of Tune's trials, with the stops already ordered for its trials."""
    trials = [{**vars(trial), "settings": trial.settings.model_dump()} for trial in job.trials]
    stopped = plain({trial.id: stops[trial.id] for trial in job.trials if trial.id in stops})
    return {"trials": trials, "slots": job.slots, "attempt": job.attempt, "stops": stopped}


def plain(stops: Mapping[str, Stop]) -> dict[str, dict[str, Any]]:
    """Return stops as a message of plain values."""
    return {trial_id: asdict(stop) for trial_id, stop in stops.items()}


def from_config(config: dict[str, Any]) -> Job:
    """Return the job of a configuration. The inverse of `to_config`."""
    fields = ("stage", "data", "parent_id", "weights")
    return Job(
        tuple(
            Trial(settings=Settings.model_validate(one["settings"]), **{name: one[name] for name in fields})
            for one in config["trials"]
        ),
        slots=config["slots"],
        attempt=config["attempt"],
    )
