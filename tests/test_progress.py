from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from cnnsearch.execution.events import Ended, EpochDone, Ready, Started
from cnnsearch.execution.machine.estimate import Sizes
from cnnsearch.plan_text import Limits, batch_notes, plan_text
from cnnsearch.planning.trial import EpochRow, Status, Trial
from cnnsearch.prepare import Prepared, prepared
from cnnsearch.progress import LineView, State, finished_text
from cnnsearch.results.record import Measures, Record
from cnnsearch.results.tables import Tables
from cnnsearch.session import Finished
from cnnsearch.spec.load import load_sweep
from cnnsearch.spec.sweep import Sweep
from cnnsearch.telling import of_plan


@pytest.fixture
def ready(small_sweep: Callable[..., Sweep], tmp_path: Path) -> Iterator[Prepared]:
    with prepared(small_sweep("train.epochs=10"), tmp_path, dry_run=True) as found:
        yield found


def record(trial: Trial, accuracy: float | None) -> Record:
    best = accuracy and Measures(val_loss=1, val_accuracy=accuracy, test_loss=1, test_accuracy=accuracy)
    return Record(
        trial_id=trial.id,
        stage=trial.stage,
        settings=trial.settings,
        data=trial.data,
        status=Status.DONE if accuracy else Status.FAILED,
        error=None if accuracy else "broke",
        best=best or None,
        best_epoch=3,
        epochs_done=10,
        seconds=5,
    )


def row(epoch: int, seconds: float = 1.0) -> EpochRow:
    return EpochRow(epoch, 1.0, 0.5, 0.81, 0.715, 0.001, seconds)


def test_plan_says_what_will_be_done(ready: Prepared) -> None:
    text = plan_text(ready)
    assert text.startswith("part1 · CNN classifiers trained from scratch\n")
    assert "fashion-mini: 10 classes, 60 train / 40 validation / 1,600 test, resized to 8×8" in text
    assert " classes: t-shirt, trouser, pullover, dress, coat, sandal, shirt, sneaker, bag and ankle-boot\n" in text
    assert " split: in order: 6 training, then 4 validation images of each class; the rest is test\n" in text
    assert "8 trials   model 2 × lr 2 × batch_size 2   about" in text
    assert "8 trials   dropout 4, from the best of each model   about" in text
    assert "16 trials (0 already done), about" in text
    told = of_plan(ready)
    assert (told.planned, told.done, len(told.trials)) == (16, 0, 8)
    assert told.seconds > 8


def test_plan_says_where_the_last_image_joins_a_batch(ready: Prepared) -> None:
    timed = {key: {**found, "needs_company": True} for key, found in ready.calibration.workloads.items()}
    calibration = replace(ready.calibration, workloads=timed)
    assert not batch_notes(replace(ready, calibration=calibration), "grid")  # 60 images in batches of 16 and 32
    joined = replace(ready, calibration=calibration)
    joined.__dict__["sizes"] = Sizes(65, 40, 1600)
    assert batch_notes(joined, "grid") == [
        f"{model} at 8×8 with batch_size {size}: the last image joins the batch before it, as one alone cannot be "
        "normalised"
        for model in ("plain", "residual")
        for size in (16, 32)
    ]
    assert not batch_notes(ready, "grid")


def test_plan_says_how_cells_are_searched(small_sweep: Callable[..., Sweep], tmp_path: Path) -> None:
    space = "{lr: {loguniform: [0.001, 0.1]}, batch_size: {choice: [16, 32]}, model: plain}"
    how = "{method: nsga2, trials: 40, objectives: [val_accuracy, seconds]}"
    more = "{name: more, start_from: {stage: search}, space: {lr: {grid: [0.1, 0.2]}}}"
    sweep = small_sweep(f"stages=[{{name: search, space: {space}, search: {how}}}, {more}]", "seeds=[0, 1]")
    with prepared(sweep, tmp_path, dry_run=True) as ready:
        text = plan_text(ready)
        searched = "nsga2 over lr, batch_size for val_accuracy and seconds; 8 suggested at a time × seeds 2"
        assert f"80 trials   {searched}   abo" in text
        assert "4 trials   lr 2 × seeds 2, from the best   about" in text
        assert [ready.costs[name].trials for name in ("search", "more")] == [80, 4]
        # Forty times what the mean of two batch sizes takes, for each seed.
        each = [ready.calibration.seconds(trial.settings, ready.sizes) for trial in ready.plan.stages[0].typical]
        share = 80 * sum(each) / len(each) / ready.layout.trials_at_once
        assert ready.costs["search"].seconds == pytest.approx(share, rel=0.3)
        assert State(ready).seconds_left > 0.5 * share


