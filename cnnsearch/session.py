"""The steps of a sweep in order: data, plan, schedule, tables, report. The commands and notebooks both call these."""

from __future__ import annotations

import base64
import contextlib
import functools
import logging
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from cnnsearch import data as images
from cnnsearch import retention
from cnnsearch.data.dataset import Dataset, Form
from cnnsearch.data.images import Interpolation
from cnnsearch.estimate import Calibration, Cost, Sizes, calibrate, representatives
from cnnsearch.events import Ended, Event
from cnnsearch.hardware import Hardware, Layout, detect, lay_out
from cnnsearch.models.pretrained import Key, Pretrained, find_weights
from cnnsearch.plan import Job, Outcome, Plan, Queue, Status, Trial, groups, make_plan
from cnnsearch.records import Results
from cnnsearch.space import cells
from cnnsearch.spec import Sweep
from cnnsearch.sweepfile import to_yaml
from cnnsearch.tables import Tables, load
from cnnsearch.warden import Warden, watching

FEATURES_SHARE = 0.5
"""Share of memory that the outputs of frozen layers may take, mapped once for all trials."""
KEPT_AT_MOST = 20
"""Trials whose weights are kept, needed or not, until what is not needed is dropped; more of a large sweep."""
LAST_WORDS = (
    "error: this run ended without a word: it was killed, or Ray took it down.\n"
    "What is finished is kept; the same command goes on."
)
"""Said for a run that cannot say it itself."""
SHEET_IMAGES = 8
"""Images of each class in the report's contact sheet."""

Executor = Callable[..., None]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """A sweep with its data found, its trials planned and its cost estimated. Nothing has been started."""

    sweep: Sweep
    results: Results
    datasets: dict[Form, Dataset]
    weights: dict[Key, Pretrained]
    """Pretrained weights the sweep names."""
    hardware: Hardware
    layout: Layout
    calibration: Calibration
    outcomes: dict[str, Outcome]
    """Of trials that need not run again."""
    plan: Plan
    costs: dict[str, Cost]
    """Stage -> what is left to do of it."""
    warden: Warden
    """Cleans up after this run, however it ends."""
    repeated: tuple[str, ...] = ()
    """Finished trials that run again because another needs their weights, which are gone or damaged."""

    @property
    def dataset(self) -> Dataset:
        """The data at the sweep's own image size."""
        return self.datasets[self.sweep.data.image_size, "bilinear"]

    @property
    def sizes(self) -> Sizes:
        """Images in each split."""
        return Sizes(*(len(self.dataset.indices[split]) for split in images.SPLITS))

    @property
    def precision(self) -> str:
        """What `precision: auto` means for this sweep: what it was begun with, else what the probe found here."""
        chosen = self.results.read("choices.json").get(self.layout.device, {})
        return str(chosen.get("precision", self.calibration.precision))

    @property
    def features_bytes(self) -> int:
        """Most that the outputs of frozen layers may take."""
        return int(FEATURES_SHARE * self.hardware.memory_bytes)

    @property
    def done(self) -> int:
        """Trials of the plan that need not run."""
        return sum(trial_id in self.outcomes for trial_id in self.plan.trials)

    @property
    def remaining(self) -> int:
        """Trials still to run."""
        return self.plan.total - self.plan.lost - self.done


@dataclass(frozen=True)
class Finished:
    """How a run of a sweep ended."""

    tables: Tables
    counts: dict[str, int]
    """Status -> trials."""
    seconds: float
    report: Path | None
    time_is_up: bool = False
    """Whether the time limit ended the run before its last trial."""

    @property
    def results(self) -> Path:
        """The sweep's folder."""
        return self.tables.folder

    @property
    def planned(self) -> int:
        """Trials the sweep has."""
        return self.tables.planned

    @property
    def exit_code(self) -> int:
        """0 where every planned trial is done, or was pruned or left for later on purpose; else 1."""
        missing = 0 if self.time_is_up else self.planned - sum(self.counts.values())
        bad = self.counts.get(Status.FAILED, 0) + self.counts.get(Status.DIVERGED, 0)
        return 1 if bad or missing else 0


