"""Training the best settings again on fresh seeds: which ones, with which seeds, as which trials."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cnnsearch.errors import ResultsError
from cnnsearch.execution.machine.estimate import representatives
from cnnsearch.planning.confirm import Confirmation, first_round, fresh_seeds, near_best, settings_of
from cnnsearch.planning.plan import make_plan
from cnnsearch.planning.queue import Queue
from cnnsearch.planning.retention import needed
from cnnsearch.planning.trial import Outcome, Status, Trial
from cnnsearch.results.tables import load
from cnnsearch.spec.cells import Cell
from cnnsearch.spec.load import load_sweep
from cnnsearch.spec.sweep import Sweep
from tests.asking import ask
from tests.conftest import SMALL
from tests.faults.running import SHORT
from tests.recorded import numbers

DATA = "d" * 16
GRID = "stages=[{name: grid, space: {model: plain, lr: {grid: [0.1, 0.2, 0.3, 0.4]}}}]"


def by_lr(trial: Trial) -> Outcome:
    """A larger lr is better, and a later stage is better still."""
    return Outcome(Status.DONE, trial.settings.lr + 0.01 * trial.settings.dropout, 1.0)


class Asked:
    """A queue's `choose`: the contenders, and no further rounds."""

    def __init__(self, sweep: Sweep, images: int = 100) -> None:
        assert sweep.confirm is not None
        self.images, self.wanted = images, sweep.confirm.contenders

    def __call__(self, found: Confirmation, outcomes: Mapping[str, Outcome]) -> list[Cell]:
        if not found.is_open:
            return []
        return [first_round(found, outcomes, self.images, self.wanted)]


def run(
    sweep: Sweep,
    score: Callable[[Trial], Outcome] = by_lr,
    outcomes: Mapping[str, Outcome] | None = None,
    suggestions: dict[str, list[Cell]] | None = None,
    most: int | None = None,
) -> Queue:
    suggestions = {} if suggestions is None else suggestions
    queue = Queue(sweep, DATA, dict(outcomes or {}), choose=Asked(sweep), suggestions=suggestions, max_trials=most)
    while (job := queue.take()) is not None:
        for trial in job.trials:
            queue.finish(trial, score(trial))
    return queue


def confirmed(queue: Queue) -> list[Trial]:
    return [trial for trial in queue.plan.trials.values() if trial.stage == "confirm"]


def test_the_best_is_joined_by_all_that_validation_does_not_tell_from_it() -> None:
    scores = [0.70, 0.90, 0.88, 0.60, 0.90]
    assert near_best(scores, 100) == [1, 4, 2]
    assert near_best(scores, 10_000) == [1, 4]
    assert near_best(scores, 30) == [1, 4, 2, 0]
    assert near_best(scores, 0) == [1, 4, 2, 0, 3]
    assert near_best(scores, 100, 4) == [1, 4, 2, 0]


def test_at_least_two_and_at_most_five_are_contenders() -> None:
    assert near_best([0.1, 0.9], 10_000) == [1, 0]
    assert near_best([0.9], 10_000) == [0]
    assert near_best([0.5] * 9, 100) == [0, 1, 2, 3, 4]
    assert near_best([1.0, 0.0], 100) == [0, 1]


def test_fresh_seeds_are_those_above_all_that_were_used() -> None:
    assert fresh_seeds({0}, 3) == [1, 2, 3]
    assert fresh_seeds({7, 3}, 3) == [8, 9, 10]
    assert fresh_seeds({2**31 - 2, 1}, 4) == [2**31 - 1, 0, 2, 3]