def test_time_left_falls_to_nothing(ready: Prepared) -> None:
    """Also when the stage that waits turns out costlier or cheaper than thought."""
    now = [0.0]
    timed = {key: {**found, "step_seconds": 0.5} for key, found in ready.calibration.workloads.items()}
    ready = replace(ready, calibration=replace(ready.calibration, workloads=timed))
    state = State(ready, clock=lambda: now[0])
    left = [state.seconds_left]
    for trial in ready.plan.stages[0].trials:
        state.update(Started(trial))
        for epoch in range(1, 11):
            now[0] += 1
            state.update(EpochDone(trial, row(epoch)))
        state.update(Ended(trial, record(trial, 0.5)))
        left.append(state.seconds_left)
    parent = ready.plan.stages[0].trials[-1]
    for dropout in range(8):
        child = Trial("dropout", parent.settings.model_copy(update={"dropout": dropout / 10}), parent.data, parent.id)
        state.update(Started(child))
        state.update(Ended(child, record(child, 0.5)))
    assert left[0] > 0
    assert state.seconds_left == 0
    assert state.done == 16
    # One second an epoch, ten epochs, eight trials left on two slots, whatever the estimate said before; it takes the
    # smaller batches, with more steps, for those not known yet.
    assert left[8] == pytest.approx(8 * 10 / 2, rel=0.5)


def test_time_left_keeps_to_the_limits(ready: Prepared) -> None:
    now = [0.0]
    free, timed = State(ready, clock=lambda: now[0]), State(ready, Limits(seconds=1.5), clock=lambda: now[0])
    few = State(ready, Limits(trials=2), clock=lambda: now[0])
    assert free.seconds_left > 1.5 == timed.seconds_left
    assert few.seconds_left == pytest.approx(free.seconds_left / 8, rel=0.3)
    now[0] = 1
    assert timed.seconds_left == 0.5
    now[0] = 2
    assert timed.seconds_left == 0
    first, second, third = ready.plan.stages[0].trials[:3]
    for trial in (first, second):
        few.update(Started(trial))
        few.update(Ended(trial, record(trial, 0.5)))
    assert few.seconds_left == 0
    few.update(Ended(third, record(third, 0.5)))  # another sweep has done it
    assert few.done == 3


def test_a_trial_of_two_stages_counts_in_both_and_once_in_all(
    small_sweep: Callable[..., Sweep], tmp_path: Path
) -> None:
    space = "space: {model: plain, lr: {grid: [0.001, 0.01]}}"
    sweep = small_sweep(f"stages=[{{name: one, {space}}}, {{name: two, {space}}}]")
    with prepared(sweep, tmp_path, dry_run=True) as ready:
        state = State(ready)
        for trial in ready.plan.trials.values():
            state.update(Started(trial))
            state.update(Ended(trial, record(trial, 0.5)))
    assert [state.done_of(stage) for stage in state.plan.stages] == [2, 2]
    assert state.done == state.plan.total == 2
    assert state.seconds_left == 0


def test_lines_one_an_event(ready: Prepared) -> None:
    lines: list[str] = []
    view = LineView(ready, lines.append)
    trial = ready.plan.stages[0].trials[0]
    view(Ready("http://127.0.0.1:8265", "/tmp/cnns-x/token"))
    view(Started(trial))
    view(EpochDone(trial, row(1)))
    view(Ended(trial, record(trial, 0.715)))
    view(Ended(ready.plan.stages[0].trials[1], record(ready.plan.stages[0].trials[1], None)))
    assert len(lines) == 4
    assert lines[0].endswith("dashboard http://127.0.0.1:8265 (token in /tmp/cnns-x/token)")
    assert "grid: started plain, lr 0.0001, batch 16" in lines[1]
    # 71.5 % of 40 validation images is 29 of them: Wilson 0.571 to 0.839.
    assert "done, val 71.5 % (57.2–83.9) at epoch 3, 5 s (1 of 16, about" in lines[2]
    assert "failed: broke" in lines[3]


def test_the_end_is_told_honestly(tmp_path: Path) -> None:
    empty = pd.DataFrame()
    tables = Tables(tmp_path, empty, empty, empty, load_sweep("part1"), {}, {}, {}, planned=16)
    finished = Finished(tables, {"done": 9, "failed": 2, "diverged": 1}, 161, tmp_path / "report.html")
    text = finished_text(finished, [("best", "residual")])
    assert text.startswith("9 of 16 trials done in 2 min 41 s; 2 failed, 1 diverged, 4 could not start\nbest")
    assert finished.exit_code == 1
    assert Finished(tables, {"done": 16}, 1, None).exit_code == 0
    assert Finished(tables, {"done": 12}, 1, None).exit_code == 1
    assert Finished(tables, {"done": 12}, 1, None, time_is_up=True).exit_code == 0