@contextlib.contextmanager
def prepared(sweep: Sweep, out: Path | str, *, dry_run: bool = False) -> Iterator[Prepared]:
    """Find the data, plan the trials, estimate their cost; hold the results folder meanwhile, unless it is a dry run.

    Raises:
        RequestError: the data, the folder or the machine do not allow what was asked for.
    """
    results = Results(Path(out).absolute() / sweep.name)
    hardware = detect()
    layout = lay_out(sweep.run, hardware)
    weights = find_weights(named_weights(sweep))
    datasets = load_forms(sweep, weights)
    dataset = datasets[sweep.data.image_size, "bilinear"]
    plan_from = functools.partial(make_plan, sweep, dataset.fingerprint, weights=digests(weights))
    with watching(LAST_WORDS) as warden, contextlib.nullcontext() if dry_run else results.locked():
        if not dry_run:
            for name in results.set_damaged_aside():
                _LOG.warning("%s was damaged: it is kept as %s.damaged", results.path / name, name)
        outcomes = final_outcomes(results)
        plan = plan_from(outcomes)
        if not dry_run:
            # What another sweep in this root trained may choose parents, and so name trials not known before.
            while results.adopt([trial_id for trial_id in plan.trials if trial_id not in outcomes]):
                outcomes = final_outcomes(results)
                plan = plan_from(outcomes)
        repeated: list[str] = []
        while lost := parents_without_weights(results, plan, outcomes):
            repeated += lost
            outcomes = {trial_id: outcome for trial_id, outcome in outcomes.items() if trial_id not in lost}
            plan = plan_from(outcomes)
        trials = [trial for trial in representatives(plan) if trial.id not in outcomes]
        calibration = calibrate(trials, len(dataset.classes), layout, hardware)
        found = (datasets, weights, hardware, layout, calibration, outcomes, plan)
        ready = Prepared(sweep, results, *found, {}, warden, tuple(repeated))
        yield replace(ready, costs=stage_costs(ready, trials))


def run(
    sweep: Sweep,
    out: Path | str = "results",
    *,
    address: str | None = None,
    serial: bool = False,
    listen: Callable[[Event], None] = lambda event: None,
) -> Tables:
    """Run a sweep to its end and read its tables: what a notebook wants.

    Args:
        sweep: from `load_sweep`.
        out: results root; the sweep's folder in it is named after the sweep.
        address: of a Ray cluster; None starts Ray on this machine.
        serial: run in this process instead, one trial after another.
        listen: called with every event.

    Raises:
        CnnsearchError: the request was wrong, or the run was stopped. Failed trials do not raise; see their status.
    """
    with prepared(sweep, out) as ready:
        return execute(ready, address=address, serial=serial, listen=listen).tables


def execute(
    ready: Prepared,
    *,
    address: str | None = None,
    serial: bool = False,
    listen: Callable[[Event], None] = lambda event: None,
    max_seconds: float | None = None,
    command: str = "",
) -> Finished:
    """Run what remains, then write tables and the report. The folder must be held (see `prepared`).

    After `max_seconds` the trials still running are stopped where they are; the same call goes on with them.
    `command` is the command line this run came from, for its history; empty where there is none.
    """
    began, started_at = time.monotonic(), datetime.now(UTC)
    results, time_is_up = ready.results, False
    write_description(ready)
    if ready.remaining:
        executor = _executor(serial, address, ready.warden)
        queue = Queue(
            ready.sweep,
            ready.dataset.fingerprint,
            dict(ready.outcomes),
            digests(ready.weights),
            cost=functools.partial(_expected_seconds, ready),
            silence=functools.partial(_expected_silence, ready),
            slots=ready.layout.trials_at_once,
        )
        keeper = _Keeper(results, queue)

        def hear(event: Event) -> None:
            keeper.hear(event)
            listen(event)

        try:
            with _time_limit(max_seconds):
                executor(queue, workplace(ready), ready.layout, ready.sweep.run, hear)
        except _TimeIsUp:
            time_is_up = True
        keeper.drop()
    seconds = time.monotonic() - began
    if ready.remaining or not results.read("provenance.json"):
        write_provenance(ready, started_at, seconds, command)
    tables = load(results.path)
    counts = {str(status): int(count) for status, count in Counter(tables.trials["status"]).items()}
    page = None
    if counts and (page := current_report(tables)) is None:
        tables = replace(tables, pictures=write_pictures(ready, tables))
        page = write_report(tables)
    return Finished(tables, counts, seconds, page, time_is_up)


class _Keeper:
    """Drops weights that nothing needs any more while trials end."""

    def __init__(self, results: Results, queue: Queue) -> None:
        self._results = results
        self._queue = queue
        self._ended = [trial_id for trial_id in queue.plan.trials if trial_id in queue.outcomes]
        """Trials whose weights may be there: also of runs that were cut off before they dropped any."""
        self._since = 0
        """Trials that ended since anything was dropped."""

    def hear(self, event: Event) -> None:
        """Notice that a trial ended; now and then, drop."""
        if isinstance(event, Ended) and event.record.status is Status.DONE:
            self._ended.append(event.trial.id)
            self._since += 1
            # Deciding reads the whole plan, so it is done less often the more trials there are.
            if self._since >= KEPT_AT_MOST + len(self._queue.plan.trials) // 20:
                self.drop()

    def drop(self) -> None:
        """Drop what nothing needs."""
        if self._queue.sweep.run.keep == "all":
            return
        kept = retention.needed(self._queue.sweep, self._queue.plan, self._queue.outcomes)
        for trial_id in self._ended:
            if trial_id not in kept:
                self._results.trial(trial_id).drop_weights()
        self._ended = [trial_id for trial_id in self._ended if trial_id in kept]
        self._since = 0


