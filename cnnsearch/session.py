"""Runs a prepared sweep: schedule, tables, report. Both the commands and notebooks call this."""

from __future__ import annotations

import contextlib
import functools
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cnnsearch import report
from cnnsearch.confirming import Chooser
from cnnsearch.describe import described_run, write_description, write_pictures, write_provenance
from cnnsearch.doubting import write_training
from cnnsearch.errors import CnnsearchError, RequestError
from cnnsearch.execution.context import Choices, SharedContext
from cnnsearch.execution.events import Ended, Event, Planned, Started, Waiting
from cnnsearch.execution.executor import Executor
from cnnsearch.execution.machine.hardware import Layout
from cnnsearch.execution.machine.placement import Cluster
from cnnsearch.inputs import digests
from cnnsearch.planning import retention
from cnnsearch.planning.job import Job
from cnnsearch.planning.plan import Plan
from cnnsearch.planning.queue import Queue
from cnnsearch.planning.suggest import Suggester
from cnnsearch.planning.trial import Outcome, Status, Trial
from cnnsearch.prepare import KEPT_AT_MOST, Prepared, expected_seconds
from cnnsearch.report.beside import Beside
from cnnsearch.results.place import ResultsPlace
from cnnsearch.results.tables import Tables, load
from cnnsearch.spec.confirm import CONFIRM
from cnnsearch.spec.sweep import RunSpec
from cnnsearch.systems import processes

if TYPE_CHECKING:  # it imports scipy, which takes seconds
    from cnnsearch.evidence.evidence import Evidence

OVERDUE_SECONDS = 60.0
"""Seconds after `max_seconds` in which a run may end by itself before it is forced to."""


@dataclass(frozen=True)
class Finished:
    """How a run of a sweep ended."""

    tables: Tables
    counts: dict[str, int]
    """Status -> number of trials."""
    seconds: float
    report: Path | None
    time_is_up: bool = False
    """Whether the time limit ended the run before its last trial."""
    trials_are_up: bool = False
    """Whether the limit on the number of trials ended the run before its last trial."""
    uri: str | None = None
    """URI of the results, if the folder is only a copy of them."""
    answer: list[tuple[str, str]] = field(default_factory=list)
    """The report's answer, in a few labelled lines."""
    evidence: Evidence | None = None
    """What the report was made from; None where no trial has ended, and where it was up to date."""
    plan: Plan = field(default_factory=lambda: Plan(()))
    """All trials, as they were planned in the end."""

    @property
    def report_place(self) -> str | None:
        """URI or path of the report, to print."""
        return f"{self.place}/{self.report.relative_to(self.results)}" if self.report else None

    @property
    def place(self) -> str:
        """URI or folder of the results, to print."""
        return self.uri or str(self.results)

    @property
    def left_for_later(self) -> int:
        """Number of trials that the run's limits on time or trials left for another run."""
        missing = self.planned - sum(self.counts.values())
        return missing if self.time_is_up or self.trials_are_up else 0

    @property
    def results(self) -> Path:
        """The sweep's folder."""
        return self.tables.folder

    @property
    def planned(self) -> int:
        """Number of trials in the sweep."""
        return self.tables.planned

    @property
    def exit_code(self) -> int:
        """0 where every planned trial is done, was pruned, or was left for later on purpose; else 1."""
        missing = self.planned - sum(self.counts.values()) - self.left_for_later
        bad = self.counts.get(Status.FAILED, 0) + self.counts.get(Status.DIVERGED, 0)
        return 1 if bad or missing else 0


@contextlib.contextmanager
def attached(address: str | None) -> Iterator[Cluster | None]:
    """Attach to the Ray cluster at an address, for the time of the block; None where none is named.

    See `execution.on_ray.cluster.attached`.
    """
    if address is None:
        yield None
        return
    with _importing_ray():
        from cnnsearch.execution.on_ray.cluster import attached as attach

    with attach(address) as cluster:
        yield cluster


