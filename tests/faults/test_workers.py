"""Workers that are killed, stand still, run out of memory or break: what becomes of their trials and of the others."""

from __future__ import annotations

import functools
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from cnnsearch.execution import trial as execution
from cnnsearch.execution.context import SharedContext
from cnnsearch.execution.events import Ended, EpochDone, Event, Progress, Started
from cnnsearch.execution.jobs import run_job
from cnnsearch.execution.on_ray import schedule
from cnnsearch.planning.job import Job
from cnnsearch.planning.stopping import Orders
from cnnsearch.planning.trial import Status
from cnnsearch.prepare import prepared
from cnnsearch.session import Finished, execute
from cnnsearch.spec.load import load_sweep
from tests.faults.running import images, workers
from tests.recorded import numbers

pytestmark = [pytest.mark.usefixtures("shared_ray"), pytest.mark.after]

RESIDUAL = """
name: tiny
data: {image_size: 8, split: {method: fill, train_per_class: 6, val_per_class: 4}}
train: {model: residual, width: 0.05, epochs: 30, precision: fp32}
run: {dashboard: false, checkpoint_epochs: 8}
stages:
  - name: grid
    space: {lr: {grid: [0.001, 0.002]}}
  - name: dropout
    start_from: {stage: grid}
    space: {dropout: 0.2}
"""
HEADS = """
name: heads
data: {image_size: 16, split: {method: fill, train_per_class: 6, val_per_class: 4}}
train: {model: plain, width: 0.05, fine_tune: head, epochs: 30, precision: fp32}
run: {dashboard: false, checkpoint_epochs: 8, trials_at_once: 1}
stages:
  - name: grid
    space: {lr: {grid: [0.001, 0.002, 0.004]}}
"""


@dataclass(frozen=True)
class Slow:
    """A worker's job, of which no epoch takes less than a tenth of a second.

    A worker tells at once what it did in a second, and is to be caught in the middle, on fast machines too.
    """

    def __call__(self, job: Job, context: SharedContext, orders: Orders) -> Iterator[Progress]:
        for events in run_job(job, context, orders):
            time.sleep(0.1)
            yield events


@dataclass(frozen=True)
class Broken:
    """A worker's job in which a trial breaks: each process that does one is changed before the first."""

    fault: str
    """memory: a batch of 60 gets no more than there is. memory once: so in the first process. exception: lr 0.5, and
    whatever the same process trains afterwards."""
    folder: Path

    def __call__(self, job: Job, context: SharedContext, orders: Orders) -> Iterator[Progress]:
        if not hasattr(execution, "spoiled"):
            self._change(execution)
        yield from run_job(job, context, orders)

    def _change(self, module: Any) -> None:
        train = module.train
        spoiled: list[float] = []
        module.spoiled = spoiled

        def broken(state: Any, examples: Any, settings: Any, **options: Any) -> Any:
            if self.fault == "exception" and (settings.lr == 0.5 or spoiled):
                spoiled.append(settings.lr)
                raise ArithmeticError(f"injected for lr {settings.lr}\nand more")
            if settings.batch_size == 60 and self._is_short():
                with open("/proc/self/statm", encoding="ascii") as file:
                    used = int(file.read().split()[0]) * resource.getpagesize()
                resource.setrlimit(resource.RLIMIT_AS, (used + 2**20, used + 2**20))
            yield from train(state, examples, settings, **options)

        module.train = broken

    def _is_short(self) -> bool:
        """Whether this process gets no more memory; with `memory once`, whether no process has asked before."""
        try:
            (self.folder / "happened").touch(exist_ok=self.fault == "memory")
        except FileExistsError:
            return False
        return self.fault.startswith("memory")


def run(
    text: str,
    out: Path,
    listen: Callable[[Event], None],
    *values: str,
    serial: bool = False,
    work: Slow | Broken = Slow(),
) -> Finished:
    out.mkdir()
    (out / "sweep.yaml").write_text(text, encoding="utf-8")
    with prepared(load_sweep(str(out / "sweep.yaml"), values=values), out) as ready:
        with_ray = functools.partial(schedule.execute, warden=ready.warden, run_job=work)
        return execute(ready, serial=serial, listen=listen, executor=None if serial else with_ray)


