"""Plans, queues and runs of stages whose cells a searcher suggests."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

import cnnsearch
from cnnsearch.data.dataset import Dataset
from cnnsearch.errors import ResultsError
from cnnsearch.execution import serial
from cnnsearch.execution.context import Choices, SharedContext
from cnnsearch.execution.events import Ended, Event, Started
from cnnsearch.execution.machine.estimate import Calibration, Sizes, representatives, workload_key
from cnnsearch.inputs import image_sizes, named_weights
from cnnsearch.planning.plan import make_plan
from cnnsearch.planning.queue import Queue
from cnnsearch.planning.search import Ending, Told
from cnnsearch.planning.suggest import Suggester, of_suggestion
from cnnsearch.planning.trial import Outcome, Status, Trial
from cnnsearch.results.folder import Results
from cnnsearch.spec.load import from_yaml, load_sweep, to_yaml
from cnnsearch.spec.settings import Settings
from cnnsearch.spec.sweep import Sweep
from tests.asking import ask
from tests.conftest import SMALL
from tests.execution.test_executors import LAYOUT
from tests.faults.running import SHORT
from tests.recorded import numbers

DATA = "d" * 16
SPACE = "{model: {choice: [plain, residual]}, lr: {loguniform: [0.0001, 0.1]}, dropout: {uniform: [0, 0.5]}}"


def searching(
    search: str = "{method: tpe, trials: 16, at_once: 3}", *more: str, space: str = SPACE, **kw: Any
) -> Sweep:
    stages = [f"{{name: search, space: {space}, search: {search}}}", *more]
    return load_sweep("part1", values=[*SMALL, f"stages=[{', '.join(stages)}]"], **kw)


def score(trial: Trial) -> Outcome:
    """Some trials go wrong; the others' results follow from their settings."""
    kind = int(trial.id, 16) % 11
    if kind == 0:
        return Outcome(Status.DIVERGED)
    value = trial.settings.lr * 5 + trial.settings.dropout
    return Outcome(Status.DONE, value, 1 - value, seconds=1 + value, parameters=10, bytes=40 + kind)


def in_folder(path: Path) -> Results:
    results = Results(path)
    results.trials_path.mkdir(parents=True, exist_ok=True)
    return results


def finish_all(
    sweep: Sweep, results: Results, outcomes: dict[str, Outcome], rng: random.Random | None = None, stop_after: int = -1
) -> Queue:
    """Run as an executor would, with several trials at a time that end in any order."""
    rng = rng or random.Random(0)
    queue = Queue(
        sweep, DATA, outcomes, slots=4, suggestions=results.suggestions(), suggest=Suggester(results.record_suggestions)
    )
    running: list[Trial] = []
    while True:
        while len(running) < 4 and (job := queue.take()) is not None:
            running += job.trials
        if not running or stop_after == 0:
            return queue
        trial = running.pop(rng.randrange(len(running)))
        queue.finish(trial, score(trial))
        stop_after -= 1


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Queue:
    return finish_all(searching(), in_folder(tmp_path_factory.mktemp("undisturbed")), {})


@settings(max_examples=12, deadline=None)
@given(rng=st.randoms(use_true_random=False), stops=st.lists(st.integers(1, 10), max_size=3))
def test_neither_order_nor_stops_change_the_trials(
    undisturbed: Queue, tmp_path_factory: pytest.TempPathFactory, rng: random.Random, stops: list[int]
) -> None:
    results = in_folder(tmp_path_factory.mktemp("disturbed"))
    outcomes: dict[str, Outcome] = {}
    for stop in [*stops, -1]:
        queue = finish_all(searching(), results, outcomes, rng, stop)
    assert list(queue.plan.trials) == list(undisturbed.plan.trials)
    assert queue.outcomes == undisturbed.outcomes
    assert (queue.plan.total, queue.plan.waiting) == (16, 0)


def test_lost_suggestions_come_out_the_same(undisturbed: Queue, tmp_path: Path) -> None:
    results = in_folder(tmp_path)
    finish_all(searching(), results, {})
    (file,) = (tmp_path / "studies").iterdir()
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:5]) + b"junk\n" + b"".join(lines[6:]))
    assert results.set_damaged_aside() == [f"studies/{file.name}"]
    again = finish_all(searching(), results, dict(undisturbed.outcomes))
    assert list(again.plan.trials) == list(undisturbed.plan.trials)
    assert file.read_bytes() == b"".join(lines)