def execute(
    ready: Prepared,
    *,
    serial: bool = False,
    listen: Callable[[Event], None] = lambda event: None,
    max_seconds: float | None = None,
    max_trials: int | None = None,
    until_clear: float | None = None,
    command: str = "",
    executor: Executor | None = None,
) -> Finished:
    """Run what remains, then write tables and the report. The folder must be held (see `prepared`).

    After `max_seconds`, running trials are saved at the end of their epoch, if it comes soon, and left. Once
    `max_trials` have begun, no more are started. The same call continues with the rest.
    Once the contenders are confirmed, seeds are added to them for `until_clear` more seconds, or until that is settled.
    `command` is the command line this run came from, for its history; empty where there is none.
    `executor` runs the queue; None: Ray, here or on the cluster it was prepared for, or this process with `serial`.
    """
    _refuse_untested(ready)
    began, started_at = time.monotonic(), datetime.now(UTC)
    results, plan, time_is_up, trials_are_up = ready.results, ready.plan, False, False
    chooser = Chooser(ready, until_clear)
    is_needed = bool(ready.remaining) or chooser.may_add
    chosen = (executor or _executor(serial, ready)) if is_needed else None
    is_new = write_description(ready) or is_needed or not results.here.read("provenance.json")
    run = described_run(ready, started_at, command) if is_new else None
    if run is not None:
        write_provenance(ready, run)
    with Beside() as beside:
        if chosen is not None:
            keeper: _Keeper | None = None
            queue: Queue | None = None

            def hear(event: Event) -> None:
                nonlocal plan
                if keeper is not None:
                    keeper.hear(event)
                if queue is not None and queue.plan is not plan:
                    plan = queue.plan
                    listen(Planned(plan))
                listen(event)
                if queue is not None and isinstance(event, Started | Ended):
                    _look_ahead(queue, ready, beside)

            queue = Queue(
                ready.sweep,
                ready.dataset.fingerprint,
                dict(ready.outcomes),
                digests(ready.weights),
                ready.dataset.fold_fingerprints,
                cost=functools.partial(expected_seconds, ready),
                silence=functools.partial(_expected_silence, ready),
                slots=ready.layout.trials_at_once,
                history=lambda trial_id: results.here.trial(trial_id).epochs(),
                notes=results.here.decisions.read(),
                record=results.record_decisions,
                max_trials=max_trials,
                deadline=math.inf if max_seconds is None else began + max_seconds,
                suggestions=ready.suggestions,
                suggest=Suggester(results.record_suggestions),
                choose=chooser,
                adopt=functools.partial(_adopt, ready, hear),
            )
            keeper = _Keeper(results, queue)

            try:
                # Executors end by themselves; the alarm is for one that does not.
                with _time_limit(None if max_seconds is None else max_seconds + OVERDUE_SECONDS):
                    if ready.remaining or not queue.is_exhausted:
                        chosen(queue, shared_context(ready), ready.layout, ready.sweep.run, hear)
                time_is_up = queue.is_time_up and not queue.is_exhausted
            except _Overdue:
                time_is_up = True
            trials_are_up = queue.is_at_limit
            plan = queue.plan
            keeper.drop()
            results.pull()
        seconds = time.monotonic() - began
        listen(Waiting("writing the tables"))
        if run is not None:
            write_provenance(ready, run, seconds)
        tables = load(results.here.path)
        counts = {str(status): int(count) for status, count in Counter(tables.trials["status"]).items()}
        page: Path | None = None
        answer: list[tuple[str, str]] = []
        evidence: Evidence | None = None
        if counts:
            listen(Waiting("bringing the report up to date"))
            asked = functools.partial(write_training, results, plan, shared_context(ready), ready.dataset)
            made = report.refresh(tables, functools.partial(write_pictures, results, ready.dataset), asked, beside)
            tables, page, answer, evidence = made
        results.publish()
    uri = str(results) if ready.is_remote else None
    return Finished(tables, counts, seconds, page, time_is_up, trials_are_up, uri, answer, evidence, plan)


def _look_ahead(queue: Queue, ready: Prepared, beside: Beside) -> None:
    """Prepare the report while the last trials run, and begin with its figures when all have ended.

    Then it has a head start while the executor ends.
    """
    left = queue.plan.total - queue.plan.lost - len(queue.outcomes)
    if left <= ready.layout.trials_at_once and beside.start(queue.plan.total):
        threading.Thread(target=report.import_all, daemon=True).start()
    if queue.is_exhausted and not ready.is_remote:
        with contextlib.suppress(CnnsearchError, OSError):  # it is said when the report is made
            beside.begin(load(ready.results.here.path))


def _refuse_untested(ready: Prepared) -> None:
    """Refuse to go on with the test set open where trials ended while it was sealed."""
    if ready.is_sealed and ready.is_remote:
        raise RequestError(
            f"evidence.test=sealed needs results in a folder, which can be unsealed; given {ready.results}"
        )
    if ready.is_untested and not ready.is_sealed:
        raise RequestError(
            f"the test set of {ready.results} is sealed, and some of its trials have not been tested.\n"
            f"       To open it: cnnsearch unseal {ready.results}\n"
            "       To go on with it sealed: --set evidence.test=sealed"
        )


