"""Trials that end before their last epoch, from the sweep to the tables: both executors, heads, kills, budgets."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cnnsearch.execution import serial
from cnnsearch.execution.events import EpochDone, Event
from cnnsearch.execution.on_ray import schedule
from cnnsearch.plan_text import stopping_notes
from cnnsearch.planning.queue import Queue
from cnnsearch.planning.trial import Status
from cnnsearch.prepare import prepared
from cnnsearch.results.folder import Results
from cnnsearch.results.record import Record
from cnnsearch.results.tables import load
from cnnsearch.session import Finished, execute, shared_context
from cnnsearch.spec.load import load_sweep, to_yaml
from cnnsearch.spec.sweep import Sweep
from cnnsearch.training import heads, train
from cnnsearch.training.compute import device
from tests.faults.running import SHORT
from tests.recorded import numbers

SWEEP = """
name: stopped
data: {image_size: 8, split: {method: fill, train_per_class: 6, val_per_class: 10}}
train: {model: residual, width: 0.05, epochs: 9, precision: fp32}
run: {dashboard: false, trials_at_once: 1, checkpoint_epochs: 2}
stages:
  - name: grid
    space: {lr: {loguniform: [0.0001, 0.1]}}
    search: {method: random, trials: 6}
    stop_early: {method: asha}
"""
HEADS = (
    "stages.grid.space={lr: {loguniform: [0.0001, 1.0]}, fine_tune: head, dropout: {choice: [0.0, 0.2]}}",
    "stages.grid.stop_early={method: asha, metric: val_loss}",
    "stages.grid.search.trials=10",
)


@pytest.fixture
def sweep(tmp_path: Path) -> Callable[..., Sweep]:
    (tmp_path / "stopped.yaml").write_text(SWEEP, encoding="utf-8")
    return lambda *values: load_sweep(tmp_path / "stopped.yaml", values=list(values))


def run(sweep: Sweep, out: Path, **options: Any) -> Finished:
    with prepared(sweep, out) as ready:
        return execute(ready, **{"serial": True, **options})


def records(finished: Finished) -> dict[str, Record]:
    return Results(finished.results).records()


def epochs_trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the epoch's number whenever one is trained in this process."""
    seen: list[int] = []
    first, all_heads = device.derived_seed, heads._train_epoch

    def counted(purpose: str, *parts: int) -> int:
        seen.extend(parts[1:] if purpose == "order" else ())
        return first(purpose, *parts)

    def counted_heads(state: Any, epoch: int, *rest: Any) -> Any:
        seen.extend([epoch] * len(state.settings))
        return all_heads(state, epoch, *rest)

    monkeypatch.setattr(train, "derived_seed", counted)
    monkeypatch.setattr(heads, "_train_epoch", counted_heads)
    return seen


@pytest.mark.usefixtures("shared_ray")
@pytest.mark.parametrize("kind", ["whole", "heads"])
@pytest.mark.after
def test_serial_and_ray_prune_the_same_trials_at_the_same_epochs(
    sweep: Callable[..., Sweep], tmp_path: Path, kind: str
) -> None:
    chosen = sweep(*(HEADS if kind == "heads" else ()))
    alone, ray = run(chosen, tmp_path / "serial"), run(chosen, tmp_path / "ray", serial=False)
    found = records(alone)
    pruned = [record for record in found.values() if record.status is Status.PRUNED]
    assert len(pruned) >= 2
    assert len(pruned) < len(found) == chosen.stages[0].search.trials
    for record in pruned:
        assert record.epochs_done in (1, 3)
        assert record.stopped_by == "asha"
        assert str(record.error).endswith(f" at epoch {record.epochs_done}")
        assert record.best_epoch is not None
        assert record.best_epoch <= record.epochs_done
        folder = Results(alone.results).trial(record.trial_id)
        assert [row["epoch"] for row in folder.epochs()] == list(range(1, record.epochs_done + 1))
        assert set(folder.predictions()) == {("val", "best"), ("test", "best")}
        assert not folder.weights_file.exists()
        assert not folder.checkpoint_file.exists()
    assert numbers(ray.results) == numbers(alone.results)
    assert ray.exit_code == alone.exit_code == 0