def test_never_more_in_flight_than_at_once_and_each_is_recorded_before_it_runs(tmp_path: Path) -> None:
    results = in_folder(tmp_path)
    queue = Queue(searching(), DATA, {}, slots=16, suggest=Suggester(results.record_suggestions))
    for _ in range(4):
        running: list[Trial] = []
        while (job := queue.take()) is not None:
            running += job.trials
        assert len(running) == 3
        (recorded,) = results.suggestions().values()
        assert {trial.settings.lr for trial in queue.plan.trials.values()} == {one["lr"] for one in recorded}
        for trial in running:
            queue.finish(trial, score(trial))
    assert queue.plan.waiting == 1


def test_more_trials_go_on_from_those_there_are_and_fewer_use_the_first(undisturbed: Queue, tmp_path: Path) -> None:
    results = in_folder(tmp_path)
    outcomes: dict[str, Outcome] = {}
    finish_all(searching("{method: tpe, trials: 10, at_once: 3}"), results, outcomes)
    grown = finish_all(searching(), results, outcomes)
    assert list(grown.plan.trials) == list(undisturbed.plan.trials)
    fewer = Queue(
        searching("{method: tpe, trials: 4, at_once: 3}"),
        DATA,
        outcomes,
        suggestions=results.suggestions(),
        suggest=Suggester(results.record_suggestions),
    )
    assert list(fewer.plan.trials) == list(undisturbed.plan.trials)[:4]
    assert fewer.is_exhausted


@pytest.mark.parametrize(
    "value",
    [
        "stages.search.search.seed=1",
        "stages.search.search.at_once=2",
        "stages.search.search.objectives=[val_loss]",
        "stages.search.space.lr.loguniform=[0.001, 0.1]",
        "train.epochs=3",
        "seeds=[1, 2]",
    ],
)
def test_another_question_is_another_study(tmp_path: Path, value: str) -> None:
    results = in_folder(tmp_path)
    finish_all(searching(), results, {})
    before = {file: file.read_bytes() for file in (tmp_path / "studies").iterdir()}
    changed = load_sweep("part1", values=[*SMALL, f"stages=[{to_stage(searching())}]", value])
    finish_all(changed, results, {}, stop_after=2)
    assert len(results.suggestions()) == 2
    assert all(file.read_bytes() == stored for file, stored in before.items())


def to_stage(sweep: Sweep) -> str:
    return json.dumps(sweep.to_dict()["stages"][0])


def test_what_decides_nothing_begins_no_new_study() -> None:
    (study,) = make_plan(searching(), DATA, {}).stages[0].studies
    changes = ["train.lr=0.5", "train.momentum=0.1", "title=x", "stages.search.search.trials=99", "run.max_retries=0"]
    same = load_sweep("part1", values=[*SMALL, f"stages=[{to_stage(searching())}]", *changes])
    (other,) = make_plan(same, DATA, {}).stages[0].studies
    assert other.id == study.id
    # Golden: another id would begin everybody's searches anew.
    assert study.id == "656b264b6441a1d0"


def test_a_suggestion_is_told_the_mean_over_its_seeds() -> None:
    sweep = searching(seeds=[0, 1])
    (empty,) = make_plan(sweep, DATA, {}).stages[0].studies
    suggestion = {"model": "plain", "lr": 0.01, "dropout": 0.1}
    (study,) = make_plan(sweep, DATA, {}, suggestions={empty.id: [suggestion]}).stages[0].studies
    assert [trial.settings.seed for trial in study.trials[0]] == [0, 1]

    def told(*outcomes: Outcome) -> Told:
        return of_suggestion(study, 0, dict(zip((trial.id for trial in study.trials[0]), outcomes, strict=True)))

    good, better = Outcome(Status.DONE, 0.5, 1.0), Outcome(Status.DONE, 0.75, 1.0)
    assert told(good, better) == Told(Ending.COMPLETE, (0.625,))
    assert told(good, Outcome(Status.DIVERGED)) == Told(Ending.DIVERGED)
    assert told(Outcome(Status.DIVERGED), Outcome(Status.FAILED)) == Told(Ending.FAILED)
    assert told(good, replace(better, status=Status.PRUNED)) == Told(Ending.PRUNED, (0.625,))
    assert told(good, Outcome(Status.PRUNED)) == Told(Ending.FAILED)


def test_a_suggestion_that_the_space_does_not_hold_is_named() -> None:
    sweep = searching()
    (empty,) = make_plan(sweep, DATA, {}).stages[0].studies
    with pytest.raises(ResultsError, match=rf"studies/{empty.id}\.jsonl: a suggestion is no cell of stage"):
        make_plan(sweep, DATA, {}, suggestions={empty.id: [{"lr": "x"}]})


def test_repeated_suggestions_are_one_trial_and_win_nothing_by_it(tmp_path: Path) -> None:
    space = "{optimizer: {choice: [adam, sgd, adamw]}, model: plain}"
    more = "{name: more, start_from: {stage: search}, space: {dropout: {grid: [0.1, 0.2]}}}"
    sweep = searching("{method: tpe, trials: 12, at_once: 2}", more, space=space)
    queue = finish_all(sweep, in_folder(tmp_path), {})
    assert len(queue.plan.stages[0].trials) == queue.plan.stages[0].total == 3
    assert len(queue.plan.stages[1].trials) == 2
    assert queue.is_exhausted