def test_contenders_are_trained_again_when_all_has_ended() -> None:
    sweep = load_sweep("part1", values=[GRID], confirm=3)
    before = make_plan(sweep, DATA, {})
    assert [(s.stage.name, len(s.trials), s.waiting, s.is_at_most) for s in before.stages] == [
        ("grid", 4, 0, False),
        ("confirm", 0, 4 * 3, True),
    ]
    assert [trial.stage for trial in representatives(before)] == ["grid"] * 4 + ["confirm"] * 12
    queue = run(sweep)
    # Of 100 images 40 and 30 right may be luck, 20 are not.
    assert [(t.settings.lr, t.settings.seed) for t in confirmed(queue)] == [
        (lr, s) for lr in (0.4, 0.3) for s in (1, 2, 3)
    ]
    assert (queue.plan.total, queue.plan.waiting, len(queue.outcomes), queue.is_exhausted) == (10, 0, 10, True)
    assert not queue.plan.is_at_most


@pytest.mark.parametrize(
    "rounds",
    [
        [{"contenders": [0, 4]}],
        [{"contenders": [0, 0]}],
        [{"lr": 0.1}],
        [{"contenders": 2}],
        [{"contenders": [0, 1]}, {"contenders": [2], "seeds": 5}],
        [{"contenders": [0, 1]}, {"contenders": [1], "lost": [3], "seeds": 5}],
    ],
)
def test_rounds_that_fit_no_trials_are_named(rounds: list[Cell]) -> None:
    sweep = load_sweep("part1", values=[GRID], confirm=3)
    outcomes = {id_: by_lr(trial) for id_, trial in make_plan(sweep, DATA, {}).trials.items()}
    found = make_plan(sweep, DATA, outcomes).confirmation
    assert found is not None
    with pytest.raises(ResultsError, match=rf"studies/{found.study.id}\.jsonl: its rounds do not fit"):
        make_plan(sweep, DATA, outcomes, suggestions={found.study.id: rounds})


def test_ids_of_other_trials_stay_and_other_sweeps_have_no_such_stage() -> None:
    with_it, without = load_sweep("part1", confirm=3), load_sweep("part1")
    plan = make_plan(without, DATA, {})
    assert list(make_plan(with_it, DATA, {}).trials) == list(plan.trials)
    assert [stage.stage.name for stage in plan.stages] == ["grid", "dropout"]


def test_who_already_has_the_trials_trains_nothing_again() -> None:
    seeded = run(load_sweep("part1", values=[GRID], seeds=[0, 1, 2, 3], confirm=3))
    again = run(load_sweep("part1", values=[GRID], confirm=3), outcomes=seeded.outcomes)
    assert again.outcomes == seeded.outcomes
    assert [trial.settings.seed for trial in confirmed(again)] == [1, 2, 3] * 2


def test_more_seeds_are_no_other_choice_and_other_scores_are() -> None:
    suggestions: dict[str, list[Cell]] = {}
    three = run(load_sweep("part1", values=[GRID], confirm=3), suggestions=suggestions)
    five = run(load_sweep("part1", values=[GRID], confirm=5), outcomes=three.outcomes, suggestions=suggestions)
    assert len(suggestions) == 1
    assert set(three.plan.trials) < set(five.plan.trials)
    grid = {trial.id for trial in five.plan.stages[0].trials}
    low = {
        trial_id: replace(outcome, val_accuracy=0.1) for trial_id, outcome in five.outcomes.items() if trial_id in grid
    }
    other = run(
        load_sweep("part1", values=[GRID], confirm=5), outcomes={**five.outcomes, **low}, suggestions=suggestions
    )
    assert len(suggestions) == 2
    assert len(confirmed(other)) == 4 * 5


