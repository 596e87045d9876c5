"""What keeps a run of very many trials as cheap for the driver at its end as at its beginning."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from ray.air.execution._internal.actor_manager import RayActorManager

from benchmarks import scale
from benchmarks.simulated import SPREAD, Simulated
from cnnsearch.execution.context import Choices, SharedContext
from cnnsearch.execution.events import Ended, EpochDone, Event, Started
from cnnsearch.execution.machine.hardware import Layout
from cnnsearch.execution.on_ray import schedule, tune
from cnnsearch.execution.on_ray.placing import WaitingWorkers
from cnnsearch.planning.queue import Queue
from cnnsearch.planning.trial import Status
from cnnsearch.results.folder import Results
from cnnsearch.spec.sweep import Sweep

FINGERPRINT = "f" * 16


def simulate(path: Path, queue: Queue, listen: Callable[[Event], None], slots: int = 2) -> None:
    """Run a queue with Ray and trials that train nothing."""
    context = SharedContext(path, {}, Choices("cpu", 1, "fp32"), checkpoint_seconds=0)
    layout = Layout("cpu", trials_at_once=slots, threads=1, gpus=0.0)
    run = queue.sweep.run.model_copy(update={"dashboard": False})
    schedule.execute(queue, context, layout, run, listen, run_job=Simulated(0.05))


@pytest.mark.usefixtures("shared_ray")
@pytest.mark.after
def test_tune_forgets_trials_that_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "KEPT_BY_TUNE", 3)
    lengths: list[int] = []
    dropped: list[Any] = []
    drop = tune.drop_ended

    def watched(trials: list[Any]) -> None:
        before = list(trials)
        drop(trials)
        lengths.append(len(trials))
        dropped.extend(trial for trial in before if trial not in trials)

    monkeypatch.setattr(tune, "drop_ended", watched)
    queue = Queue(scale.make_sweep(40, 3), FINGERPRINT, {}, cost=lambda trial: math.inf)
    planned = list(queue.plan.trials)
    events: list[Event] = []
    simulate(tmp_path, queue, events.append)
    started = [event.trial.id for event in events if isinstance(event, Started)]
    # In the queue's order, but for the one or two whose worker may still be starting.
    assert sorted(started) == sorted(planned)
    places = [planned.index(trial_id) for trial_id in started]
    assert all(sum(later < one for later in places[at:]) <= 2 for at, one in enumerate(places))
    assert sorted(event.trial.id for event in events if isinstance(event, Ended)) == sorted(planned)
    assert sum(isinstance(event, EpochDone) for event in events) == 3 * 40
    assert {record.status for record in Results(tmp_path).records().values()} == {Status.DONE}
    assert queue.outcomes.keys() == set(planned)
    assert len(lengths) >= 5
    assert max(lengths) <= 4  # two that run or wait for their worker, and the latest
    assert len(dropped) >= 30
    assert all(trial.is_finished() and not trial.config for trial in dropped)
    assert not any(trial.run_metadata.last_result for trial in dropped)


@pytest.mark.usefixtures("shared_ray")
@pytest.mark.after
def test_workers_that_start_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials far shorter than a worker's start: those that are up must not take the trials of those that come."""
    asked = 0
    add = RayActorManager.add_actor

    def counted(self: RayActorManager, *args: Any, **kwargs: Any) -> Any:
        nonlocal asked
        asked += 1
        return add(self, *args, **kwargs)

    monkeypatch.setattr(RayActorManager, "add_actor", counted)
    queue = Queue(scale.make_sweep(120, 1), FINGERPRINT, {}, cost=lambda trial: math.inf)
    simulate(tmp_path, queue, lambda event: None, slots=4)
    assert len(queue.outcomes) == 120
    assert asked == 4


@pytest.mark.usefixtures("shared_ray")
@pytest.mark.after
def test_workers_wait_for_the_next_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add = RayActorManager.add_actor
    asked = Mock(side_effect=add)
    monkeypatch.setattr(RayActorManager, "add_actor", lambda self, *args, **kwargs: asked(self, *args, **kwargs))
    first = {"name": "first", "space": {"lr": {"grid": [n / 100 for n in range(1, 41)]}}}  # until both have started
    start = {"name": "second", "start_from": {"stage": "first", "best": "val_accuracy"}}
    stages = [first, {**start, "space": {"dropout": {"grid": [0.1, 0.2, 0.3, 0.4]}}}]
    sweep = Sweep.model_validate({"name": "two", "train": {"model": "plain", "epochs": 2}, "stages": stages})
    simulate(tmp_path, Queue(sweep, FINGERPRINT, {}, cost=lambda trial: math.inf), lambda event: None)
    assert len(Results(tmp_path).records()) == 44
    assert asked.call_count == 2


class TestWaitingWorkers:
    def test_all_are_kept_while_nothing_is_expected(self) -> None:
        workers = WaitingWorkers()
        assert [workers.cache_object("one slot", number) for number in (1, 2, 3)] == [True] * 3
        assert [*workers.flush_cached_objects()] == []
        assert [*workers.flush_cached_objects(force_all=True)] == [1, 2, 3]
        assert workers.num_cached_objects == 0

    def test_they_make_room_for_a_trial_that_needs_more(self) -> None:
        workers = WaitingWorkers()
        workers.cache_object("one slot", 1)
        workers.cache_object("one slot", 2)
        workers.increase_max("two slots")
        assert not workers.cache_object("one slot", 3)
        assert [*workers.flush_cached_objects()] == [1, 2]


def test_a_simulated_trial_takes_its_time_and_is_counted_where_it_falls(tmp_path: Path) -> None:
    queue = Queue(scale.make_sweep(40, 3), FINGERPRINT, {}, slots=2, cost=lambda trial: math.inf)
    simulated = Simulated(0.03)
    seconds = [simulated.seconds_of(trial) for trial in queue.plan.trials.values()]
    assert all(abs(some / 0.03 - 1) <= SPREAD for some in seconds)
    assert len(set(seconds)) == 40
    job = queue.take()
    assert job is not None
    context = SharedContext(tmp_path, {}, Choices("cpu", 1, "fp32"), checkpoint_seconds=0)
    events = [event for some in simulated(job, context, None) for event in some]  # type: ignore[arg-type]
    record = Results(tmp_path).records()[job.id]
    assert events[-1] == (job.trials[0], record)
    assert record.started_at is not None
    assert record.seconds is not None
    assert record.seconds == pytest.approx(simulated.seconds_of(job.trials[0]))
    began = record.started_at.timestamp()
    assert scale.busy_share(Results(tmp_path), 2, began, began + record.seconds) == pytest.approx(1 / 2)
    assert scale.busy_share(Results(tmp_path), 1, began - record.seconds, began + record.seconds / 2) == pytest.approx(
        1 / 3
    )


def test_growth_is_told_from_what_a_start_takes() -> None:
    watch = scale.Watch(slots=10, every=10)
    watch.samples = [scale.Sample(0, 0.0, 100, 0.0), scale.Sample(10, 1.0, 900, 1.0)]
    assert math.isnan(watch.growth)
    watch.samples += [scale.Sample(number, number / 10, 1000 + 7 * number, number / 20) for number in range(20, 60, 10)]
    assert watch.growth == pytest.approx(7)
    assert watch.line(5).endswith("10.0 trials/s, 50% of a core")


@pytest.mark.slow
def test_the_benchmark_runs(capfd: pytest.CaptureFixture[str]) -> None:
    assert scale.main(["--trials", "80", "--slots", "8", "--seconds", "1"]) == 0
    assert "utilisation from when all places were taken" in capfd.readouterr().out