def test_a_stage_waits_for_the_whole_search_it_starts_from(tmp_path: Path) -> None:
    more = (
        "{name: more, start_from: {stage: search, per: model}, space: {lr: {loguniform: [0.001, 0.1]}}, "
        "search: {method: tpe, trials: 5, at_once: 2}}"
    )
    sweep = searching("{method: tpe, trials: 6, at_once: 2}", more, seeds=[0, 1])
    plan = make_plan(sweep, DATA, {})
    assert [stage.total for stage in plan.stages] == [6 * 2, 5 * 2 * 2]
    assert len(representatives(plan)) == plan.total
    results = in_folder(tmp_path)
    queue = finish_all(sweep, results, {}, stop_after=7)
    assert not queue.plan.stages[1].studies
    queue = finish_all(sweep, results, dict(queue.outcomes))
    search, after = queue.plan.stages
    assert (search.total, queue.plan.waiting) == (12, 0)
    groups = {study.group for study in after.studies}
    assert groups == {(model,) for model in {trial.settings.model for trial in search.trials}}
    assert all(len(study.suggestions) == 5 for study in after.studies)
    # Each group has draws of its own.
    assert len({study.suggestions[0]["lr"] for study in after.studies}) == len(groups)
    by_id = queue.plan.trials
    assert all(by_id[str(trial.parent_id)].settings.seed == trial.settings.seed for trial in after.trials)


def test_children_of_nothing_are_lost(tmp_path: Path) -> None:
    more = "{name: more, start_from: {stage: search}, space: {lr: {loguniform: [0.001, 0.1]}}, search: %s}"
    sweep = searching("{method: tpe, trials: 2}", more % "{method: tpe, trials: 5}")
    queue = Queue(sweep, DATA, {}, suggest=Suggester(in_folder(tmp_path).record_suggestions))
    while (job := queue.take()) is not None:
        queue.finish(job.trials[0], Outcome(Status.DIVERGED))
    assert (queue.plan.lost, queue.plan.waiting, queue.is_exhausted) == (5, 0, True)


def test_every_workload_that_can_come_is_stood_in_for() -> None:
    space = (
        "{model: {choice: [plain, residual]}, batch_size: {int: [8, 64]}, width: {uniform: [0.05, 0.1]}, "
        "image_size: {choice: [8, 16]}, weights: {choice: [none, a.pth], when: {model: [residual]}}}"
    )
    sweep = searching("{method: tpe, trials: 100}", space=space)
    assert image_sizes(sweep) == [8, 16]
    assert named_weights(sweep) == {("residual", "a.pth")}
    stand_ins = representatives(make_plan(sweep, DATA, {}, {("residual", "a.pth"): "digest"}))
    assert len(stand_ins) == 100
    assert len({workload_key(trial.settings) for trial in stand_ins}) == 16
    assert {trial.settings.model for trial in stand_ins} == {"plain", "residual"}
    # Only the ends of a range are timed, in the proportion that gives its mean.
    assert {trial.settings.batch_size for trial in stand_ins} == {8, 64}
    assert sum(trial.settings.batch_size for trial in stand_ins) / 100 == pytest.approx(36, rel=0.3)


def test_a_size_that_was_not_timed_goes_by_the_nearest() -> None:
    timed = {"eval_image_seconds": 0.0, "prefix_image_seconds": 0.0}
    known = {
        workload_key(Settings(model="plain", batch_size=8)): {**timed, "step_seconds": 1.0},
        workload_key(Settings(model="plain", batch_size=64)): {**timed, "step_seconds": 4.0},
    }
    calibration = Calibration("fp32", known)

    def step(**values: Any) -> float:
        return calibration.epoch_seconds(Settings(**values), Sizes(1, 0, 0))

    assert step(model="plain", batch_size=16) == pytest.approx(2.0)
    assert step(model="plain", batch_size=32) == pytest.approx(2.0)
    assert step(model="plain", batch_size=64, width=2.0) == pytest.approx(16.0)
    assert step(model="residual") == 0


def run_serial(sweep: Sweep, dataset: Dataset, path: Path) -> Queue:
    results = in_folder(path)
    place = SharedContext(path, {(8, "bilinear"): dataset}, Choices("cpu", 1, "fp32"), checkpoint_seconds=0)
    queue = Queue(
        sweep, dataset.fingerprint, {}, suggestions=results.suggestions(), suggest=Suggester(results.record_suggestions)
    )
    serial.execute(queue, place, LAYOUT, sweep.run, lambda event: None)
    return queue


