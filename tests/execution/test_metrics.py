from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hypothesis import given, strategies as st

from cnnsearch.data.dataset import Dataset
from cnnsearch.execution import metrics
from cnnsearch.execution.context import Choices, SharedContext
from cnnsearch.execution.events import EpochDone
from cnnsearch.execution.metrics import METRICS, SHOWN_TRIALS, Metrics
from cnnsearch.planning.job import Job
from cnnsearch.planning.queue import Queue
from cnnsearch.planning.trial import EpochRow, Outcome, Status, Trial
from cnnsearch.spec.settings import Settings
from cnnsearch.spec.sweep import Sweep

Series = tuple[str, tuple[tuple[str, str], ...]]
NAN = float("nan")


class Ray:
    """Gauges that were set since somebody last looked: Ray sends those on, and forgets them."""

    def __init__(self) -> None:
        self.set: dict[Series, float] = {}

    def gauge(self, name: str, help_: str, labels: tuple[str, ...]) -> _Gauge:
        return _Gauge(self, name, labels)

    def sent(self, name: str) -> dict[tuple[str, ...], float]:
        """Values of a metric by those of its labels but the sweep."""
        return {tuple(v for k, v in labels if k != "sweep"): x for (n, labels), x in self.set.items() if n == name}


class _Gauge:
    def __init__(self, ray: Ray, name: str, labels: tuple[str, ...]) -> None:
        self.ray, self.name, self.labels = ray, name, labels

    def set(self, value: float, tags: dict[str, str]) -> None:
        assert tags.keys() == set(self.labels)
        self.ray.set[self.name, tuple((label, tags[label]) for label in self.labels)] = value


class Run:
    """A run whose trials begin and end as a test says."""

    def __init__(self, sweep: Sweep, dataset: Dataset, path: Path) -> None:
        self.ray = Ray()
        self.seconds = 0.0
        self.queue = Queue(sweep, dataset.fingerprint, {}, slots=2)
        context = SharedContext(path, {(8, "bilinear"): dataset}, Choices("cpu", 1, "fp32"), checkpoint_seconds=0)
        self.metrics = Metrics(self.queue, context, self.share, self.ray.gauge, 3, lambda: self.seconds)

    def share(self, job: Job) -> float:
        return job.slots / 4

    def look(self) -> Ray:
        """What is sent on in the next interval."""
        self.seconds += 3
        self.ray.set.clear()
        self.metrics.publish()
        return self.ray

    def hear(self, trial: Trial, epoch: int, val_loss: float = 0.75, train_loss: float | None = 0.5) -> None:
        train_accuracy = None if train_loss is None else 0.8
        row = EpochRow(epoch, train_loss, train_accuracy, val_loss, 0.715, 0.001, 0.5 if epoch else 0.0)
        self.metrics.hear(EpochDone(trial, row))

    def take(self) -> Trial:
        job = self.queue.take()
        assert job is not None
        return job.trials[0]

    def end(self, trial: Trial, status: Status = Status.DONE) -> None:
        self.queue.finish(trial, Outcome(status, 0.5, 1.0))


def test_a_trial_is_seen_while_it_runs_and_no_longer(
    small_sweep: Callable[..., Sweep], dataset: Dataset, tmp_path: Path
) -> None:
    run = Run(small_sweep(), dataset, tmp_path)
    first, second = run.take(), run.take()
    run.hear(first, 1)
    seen = run.look()
    assert seen.sent("cnnsearch_epochs") == {("grid", "0"): 2, ("grid", "1"): 2}
    assert seen.sent("cnnsearch_epoch") == {("grid", "0"): 1}
    assert seen.sent("cnnsearch_loss") == {("grid", "0", "train"): 0.5, ("grid", "0", "val"): 0.75}
    assert seen.sent("cnnsearch_accuracy") == {("grid", "0", "train"): 0.8, ("grid", "0", "val"): 0.715}
    assert seen.sent("cnnsearch_images_per_second") == {("grid", "0"): 24 / 0.5}
    assert {dict(labels)["sweep"] for _, labels in seen.set} == {"part1"}
    run.hear(second, 2)
    run.end(first)
    assert run.look().sent("cnnsearch_epoch") == {("grid", "1"): 2}
    # The next trial takes the free slot, and nothing of the one before is told of it.
    run.take()
    seen = run.look()
    assert seen.sent("cnnsearch_epochs").keys() == {("grid", "0"), ("grid", "1")}
    assert seen.sent("cnnsearch_epoch") == {("grid", "1"): 2}
    assert seen.sent("cnnsearch_loss").keys() == {("grid", "1", "train"), ("grid", "1", "val")}


