"""Both executors keep the same promises: every test here runs with each."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from cnnsearch.data.dataset import Dataset
from cnnsearch.execution import serial
from cnnsearch.execution.context import Choices, SharedContext
from cnnsearch.execution.events import Ended, EpochDone, Event, Ready, Started
from cnnsearch.execution.executor import Executor
from cnnsearch.execution.machine.hardware import Layout
from cnnsearch.planning.queue import Queue
from cnnsearch.planning.trial import Status
from cnnsearch.results.folder import Results
from cnnsearch.spec.sweep import Sweep
from tests.recorded import numbers

LAYOUT = Layout("cpu", trials_at_once=2, threads=1, gpus=0.0)


def run(
    sweep: Sweep, dataset: Dataset, path: Path, executor: str, listen: Callable[[Event], None] = lambda event: None
) -> Queue:
    context = SharedContext(path, {(8, "bilinear"): dataset}, Choices("cpu", 1, "fp32"), checkpoint_seconds=0)
    queue = Queue(sweep, dataset.fingerprint, {})
    execute: Executor = serial.execute
    if executor == "ray":
        from cnnsearch.execution.on_ray import schedule

        execute = schedule.execute
    execute(queue, context, LAYOUT, sweep.run, listen)
    return queue


@pytest.mark.timeout(300)  # a busy machine takes a minute to start Ray
def test_ray_and_serial_give_the_same_numbers(
    small_sweep: Callable[..., Sweep], dataset: Dataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Number for number: also what a reused worker could leak into the next trial would show here."""
    sweep = small_sweep()
    events: list[Event] = []
    before = set(psutil.Process().children(recursive=True))
    capfd.readouterr()
    lock = threading.Lock()  # a live view holds one, and Tune pickles whatever it gets hold of

    def listen(event: Event) -> None:
        with lock:
            events.append(event)

    queue = run(sweep, dataset, tmp_path / "ray", "ray", listen)
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err == ""
    assert set(psutil.Process().children(recursive=True)) == before
    run(sweep, dataset, tmp_path / "serial", "serial")
    assert len(queue.outcomes) == queue.plan.total == 16
    assert numbers(tmp_path / "ray") == numbers(tmp_path / "serial")
    assert isinstance(events[0], Ready)
    assert sum(isinstance(event, Started) for event in events) == 16
    assert sum(isinstance(event, Ended) for event in events) == 16
    # Two epochs a trial, and epoch 0 of the eight that start from another.
    assert sum(isinstance(event, EpochDone) for event in events) == 16 * 2


def test_serial_leaves_the_process_as_it_was(
    small_sweep: Callable[..., Sweep], dataset: Dataset, tmp_path: Path
) -> None:
    """Also where a listener ends the run."""

    class EnoughError(Exception):
        pass

    def stop(event: Event) -> None:
        if isinstance(event, Ended):
            raise EnoughError

    threads, drawn = torch.get_num_threads(), torch.get_rng_state()
    try:
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(2)
        torch.set_grad_enabled(False)
        torch.manual_seed(1234)
        expected = torch.rand(3)
        torch.manual_seed(1234)
        with pytest.raises(EnoughError):
            run(small_sweep(), dataset, tmp_path, "serial", stop)
        found = torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled(), torch.initial_seed()
        assert found == (2, torch.float64, False, 1234)
        assert torch.equal(torch.rand(3), expected)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(threads)
        torch.set_grad_enabled(True)
        torch.set_rng_state(drawn)


def test_a_trial_does_not_depend_on_what_ran_before_it(
    small_sweep: Callable[..., Sweep], dataset: Dataset, tmp_path: Path
) -> None:
    run(small_sweep(), dataset, tmp_path / "all", "serial")
    alone = small_sweep("stages.grid.space.model=residual", "stages.grid.space.batch_size=32")
    run(alone, dataset, tmp_path / "alone", "serial")
    together, some = numbers(tmp_path / "all"), numbers(tmp_path / "alone")
    common = together.keys() & some.keys()
    assert len(common) >= 2
    assert all(together[trial_id] == some[trial_id] for trial_id in common)


@pytest.mark.usefixtures("shared_ray")
@pytest.mark.parametrize("executor", ["serial", pytest.param("ray", marks=pytest.mark.after)])
def test_trials_that_break_or_diverge_are_recorded_and_the_rest_goes_on(
    small_sweep: Callable[..., Sweep], dataset: Dataset, tmp_path: Path, executor: str
) -> None:
    sweep = small_sweep(
        "stages.grid.space={model: plain, optimizer: sgd, lr: {grid: [0.001, 100]}, batch_size: {grid: [16]}}",
        "train.epochs=6",
    )
    queue = run(sweep, dataset, tmp_path / "p", executor)
    records = Results(tmp_path / "p").records()
    by_lr = {r.settings.lr: r for r in records.values() if r.stage == "grid"}
    assert by_lr[0.001].status is Status.DONE
    assert by_lr[100].status is Status.DIVERGED
    assert "no longer a number" in (by_lr[100].error or "")
    assert queue.plan.total == len(records) == 2 + 4
    # The last row of a diverged trial is recorded, its loss as null.
    assert Results(tmp_path / "p").trial(by_lr[100].trial_id).epochs()[-1]["val_loss"] is None


def test_an_exception_is_recorded_with_its_cause(
    small_sweep: Callable[..., Sweep], dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cnnsearch.execution import trial as work

    def broken(*args: Any, **kwargs: Any) -> None:
        raise ValueError("no such\nthing")

    monkeypatch.setattr(work, "evaluate", broken)
    sweep = small_sweep("stages.grid.space={model: plain}", "stages.dropout.space.dropout=0.1")
    queue = run(sweep, dataset, tmp_path / "p", "serial")
    (record,) = Results(tmp_path / "p").records().values()
    assert record.status is Status.FAILED
    assert record.error is not None
    assert record.error.startswith("ValueError: no such thing (trial.py, line ")
    assert queue.plan.lost == 1