def test_what_starts_from_another_is_trained_again_from_the_start() -> None:
    sweep = load_sweep("part1", values=["stages.grid.space={model: plain, lr: {grid: [0.1, 0.6]}}"], confirm=3)
    queue = Queue(sweep, DATA, {}, choose=Asked(sweep))
    before = make_plan(sweep, DATA, {}).stages[-1]
    assert (before.waiting, before.is_at_most) == ((5 + 1) * 3, True)
    while (job := queue.take()) is not None:
        for trial in job.trials:
            parent = queue.plan.trials.get(trial.parent_id or "")
            assert parent is None or parent.id in queue.outcomes  # a child never runs before what it starts from
            queue.finish(trial, by_lr(trial))
    found = queue.plan.contenders
    # Four with dropout, and the one they continue, count as settings of their own.
    assert [(one.setting[0].stage, one.setting[0].settings.dropout) for one in found] == [
        ("dropout", 0.5), ("dropout", 0.25), ("dropout", 0.1), ("dropout", 0.01), ("grid", 0.0),
    ]  # fmt: skip
    assert len(confirmed(queue)) == 5 * 3  # the four share what they start from, which is the fifth
    for one in found[:4]:
        assert [trial.settings.seed for trial in one.again] == [1, 2, 3]
        assert {queue.plan.trials[trial.parent_id or ""].settings.seed for trial in one.again} == {1, 2, 3}
        assert {trial.parent_id for trial in one.again} == {trial.id for trial in found[4].again}


def test_children_of_what_failed_are_lost_and_the_rest_goes_on() -> None:
    sweep = load_sweep("part1", values=["stages.grid.space={model: plain, lr: 0.6}"], confirm=3)

    def score(trial: Trial) -> Outcome:
        is_start = trial.stage == "confirm" and trial.parent_id is None
        return Outcome(Status.DIVERGED) if is_start and trial.settings.seed == 2 else by_lr(trial)

    queue = run(sweep, score)
    assert (queue.plan.stages[-1].lost, queue.plan.waiting, queue.is_exhausted) == (4, 0, True)
    assert make_plan(sweep, DATA, queue.outcomes, suggestions=queue.suggestions) == queue.plan


def test_a_seed_on_an_axis_makes_no_setting_of_its_own() -> None:
    space = "stages=[{name: grid, space: {model: plain, lr: {grid: [0.1, 0.4]}, seed: {grid: [4, 9]}}}]"
    queue = run(load_sweep("part1", values=[space], confirm=3))
    assert [len(setting) for setting in settings_of({t.id: t for t in queue.plan.stages[0].trials})] == [2, 2]
    assert [trial.settings.seed for trial in confirmed(queue)] == [10, 11, 12] * 2


def test_only_settings_all_of_whose_seeds_finished_compete() -> None:
    def score(trial: Trial) -> Outcome:
        if trial.stage == "grid" and trial.settings.lr == 0.4 and trial.settings.seed == 1:
            return Outcome(Status.FAILED)
        if trial.stage == "grid" and trial.settings.lr == 0.3:
            return Outcome(Status.PRUNED, 0.9, 1.0, stopped_by="median")
        return by_lr(trial)

    values = [GRID, "stages.grid.stop_early={method: median}"]
    queue = run(load_sweep("part1", values=values, seeds=[0, 1], confirm=3), score)
    assert [one.setting[0].settings.lr for one in queue.plan.contenders] == [0.2, 0.1]
    assert not set(queue.plan.rules) & {trial.id for trial in confirmed(queue)}  # these are trained to their end


def test_where_nothing_finished_nothing_is_trained_again() -> None:
    queue = run(load_sweep("part1", values=[GRID], confirm=3), lambda trial: Outcome(Status.DIVERGED))
    assert (queue.plan.total, queue.plan.is_at_most, queue.is_exhausted) == (4, False, True)


@pytest.mark.parametrize("most", range(1, 16, 2))
def test_a_run_that_goes_on_ends_with_the_same_trials(most: int) -> None:
    sweep = load_sweep("part1", values=["stages.grid.space={model: plain, lr: {grid: [0.1, 0.6]}}"], confirm=3)
    whole = run(sweep)
    suggestions: dict[str, list[Cell]] = {}
    first = run(sweep, suggestions=suggestions, most=most)
    assert len(first.outcomes) == most
    second = run(sweep, outcomes=first.outcomes, suggestions=suggestions)
    assert (second.outcomes, second.plan) == (whole.outcomes, whole.plan)