def undisturbed(text: str, out: Path) -> dict[str, object]:
    finished = run(text, out, lambda event: None, serial=True)
    return numbers(finished.results)


class Disturber:
    """Does something to all workers, once a trial has come to an epoch; keeps what it heard."""

    def __init__(self, act: Callable[[psutil.Process], None], epoch: int, times: int = 1) -> None:
        self.act = act
        self.epoch = epoch
        self.times = times
        self.acts = 0
        self.epochs: dict[str, list[int]] = {}
        self.ended: list[Ended] = []
        self.started: dict[str, int] = {}

    def __call__(self, event: Event) -> None:
        match event:
            case Started():
                self.started[event.trial.id] = self.started.get(event.trial.id, 0) + 1
            case Ended():
                self.ended.append(event)
            case EpochDone():
                self.epochs.setdefault(event.trial.id, []).append(event.row.epoch)
                # Once an attempt: of a worker just killed, the driver may hear another epoch or two.
                attempt = self.started[event.trial.id]
                if event.row.epoch >= self.epoch and self.acts < min(self.times, attempt):
                    found = list(workers())
                    # None where the driver hears of it only when the worker has done all it was given.
                    self.acts += bool(found)
                    for worker in found:
                        self.act(worker)


def repeated(epochs: list[int]) -> list[int]:
    return [epoch for index, epoch in enumerate(epochs) if epoch in epochs[:index]]


@pytest.mark.row(1)
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("text", "epoch", "every"), [(RESIDUAL, 11, 8), pytest.param(HEADS, 11, 8, marks=pytest.mark.after)]
)
def test_a_killed_worker_s_trials_go_on_from_their_checkpoints(
    tmp_path: Path, text: str, epoch: int, every: int
) -> None:
    """Optimizer, data order, BatchNorm and dropout: the end is the same to the bit, and little is repeated."""
    disturber = Disturber(psutil.Process.kill, epoch)
    finished = run(text, tmp_path / "killed", disturber)
    assert disturber.acts == 1
    assert finished.exit_code == 0
    assert max(disturber.started.values()) == 2
    # Between two checkpoints at most; the driver may hear of an epoch or two that came after a killed worker's last.
    assert all(len(repeated(epochs)) <= every for epochs in disturber.epochs.values())
    assert numbers(finished.results) == undisturbed(text, tmp_path / "quiet")
    assert not list(finished.results.glob("trials/*/checkpoint.pt"))


@pytest.mark.row(2)
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("reports_in_words")
def test_a_trial_that_keeps_killing_its_worker_fails_alone(tmp_path: Path) -> None:
    """One trial at a time, so that only one is hit; the second stage goes on from what is left."""
    first: list[str] = []

    class Poison(Disturber):
        def __call__(self, event: Event) -> None:
            if isinstance(event, Started):
                first[:] = first or [event.trial.id]
            if not isinstance(event, EpochDone) or event.trial.id == first[0]:
                super().__call__(event)

    disturber = Poison(psutil.Process.kill, 1, times=100)
    finished = run(RESIDUAL, tmp_path / "out", disturber, "run.trials_at_once=1", "run.max_retries=1")
    assert disturber.started[first[0]] == 2
    assert finished.exit_code == 1
    assert finished.counts == {"failed": 1, "done": 2}
    trials = finished.tables.trials
    (error,) = trials[trials["status"] == "failed"]["error"]
    assert error.startswith("the worker process died 2 times; the last time: ")
    assert finished.report is not None
    assert "the worker process died 2 times" in finished.report.with_name("report.md").read_text()


@pytest.mark.after
@pytest.mark.row(2)
@pytest.mark.timeout(300)
def test_heads_that_ran_with_a_killer_do_not_fail_with_it(tmp_path: Path) -> None:
    disturber = Disturber(psutil.Process.kill, 1, times=2)
    finished = run(HEADS, tmp_path / "out", disturber, "run.max_retries=1", "run.checkpoint_epochs=20")
    # The bundle dies once, then the first of its trials by itself; the other two never do again.
    assert sorted(ended.record.status for ended in disturber.ended) == [Status.DONE, Status.DONE, Status.FAILED]
    assert finished.exit_code == 1