class _TimeIsUp(BaseException):
    """Not an Exception, so that no handler between the alarm and its owner takes it for a failure."""


@contextlib.contextmanager
def _time_limit(seconds: float | None) -> Iterator[None]:
    """Raise _TimeIsUp in the main thread after some seconds."""
    if seconds is None:
        yield
        return

    def ring(number: int, frame: object) -> None:
        raise _TimeIsUp

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def image_sizes(sweep: Sweep) -> list[int]:
    """Every image size a trial of the sweep may need."""
    varied = {int(cell["image_size"]) for stage in sweep.stages for cell in cells(stage) if "image_size" in cell}
    return sorted({sweep.data.image_size} | varied)


def load_forms(sweep: Sweep, weights: dict[Key, Pretrained]) -> dict[Form, Dataset]:
    """The images at every size and in every interpolation that trials may need; the bilinear ones always."""
    sizes = image_sizes(sweep)
    ways: list[Interpolation] = ["bilinear"]
    ways += sorted({found.preprocessing.interpolation for found in weights.values()} - {"bilinear"})
    loaded = {way: images.load(sweep.data, sizes, interpolation=way) for way in ways}
    return {(size, way): dataset for way in ways for size, dataset in loaded[way].items()}


def named_weights(sweep: Sweep) -> set[Key]:
    """Every pair of model and pretrained weights that a trial of the sweep starts from."""
    base = {"model": sweep.train.model, "weights": sweep.train.weights}
    used = [{**base, **cell} for stage in sweep.stages if stage.start_from is None for cell in cells(stage)]
    return {(cell["model"], cell["weights"]) for cell in used if cell["weights"] != "none"}


def digests(weights: dict[Key, Pretrained]) -> dict[Key, str]:
    """What planning needs to know of weights."""
    return {key: found.identity for key, found in weights.items()}


def final_outcomes(results: Results) -> dict[str, Outcome]:
    """Outcomes of the recorded trials that running again could not change. A trial with damaged files is not done."""
    records = results.records()
    damaged = results.damaged(records, checkpoints=True)
    for trial_id, files in damaged.items():
        told = ", ".join(f"{name} is {what}" for name, what in files.items())
        _LOG.warning("trial %s: %s; it counts as not done", trial_id, told)
    return {
        trial_id: record.outcome
        for trial_id, record in records.items()
        if record.status.is_final and trial_id not in damaged
    }


def parents_without_weights(results: Results, plan: Plan, outcomes: dict[str, Outcome]) -> list[str]:
    """Finished trials that some trial to run starts from, and whose weights are gone or damaged."""
    started = {trial.parent_id for trial in plan.trials.values() if trial.parent_id and trial.id not in outcomes}
    lost: dict[str, None] = {}
    checked: set[str] = set()
    while started:
        trial_id = started.pop()
        checked.add(trial_id)
        if not results.trial(trial_id).has_weights():
            lost[trial_id] = None
        # A fine-tuned trial keeps what its training changed; the rest is its parent's.
        trial = plan.trials.get(trial_id)
        if trial and trial.parent_id and trial.settings.fine_tune != "full":
            started |= {trial.parent_id} - checked
    return sorted(lost)


def stage_costs(ready: Prepared, trials: list[Trial]) -> dict[str, Cost]:
    """What is left of each stage."""
    by_stage: dict[str, list[Trial]] = {stage.name: [] for stage in ready.sweep.stages}
    for trial in trials:
        by_stage[trial.stage].append(trial)
    return {
        name: ready.calibration.cost(some, ready.sizes, ready.layout, weights_kept(ready, name))
        for name, some in by_stage.items()
    }


def weights_kept(ready: Prepared, stage_name: str) -> int | None:
    """At most how many trials of a stage keep their weights at a time; None for all."""
    if ready.sweep.run.keep == "all":
        return None
    planned = next(planned for planned in ready.plan.stages if planned.stage.name == stage_name)
    known = planned.trials or next(iter(ready.plan.stages)).trials
    seeds = len({trial.settings.seed for trial in known})
    chosen = sum(len(groups(known, per)) for per, _ in retention.choices(ready.sweep, planned.stage))
    return chosen * seeds + KEPT_AT_MOST + len(ready.plan.trials) // 20