@pytest.mark.usefixtures("reports_in_words")
def test_pruned_trials_are_in_the_tables_and_never_the_best(sweep: Callable[..., Sweep], tmp_path: Path) -> None:
    finished = run(sweep(), tmp_path)
    trials = load(finished.results).trials
    pruned = trials[trials["status"] == "pruned"]
    assert (pruned["stopped_by"] == "asha").all()
    assert (pruned["epochs"] == 9).all()
    assert (pruned["epochs_done"] < 9).all()
    assert pruned["val_accuracy"].notna().all()
    assert (trials[trials["status"] == "done"]["epochs_done"] == 9).all()
    page = (finished.results / "report.md").read_text(encoding="utf-8")
    assert f"{len(pruned)} pruned" in page
    assert "asha: " in page


@pytest.mark.after
def test_elsewhere_a_pruned_trial_runs_to_its_end(sweep: Callable[..., Sweep], tmp_path: Path) -> None:
    """By the same ids and to the same numbers as if it had never been stopped; and then is done for all sweeps."""
    stopped = sweep()
    run(stopped, tmp_path / "a")
    with prepared(stopped, tmp_path / "a", dry_run=True) as ready:
        assert ready.remaining == 0
    whole = stopped.model_copy(
        update={"stages": (stopped.stages[0].model_copy(update={"stop_early": None}),), "name": "whole"}
    )
    with prepared(whole, tmp_path / "a", dry_run=True) as ready:
        assert ready.remaining == 6
    same = whole.model_copy(update={"name": "stopped"})
    with prepared(same, tmp_path / "a", dry_run=True) as ready:
        assert ready.remaining == sum(
            r.status is Status.PRUNED for r in Results(tmp_path / "a/stopped").records().values()
        )
    # What another sweep pruned is not taken over; what it finished is.
    finished = run(whole, tmp_path / "a")
    assert {record.status for record in records(finished).values()} == {Status.DONE}
    assert numbers(finished.results) == numbers(run(whole, tmp_path / "b").results)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("{method: asha}", "asha: one in 3 goes on from epochs 1, 3; about "),
        ("{method: asha, min_epochs: 3}", "asha: one in 3 goes on from epoch 3; about "),
    ],
)
def test_the_plan_says_where_trials_are_compared(
    sweep: Callable[..., Sweep], tmp_path: Path, rule: str, said: str
) -> None:
    with prepared(sweep(f"stages.grid.stop_early={rule}"), tmp_path, dry_run=True) as ready:
        (note,) = stopping_notes(ready, ready.plan.stages[0])
    assert note.startswith(said)


@pytest.mark.usefixtures("reports_in_words")
def test_a_trial_that_patience_stopped_can_be_the_best(sweep: Callable[..., Sweep], tmp_path: Path) -> None:
    """It was not compared with any other; that it had fewer epochs is said."""
    chosen = sweep(
        "stages.grid.stop_early={method: patience, patience: 2}", "stages.grid.search.trials=4", "train.epochs=40"
    )
    finished = run(chosen, tmp_path)
    found = list(records(finished).values())
    assert sum(record.status is Status.PRUNED for record in found) >= 3
    best = max(found, key=lambda record: record.best.val_accuracy if record.best else 0)
    assert best.status is Status.PRUNED
    page = " ".join((finished.results / "report.md").read_text(encoding="utf-8").split())
    assert (
        f"The winner is one of them: it was stopped after {best.epochs_done} of 40 epochs, having got no better."
        in page
    )
    assert Results(finished.results).trial(best.trial_id).has_weights()
    for record in records(finished).values():
        if record.status is Status.PRUNED:
            assert record.best_epoch is not None
            assert record.epochs_done == record.best_epoch + 2


@pytest.mark.after
def test_killed_in_the_middle_the_same_command_comes_to_the_same_end(
    sweep: Callable[..., Sweep], tmp_path: Path
) -> None:
    """Rungs are rebuilt from records: nothing runs on that the rungs before the kill would have stopped."""
    expected = numbers(run(sweep(), tmp_path / "undisturbed").results)
    out = tmp_path / "killed"
    command = [*SHORT, str(tmp_path / "stopped.yaml"), "--serial", "--out", str(out)]
    kills = 0
    for wanted in (1, 3, 5):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while len(list(out.glob("*/trials/*/record.json"))) < wanted and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(0.02)
        kills += process.poll() is None
        process.kill()
        process.wait()
    assert kills >= 2
    ended = {path: path.read_bytes() for path in out.glob("*/trials/*/record.json")}
    assert numbers(run(sweep(), out).results) == expected
    assert {path: path.read_bytes() for path in ended} == ended