def _adopt(ready: Prepared, listen: Callable[[Event], None], trials: list[Trial]) -> dict[str, Outcome]:
    """Take over the results of these newly planned trials that other sweeps in this results root have finished."""
    by_id = {trial.id: trial for trial in trials}
    starts = {stage.start_from.stage for stage in ready.sweep.stages if stage.start_from}
    starts |= {CONFIRM.name} if starts else set()
    found: dict[str, Outcome] = {}
    for trial_id in ready.results.adopt(list(by_id), untested=ready.is_sealed):
        folder, trial = ready.results.here.trial(trial_id), by_id[trial_id]
        record = folder.record()
        if record is not None and (trial.stage not in starts or folder.has_weights()):
            found[trial_id] = record.outcome
            listen(Ended(trial, record))
    return found


class _Keeper:
    """Drops weights that are no longer needed as trials end."""

    def __init__(self, results: ResultsPlace, queue: Queue) -> None:
        self._results = results
        self._queue = queue
        self._ended = [trial_id for trial_id in queue.plan.trials if trial_id in queue.outcomes]
        """Ended trials that may still have weights, also from runs that were cut off before they dropped any."""
        self._since = 0
        """Trials that have ended since weights were last dropped."""

    def hear(self, event: Event) -> None:
        """Notice that a trial ended; drop weights from time to time."""
        if isinstance(event, Ended) and event.record.outcome.is_comparable:
            self._ended.append(event.trial.id)
            self._since += 1
            # Deciding reads the whole plan, so it is done less often the more trials there are.
            if self._since >= KEPT_AT_MOST + len(self._queue.plan.trials) // 20:
                self.drop()

    def drop(self) -> None:
        """Drop the weights that nothing needs."""
        if self._queue.sweep.keeps_all_weights:
            return
        sweep = self._queue.sweep
        kept = retention.needed(sweep, self._queue.plan, self._queue.outcomes)
        self._results.drop_weights([trial_id for trial_id in self._ended if trial_id not in kept], sweep.metric)
        self._ended = [trial_id for trial_id in self._ended if trial_id in kept]
        self._since = 0


class _Overdue(BaseException):
    """The time limit has passed. Not an Exception, so that no handler on the way takes it for a failure."""


@contextlib.contextmanager
def _time_limit(seconds: float | None) -> Iterator[None]:
    """Raise _Overdue in the main thread after some seconds."""

    def ring() -> None:
        raise _Overdue

    with contextlib.nullcontext() if seconds is None else processes.alarm(seconds, ring):
        yield


def shared_context(ready: Prepared) -> SharedContext:
    """What all trials of this sweep share."""
    choices = Choices(ready.layout.device, ready.layout.threads, ready.precision)  # type: ignore[arg-type]
    return SharedContext(
        ready.results.here.path,
        ready.datasets,
        choices,
        ready.sweep.run.checkpoint_seconds,
        ready.weights,
        ready.features_bytes,
        ready.sweep.run.checkpoint_epochs,
        {stage.name: stage.stop_early for stage in ready.sweep.stages if stage.stop_early},
        ready.sweep.train.max_seconds,
        ready.sweep.run.keep == "state",
        ready.known_epochs,
        ready.is_sealed,
        ready.results.remote,
        ready.code,
    )


def _executor(serial: bool, ready: Prepared) -> Executor:
    """What runs the queue. Raises RequestError if that is Ray, which is missing or runs in this process already."""
    if serial:
        from cnnsearch.execution.serial import execute as in_process

        return in_process
    with _importing_ray():
        from cnnsearch.execution.on_ray.cluster import refuse_other_ray
        from cnnsearch.execution.on_ray.schedule import execute as with_ray
        from cnnsearch.execution.on_ray.stuck import patience

    if ready.cluster is not None:
        return functools.partial(with_ray, cluster=ready.cluster, warden=ready.warden)
    refuse_other_ray()

    def starting_ray(
        queue: Queue, context: SharedContext, layout: Layout, run: RunSpec, listen: Callable[[Event], None]
    ) -> None:
        with ready.warden.expecting(*patience()):
            listen(Waiting("starting Ray"))
        with_ray(queue, context, layout, run, listen, warden=ready.warden)

    return starting_ray


@contextlib.contextmanager
def _importing_ray() -> Iterator[None]:
    """Raise RequestError where Ray is missing or does not work, as on systems that it has no release for."""
    try:
        yield
    except ImportError as error:
        what = f"Ray cannot be imported here ({error})"
        raise RequestError(f"{what}; with --serial, trials run without it, one after another") from None


def _expected_silence(ready: Prepared, job: Job) -> float:
    """The longest time a job is expected to stay silent: an epoch, or the pass through the frozen layers before it."""
    sizes, calibration = ready.sizes, ready.calibration
    first = job.trials[0].settings
    epoch = sum(calibration.epoch_seconds(trial.settings, sizes) for trial in job.trials)
    images = sizes.train + sizes.val + sizes.test
    return epoch + images * calibration.image_seconds(first)