def workplace(ready: Prepared) -> Any:
    """What the workers of this sweep share."""
    from cnnsearch.work import Choices, Workplace

    choices = Choices(ready.layout.device, ready.layout.threads, ready.precision)  # type: ignore[arg-type]
    return Workplace(
        ready.results.path,
        ready.datasets,
        choices,
        ready.sweep.run.checkpoint_seconds,
        ready.weights,
        ready.features_bytes,
        ready.sweep.run.checkpoint_epochs,
    )


def write_description(ready: Prepared) -> None:
    """Write what the sweep is, before any trial: with it the records explain themselves."""
    dataset, results = ready.dataset, ready.results
    examples = {
        split: {
            "names": [dataset.names[row] for row in dataset.indices[split]],
            "labels": dataset.labels[dataset.indices[split]].tolist(),
        }
        for split in ("val", "test")
    }
    results.write("sweep.yaml", to_yaml(ready.sweep))
    results.write(
        "data.json",
        {
            "source": dataset.source,
            "fingerprint": dataset.fingerprint,
            "classes": list(dataset.classes),
            "counts": {split: dataset.counts(split) for split in images.SPLITS},
            "warnings": list(dataset.warnings),
            "weights": [[*key, found.identity] for key, found in ready.weights.items()],
            "examples": examples,
        },
    )
    chosen = {"precision": ready.precision, "threads": ready.layout.threads}
    results.write("choices.json", {**results.read("choices.json"), ready.layout.device: chosen})


def write_provenance(ready: Prepared, started_at: datetime, seconds: float, command: str) -> None:
    """Add this run to the folder's history."""
    hardware = ready.hardware
    packages = ("cnnsearch", "torch", "torchvision", "ray", "numpy", "pillow")
    this = {
        "command": command,
        "started_at": started_at.isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        "versions": {"python": sys.version.split()[0], **{name: metadata.version(name) for name in packages}},
        "hardware": {
            "cpu": hardware.cpu,
            "cores": hardware.cores,
            "memory_bytes": hardware.memory_bytes,
            "gpus": list(hardware.gpus),
        },
        "layout": {"trials_at_once": ready.layout.trials_at_once, "threads": ready.layout.threads},
        "git_commit": _git_commit(),
    }
    before = ready.results.read("provenance.json")
    choices = ready.results.read("choices.json")
    ready.results.write("provenance.json", {"runs": [*before.get("runs", []), this], "choices": choices})


def write_report(tables: Tables) -> Path:
    """Write the report into the sweep's folder; its path."""
    from cnnsearch import report

    return report.write(tables, tables.folder)


def current_report(tables: Tables) -> Path | None:
    """The report in the sweep's folder, where it is the one these tables would give again."""
    from cnnsearch import report

    return report.current(tables, tables.folder)


def write_pictures(ready: Prepared, tables: Tables) -> dict[str, Any]:
    """Keep the pictures the report shows: with them it can be made again without the images."""
    from cnnsearch import report
    from cnnsearch.data.pictures import png

    dataset = ready.dataset
    rows = {dataset.names[row]: int(row) for split in ("val", "test") for row in dataset.indices[split]}
    sheet = {
        name: [row for row in dataset.indices["train"] if dataset.labels[row] == label][:SHEET_IMAGES]
        for label, name in enumerate(dataset.classes)
    }
    encoded = functools.partial(_encoded, png, dataset)
    pictures = {
        "sheet": {name: [encoded(int(row)) for row in some] for name, some in sheet.items()},
        "examples": {name: encoded(rows[name]) for name in report.examples_wanted(tables) if name in rows},
    }
    ready.results.write("pictures.json", pictures)
    return pictures


def _encoded(png: Callable[[Dataset, int], bytes], dataset: Dataset, row: int) -> str:
    return base64.b64encode(png(dataset, row)).decode("ascii")


def _executor(serial: bool, address: str | None, warden: Warden) -> Executor:
    if serial:
        from cnnsearch.serial import execute as in_process

        return in_process
    from cnnsearch.schedule import execute as with_ray

    return functools.partial(with_ray, address=address, warden=warden)


def _expected_seconds(ready: Prepared, trial: Trial) -> float:
    return ready.calibration.seconds(trial.settings, ready.sizes, starts_from=trial.parent_id is not None)


def _expected_silence(ready: Prepared, job: Job) -> float:
    """The longest a job is expected to say nothing: an epoch, or the pass through the frozen layers before it."""
    sizes, calibration = ready.sizes, ready.calibration
    first = job.trials[0].settings
    epoch = sum(calibration.epoch_seconds(trial.settings, sizes) for trial in job.trials)
    images = sizes.train + sizes.val + sizes.test
    return epoch + images * calibration.image_seconds(first)


def _git_commit() -> str | None:
    """Commit of the code, where it runs from a checkout."""
    where = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "-C", str(where), "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