@pytest.mark.after
def test_killed_under_ray_its_rungs_decide_in_the_next_run(
    sweep: Callable[..., Sweep], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A good trial passed its rung before the kill: one that comes there first in the next run is held against it."""
    rule = "stop_early: {method: asha, min_epochs: 20, reduction_factor: 10}"
    stage = f"stages=[{{name: grid, space: {{lr: {{grid: [LR]}}}}, {rule}}}]"
    values = (stage.replace("LR", "0.01"), "train.epochs=100")
    sets = [part for value in values for part in ("--set", value)]
    command = [*SHORT, str(tmp_path / "stopped.yaml"), "--out", str(tmp_path), *sets]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    trials, deadline = tmp_path / "stopped" / "trials", time.monotonic() + 90
    while not [file for file in trials.glob("*/epochs.jsonl") if len(file.read_text().splitlines()) >= 30]:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (good,) = trials.iterdir()
    assert not (good / "record.json").exists()
    while (good / "checkpoint.pt").stat().st_mtime > time.time() - 1:  # Ray's workers follow
        time.sleep(0.1)
    checkpoint = Results(tmp_path / "stopped").trial(good.name).load_checkpoint("model")
    assert checkpoint is not None
    seen = epochs_trained(monkeypatch)
    later = run(sweep(stage.replace("LR", "0.00001, 0.01"), "train.epochs=100"), tmp_path)
    by_lr = {record.settings.lr: record for record in records(later).values()}
    assert by_lr[0.00001].epochs_done == 20
    assert by_lr[0.00001].error == "asha: 2nd of 2 at epoch 20"
    assert by_lr[0.01].status is Status.DONE
    assert seen == [*range(1, 21), *range(checkpoint["rows"][-1]["epoch"] + 1, 101)]


@pytest.mark.usefixtures("reports_in_words")
@pytest.mark.after
def test_a_trial_ends_when_its_time_is_used_and_goes_on_with_more(
    sweep: Callable[..., Sweep], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = ("stages.grid={name: grid, space: {lr: 0.01, batch_size: {grid: [16, 32]}}}", "train.epochs=6")
    short = run(sweep(*values, "train.max_seconds=0.000001"), tmp_path / "a")
    assert short.exit_code == 0
    for record in records(short).values():
        assert (record.status, record.stopped_by, record.epochs_done) == (Status.PRUNED, "max_seconds", 1)
        assert str(record.error).startswith("max_seconds: ")
    assert "No answer: no trial was trained to its end" in (short.results / "report.md").read_text(encoding="utf-8")
    with prepared(sweep(*values, "train.max_seconds=0.000001"), tmp_path / "a", dry_run=True) as ready:
        assert ready.remaining == 0
    seen = epochs_trained(monkeypatch)
    whole = run(sweep(*values), tmp_path / "a")
    assert sorted(seen) == sorted([2, 3, 4, 5, 6] * 2)
    assert numbers(whole.results) == numbers(run(sweep(*values), tmp_path / "b").results)
    assert not list(tmp_path.glob("a/*/trials/*/checkpoint.pt"))


@pytest.mark.parametrize("kind", ["whole", "heads"])
@pytest.mark.after
def test_more_epochs_later_train_only_the_added_ones(
    sweep: Callable[..., Sweep], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    head = ", fine_tune: head" if kind == "heads" else ""
    values = (
        f"stages=[{{name: grid, space: {{lr: {{grid: [0.01, 0.03]}}{head}}}}}, "
        "{name: dropout, start_from: {stage: grid}, space: {dropout: {grid: [0.1, 0.2]}, lr: 0.002}}]",
        "run.keep=state",
    )
    run(sweep(*values, "train.epochs=4"), tmp_path / "a")
    with prepared(sweep(*values, "train.epochs=7"), tmp_path / "a", dry_run=True) as ready:
        assert list(ready.saved_epochs.values()) == [4, 4]
        longer = ready.costs["grid"].seconds
    with prepared(sweep(*values, "train.epochs=7"), tmp_path / "c", dry_run=True) as ready:
        assert longer < ready.costs["grid"].seconds
    straight = run(sweep(*values, "train.epochs=7"), tmp_path / "b")
    seen = epochs_trained(monkeypatch)
    later = run(sweep(*values, "train.epochs=7"), tmp_path / "a")
    of_seven = {id_: found for id_, found in numbers(later.results).items() if found[0]["settings"]["epochs"] == 7}
    assert of_seven == numbers(straight.results)
    # The later stage starts from another trial than before, so it is other work.
    assert sorted(seen) == sorted([5, 6, 7] * 2 + list(range(1, 8)) * 2)


def test_where_steps_depend_on_the_number_of_epochs_all_are_trained(
    sweep: Callable[..., Sweep], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = ("stages=[{name: grid, space: {lr_schedule: cosine}}]", "run.keep=state")
    run(sweep(*values, "train.epochs=2"), tmp_path)
    seen = epochs_trained(monkeypatch)
    run(sweep(*values, "train.epochs=3"), tmp_path)
    assert seen == [1, 2, 3]


@pytest.mark.usefixtures("reports_in_words", "shared_ray")
@pytest.mark.parametrize("serial", [True, False])
@pytest.mark.after
def test_at_most_so_many_trials_are_begun(sweep: Callable[..., Sweep], tmp_path: Path, serial: bool) -> None:
    values = ("stages=[{name: grid, space: {batch_size: {grid: [8, 16, 32, 64]}}}]", "train.epochs=1")
    first = run(sweep(*values), tmp_path, serial=serial, max_trials=3)
    assert (len(records(first)), first.left_for_later, first.exit_code) == (3, 1, 0)
    assert "1 not run" in (first.results / "report.md").read_text(encoding="utf-8")
    last = run(sweep(*values), tmp_path, max_trials=3)
    assert (len(records(last)), last.left_for_later, last.exit_code) == (4, 0, 0)


@pytest.mark.usefixtures("shared_ray")
@pytest.mark.parametrize("kind", ["whole", "heads", pytest.param("ray", marks=pytest.mark.after)])
def test_when_time_is_up_what_runs_is_saved(sweep: Callable[..., Sweep], tmp_path: Path, kind: str) -> None:
    head = "fine_tune: head, " if kind == "heads" else ""
    values = (f"stages=[{{name: grid, space: {{{head}lr: {{grid: [0.01, 0.03]}}}}}}]", "train.epochs=100000")
    chosen = sweep(*values, f"run={{dashboard: false, trials_at_once: {1 if kind == 'heads' else 2}}}")
    with prepared(chosen, tmp_path) as ready:
        queue = Queue(chosen, ready.dataset.fingerprint, {}, slots=ready.layout.trials_at_once)
        heard: set[str] = set()

        def listen(event: Event) -> None:
            if isinstance(event, EpochDone) and event.row.epoch >= 2:
                heard.add(event.trial.id)
                if len(heard) == (1 if kind == "whole" else 2):
                    queue.deadline = min(queue.deadline, time.monotonic())

        executor = schedule.execute if kind == "ray" else serial.execute
        executor(queue, shared_context(ready), ready.layout, chosen.run, listen)
        assert queue.is_time_up
        assert not queue.outcomes
        for trial_id in heard:
            folder = ready.results.here.trial(trial_id)
            state = folder.load_checkpoint("head" if kind == "heads" else "model")
            assert state is not None
            assert state["rows"][-1]["epoch"] == folder.epochs()[-1]["epoch"] >= 2


def test_what_time_left_for_later_is_said(sweep: Callable[..., Sweep], tmp_path: Path) -> None:
    finished = run(sweep("train.epochs=100000"), tmp_path, max_seconds=1.0)
    assert (finished.time_is_up, finished.left_for_later, finished.exit_code) == (True, 6, 0)


def test_a_sweep_with_rules_reads_back_as_it_was(sweep: Callable[..., Sweep], tmp_path: Path) -> None:
    chosen = sweep("stages.grid.stop_early={method: median, metric: val_loss, min_epochs: 3}", "train.max_seconds=9.5")
    (tmp_path / "again.yaml").write_text(to_yaml(chosen), encoding="utf-8")
    assert load_sweep(tmp_path / "again.yaml") == chosen