def test_gauges_are_set_no_more_often_than_is_needed(
    small_sweep: Callable[..., Sweep], dataset: Dataset, tmp_path: Path
) -> None:
    run = Run(small_sweep(), dataset, tmp_path)
    assert run.look().set
    run.ray.set.clear()
    run.seconds += 2.9
    run.metrics.publish()
    assert not run.ray.set


def test_trials_are_counted_by_state(small_sweep: Callable[..., Sweep], dataset: Dataset, tmp_path: Path) -> None:
    run = Run(small_sweep(), dataset, tmp_path)
    none = {(stage, state): 0 for stage in ("grid", "dropout") for state in metrics.STATES}
    waiting = {("grid", "waiting"): 8, ("dropout", "waiting"): 8}
    assert run.look().sent("cnnsearch_trials") == none | waiting
    statuses = [Status.DONE, Status.DONE, Status.FAILED, Status.DIVERGED, Status.PRUNED]
    for status in statuses:
        run.end(run.take(), status)
    run.take()
    ended = {("grid", str(status.value)): statuses.count(status) for status in Status}
    now = none | waiting | ended | {("grid", "waiting"): 2, ("grid", "running"): 1}
    assert run.look().sent("cnnsearch_trials") == now


def test_shares_of_gpus_are_of_jobs_that_run(
    small_sweep: Callable[..., Sweep], dataset: Dataset, tmp_path: Path
) -> None:
    run = Run(small_sweep(), dataset, tmp_path)
    assert run.look().sent("cnnsearch_gpu_share") == {("grid",): 0, ("dropout",): 0}
    trial = run.take()
    run.take()
    assert run.look().sent("cnnsearch_gpu_share") == {("grid",): 0.5, ("dropout",): 0}
    run.end(trial)
    assert run.look().sent("cnnsearch_gpu_share")["grid",] == 0.25


def test_what_is_no_number_or_not_measured_is_not_shown(
    small_sweep: Callable[..., Sweep], dataset: Dataset, tmp_path: Path
) -> None:
    run = Run(small_sweep(), dataset, tmp_path)
    trial, other = run.take(), run.take()
    run.hear(trial, 1, val_loss=NAN)
    run.hear(other, 0, train_loss=None)  # before any training
    seen = run.look()
    assert seen.sent("cnnsearch_loss") == {("grid", "0", "train"): 0.5, ("grid", "1", "val"): 0.75}
    assert seen.sent("cnnsearch_images_per_second").keys() == {("grid", "0")}


def trials(count: int) -> list[Trial]:
    return [Trial("grid", Settings(seed=seed), "data") for seed in range(count)]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=60))
def test_slots_are_kept_few_and_never_shared(steps: list[tuple[bool, int]]) -> None:
    slots: dict[str, int] = {}
    running: dict[str, Job] = {}
    most = 0
    for begins, number in steps:
        before = dict(slots)
        if begins:
            running[str(number)] = Job(())
        else:
            running.pop(str(number), None)
        most = max(most, len(running))
        slots = metrics._assign_slots(slots, running)
        assert slots.keys() == running.keys()
        assert len(set(slots.values())) == len(slots)
        assert set(slots.values()) <= set(range(most))
        assert all(slots[one] == before[one] for one in slots.keys() & before.keys())


def test_no_more_than_so_many_are_shown_one_by_one() -> None:
    running = {trial.id: Job((trial,)) for trial in trials(SHOWN_TRIALS + 5)}
    assert sorted(metrics._assign_slots({}, running).values()) == list(range(SHOWN_TRIALS))


def test_labels_take_few_values() -> None:
    assert {label for metric in METRICS for label in metric.labels} == {"sweep", "stage", "slot", "state", "split"}
    assert all(metric.labels[:2] == ("sweep", "stage") for metric in METRICS)
    assert all(metric.name.startswith("cnnsearch_") for metric in METRICS)