def test_the_best_that_is_confirmed_keeps_its_weights() -> None:
    sweep = load_sweep("part1", values=["stages.grid.space={model: plain, lr: {grid: [0.1, 0.6]}}"], confirm=3)
    queue = run(sweep)
    kept = needed(sweep, queue.plan, queue.outcomes)
    best, *others = queue.plan.contenders
    assert {trial.id for trial in best.again} <= kept
    assert not {trial.id for one in others[:3] for trial in one.again} & kept
    middle = run(sweep, most=11)
    left = {trial.id for one in middle.plan.contenders for trial in one.again if trial.id not in middle.outcomes}
    starts = {trial_id for one in middle.plan.contenders for trial_id in one.starts}
    assert left
    assert starts <= needed(sweep, middle.plan, middle.outcomes)


def test_its_name_is_taken_only_where_it_is_used(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\nstages:\n  - {name: confirm, space: {lr: 0.1}}\n", encoding="utf-8")
    assert ask(file, "--dry-run", "--out", tmp_path).returncode == 0
    refused = ask(file, "--dry-run", "--out", tmp_path, "--confirm")
    assert refused.returncode == 2
    assert "'confirm' is the name of the stage that trains the best settings again" in refused.stderr


SETTINGS = [part for value in [*SMALL, GRID.replace(", 0.3, 0.4", "")] for part in ("--set", value)]
"""Two trials of a second or less."""


def sweep_in(folder: Path, *arguments: object) -> dict[str, Any]:
    answer = ask("part1", *SETTINGS, "--serial", "--out", folder, "--json", *arguments)
    assert answer.returncode == 0, answer.stderr
    return answer.told


def test_a_folder_without_it_gets_it_and_the_table_says_what_it_confirms(tmp_path: Path) -> None:
    assert sweep_in(tmp_path)["planned"] == 2
    planned = sweep_in(tmp_path, "--confirm", "3", "--dry-run")
    assert (planned["planned"], planned["planned_are"], planned["done"]) == (8, "at most", 2)
    assert planned["stages"]["confirm"]["to_run"] == 6
    assert planned["stages"]["confirm"]["seconds"] > 0
    told = sweep_in(tmp_path, "--confirm", "3")
    assert (told["planned"], told["counts"]["done"]) == (8, 8)
    tables = load(tmp_path / "part1")
    assert tables.sweep.confirm is not None
    rows = tables.trials
    fresh = rows[rows["stage"] == "confirm"]
    first = rows.set_index("trial_id")["lr"]
    assert sorted(fresh["seed"]) == [1, 1, 2, 2, 3, 3]
    assert [first[confirms] for confirms in fresh["confirms"]] == list(fresh["lr"])
    assert rows[rows["stage"] == "grid"]["confirms"].isna().all()
    assert sweep_in(tmp_path, "--confirm", "3", "--dry-run")["stages"]["confirm"]["to_run"] == 0
    assert sweep_in(tmp_path, "--confirm", "4", "--dry-run")["stages"]["confirm"]["to_run"] == 2
    # Without it, the same folder is what it was.
    assert sweep_in(tmp_path, "--dry-run")["planned"] == 2


@pytest.mark.after
def test_killed_among_its_trials_it_ends_with_the_same_numbers(tmp_path: Path) -> None:
    arguments = ["part1", *SETTINGS, "--set", "train.epochs=6", "--serial", "--confirm", "3"]
    process = subprocess.Popen([*SHORT, *arguments, "--out", str(tmp_path)], stdout=subprocess.DEVNULL)
    begun = tmp_path / "part1" / "trials"
    deadline = time.monotonic() + 100
    while process.poll() is None and time.monotonic() < deadline:
        stages = [json.loads(file.read_text())["stage"] for file in begun.glob("*/trial.json")]
        if stages.count("confirm") > 1:
            break
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 2 <= len(list(begun.glob("*/record.json"))) < 8
    for folder in (tmp_path, tmp_path / "undisturbed"):
        sweep_in(folder, "--set", "train.epochs=6", "--confirm", "3")
    assert numbers(tmp_path / "part1") == numbers(tmp_path / "undisturbed" / "part1")