def test_trials_say_what_objectives_need(dataset: Dataset, tmp_path: Path) -> None:
    space = "{width: {choice: [0.05, 0.1]}, fine_tune: {choice: [full, head]}, model: residual}"
    how = "{method: nsga2, trials: 6, at_once: 2, objectives: [val_accuracy, seconds, parameters, bytes]}"
    queue = run_serial(searching(how, space=space), dataset, tmp_path)
    assert all(outcome.seconds and outcome.parameters for outcome in queue.outcomes.values())
    sizes = {}
    for trial in queue.plan.trials.values():
        sizes[trial.settings.width, trial.settings.fine_tune] = queue.outcomes[trial.id]
    for (width, fine_tune), outcome in sizes.items():
        other = sizes.get((width, "full"))
        assert outcome.bytes
        assert outcome.parameters
        if fine_tune == "head" and other is not None:
            assert outcome.bytes == other.bytes
            assert outcome.parameters < (other.parameters or 0)


COMMAND = [*SHORT, "mine.yaml", "--serial"]


@pytest.mark.after
def test_a_killed_search_goes_on_to_the_same_trials(tmp_path: Path) -> None:
    sweep = searching("{method: tpe, trials: 14, at_once: 2}")
    (tmp_path / "mine.yaml").write_text(to_yaml(sweep), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}

    def start(out: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*COMMAND, "--out", out], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    def run(out: str) -> None:
        ended = ask(tmp_path / "mine.yaml", "--serial", "--out", tmp_path / out)
        assert ended.returncode == 0, ended.stderr

    run("whole")
    process = start("killed")
    records = tmp_path / "killed" / sweep.name / "trials"
    while process.poll() is None and len(list(records.glob("*/record.json"))) < 6:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 6 <= len(list(records.glob("*/record.json"))) < 14
    run("killed")
    tables = [pd.read_parquet(tmp_path / out / sweep.name / "trials.parquet") for out in ("whole", "killed")]
    same = ["trial_id", "lr", "dropout", "model", "status", "val_loss", "val_accuracy", "model_bytes"]
    pd.testing.assert_frame_equal(tables[0][same], tables[1][same])
    studies = [Results(tmp_path / out / sweep.name).suggestions() for out in ("whole", "killed")]
    assert studies[0] == studies[1]


def test_a_resolved_search_reads_back_equal() -> None:
    sweep = searching("{method: nsga2, trials: 9, at_once: 5, objectives: [val_loss, bytes]}")
    assert from_yaml(to_yaml(sweep), "sweep.yaml") == sweep


@pytest.mark.usefixtures("shared_ray")
@pytest.mark.after
def test_ray_and_serial_suggest_the_same(dataset: Dataset, tmp_path: Path) -> None:
    from cnnsearch.execution.on_ray import schedule

    sweep = searching("{method: tpe, trials: 13, at_once: 2}")
    alone = run_serial(sweep, dataset, tmp_path / "serial")
    results = in_folder(tmp_path / "ray")
    place = SharedContext(results.path, {(8, "bilinear"): dataset}, Choices("cpu", 1, "fp32"), checkpoint_seconds=0)
    queue = Queue(sweep, dataset.fingerprint, {}, suggest=Suggester(results.record_suggestions))
    schedule.execute(queue, place, LAYOUT, sweep.run, lambda event: None)
    assert list(queue.plan.trials) == list(alone.plan.trials)
    assert results.suggestions() == Results(tmp_path / "serial").suggestions()
    assert numbers(tmp_path / "ray") == numbers(tmp_path / "serial")


def test_what_another_sweep_trained_is_not_trained_again(tmp_path: Path) -> None:
    """Also where it is named only while the sweep runs; its weights are there where a later stage starts from it."""
    sweep = searching("{method: tpe, trials: 6, at_once: 2}")
    first = cnnsearch.run(sweep, tmp_path, serial=True)
    events: list[Event] = []
    again = cnnsearch.run(sweep.with_values({"name": "other"}), tmp_path, serial=True, listen=events.append)
    assert list(again.trials["trial_id"]) == list(first.trials["trial_id"])
    assert not any(isinstance(event, Started) for event in events)
    assert sum(isinstance(event, Ended) for event in events) == again.planned == 6
    more = "{name: more, start_from: {stage: search}, space: {lr: {uniform: [0.001, 0.1]}}, search: %s}"
    longer = searching("{method: tpe, trials: 6, at_once: 2}", more % "{method: tpe, trials: 2}")
    last = cnnsearch.run(longer.with_values({"name": "longer"}), tmp_path, serial=True)
    assert list(last.trials["status"]) == ["done"] * 8
    assert set(first.trials["trial_id"]) < set(last.trials["trial_id"])