@pytest.mark.row(6)
@pytest.mark.timeout(300)
@pytest.mark.parametrize("epoch", [8, pytest.param(30, marks=pytest.mark.slow)])
def test_a_worker_that_stands_still_is_killed_and_its_trial_goes_on(tmp_path: Path, epoch: int) -> None:
    """Also where it has ended a trial and is about to be given the next."""
    stopped: list[psutil.Process] = []

    def stop(worker: psutil.Process) -> None:
        worker.suspend()
        stopped.append(worker)

    disturber = Disturber(stop, epoch)
    finished = run(RESIDUAL, tmp_path / "out", disturber, "run.patience_seconds=4", "run.max_retries=5")
    assert stopped
    _, left = psutil.wait_procs(
        stopped, timeout=10
    )  # one that had ended its trial is ended with the run, by its warden
    assert left == []
    assert finished.exit_code == 0
    assert numbers(finished.results) == undisturbed(RESIDUAL, tmp_path / "quiet")


LARGE = """
name: large
data: {source: IMAGES, image_size: 64, split: {method: fill, train_per_class: 30, val_per_class: 4}}
train: {model: plain, width: 0.2, batch_size: 16, precision: fp32}
run: {dashboard: false, checkpoint_epochs: 1, max_retries: 3}
stages:
  - name: grid
    space: {batch_size: {grid: [60, 16]}, epochs: 3}
"""


@pytest.mark.row(14)
@pytest.mark.timeout(300)
def test_what_runs_out_of_memory_runs_again_with_more_room(tmp_path: Path) -> None:
    """The process that first trains the batch of 60 may take no more than it has by then."""
    text = LARGE.replace("IMAGES", str(images(tmp_path / "images", per_class=40)))
    disturber = Disturber(psutil.Process.kill, 10**9)
    finished = run(text, tmp_path / "out", disturber, work=Broken("memory once", tmp_path))
    assert finished.exit_code == 0, finished.tables.trials["error"].tolist()
    large, other = (
        trial["trial_id"] for trial in finished.tables.trials.sort_values("batch_size").to_dict("records")[::-1]
    )
    assert disturber.started == {large: 2, other: 1}
    assert numbers(finished.results) == undisturbed(text, tmp_path / "quiet")


@pytest.mark.after
@pytest.mark.row(14)
@pytest.mark.timeout(300)
def test_what_never_has_enough_memory_fails_and_the_others_finish(tmp_path: Path) -> None:
    """A batch of 60 at 64×64 needs more than any worker may have from the start."""
    text = LARGE.replace("IMAGES", str(images(tmp_path / "images", per_class=40)))
    finished = run(text, tmp_path / "out", Disturber(psutil.Process.kill, 10**9), work=Broken("memory", tmp_path))
    trials = {row["batch_size"]: row for row in finished.tables.trials.to_dict("records")}
    assert trials[16]["status"] == "done"
    assert trials[60]["status"] == "failed"
    assert trials[60]["error"].startswith("out of memory, also with more room; the last time: ")
    assert finished.exit_code == 1


@pytest.mark.row(15)
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("reports_in_words")
def test_an_exception_fails_its_trial_and_the_worker_is_replaced(tmp_path: Path) -> None:
    """The injected fault also spoils the process it happens in: a trial run there afterwards would break too."""
    text = RESIDUAL.replace("[0.001, 0.002]", "[0.001, 0.5, 0.002, 0.003]")
    values, work = ("run.trials_at_once=1", "train.epochs=2"), Broken("exception", tmp_path)
    finished = run(text, tmp_path / "out", Disturber(psutil.Process.kill, 10**9), *values, work=work)
    trials = finished.tables.trials
    failed = trials[trials["status"] == "failed"]
    assert failed["lr"].tolist() == [0.5]
    (error,) = failed["error"]
    assert error == "ArithmeticError: injected for lr 0.5 and more (trial.py, line " + error.partition("line ")[2]
    assert (trials["status"] == "done").sum() == len(trials) - 1 == 4
    assert finished.exit_code == 1
    assert finished.report is not None
    assert "injected for lr 0.5" in finished.report.with_name("report.md").read_text()
