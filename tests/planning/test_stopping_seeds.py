"""Stopping rules in sweeps with several seeds: a setting goes on or stops as a whole. Without training, but for one."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from cnnsearch.planning.confirm import settings_of
from cnnsearch.planning.decisions import Note
from cnnsearch.planning.plan import best_cell
from cnnsearch.planning.queue import Queue
from cnnsearch.planning.retention import needed
from cnnsearch.planning.stopping import Stopper
from cnnsearch.planning.suggest import Suggester
from cnnsearch.planning.trial import EpochRow, Outcome, Status, Trial
from cnnsearch.prepare import prepared
from cnnsearch.results.folder import Results
from cnnsearch.session import execute
from cnnsearch.spec.load import load_sweep
from cnnsearch.spec.stage import Asha, Median, Patience
from cnnsearch.spec.sweep import Sweep
from tests.conftest import SMALL
from tests.recorded import numbers

EPOCHS = 9
RULES = ["{method: asha}", "{method: hyperband}", "{method: median}"]
SPACE = "{lr: {loguniform: [0.0001, 0.1]}, dropout: {uniform: [0, 0.5]}}"
HEADS = f"{SPACE[:-1]}, fine_tune: head}}"
PRETRAINED = f"{SPACE[:-1]}, fine_tune: head, model: resnet18, width: 1.0, weights: imagenet}}"
DIVERGED, FAILED = "diverged", "failed"


def sweep_of(rule: str, search: str = "random", trials: int = 20, space: str = SPACE, seeds: Any = (0, 1, 2)) -> Sweep:
    stage = f"{{name: grid, space: {space}, search: {{method: {search}, trials: {trials}}}, stop_early: {rule}}}"
    return load_sweep("part1", values=[*SMALL, f"stages=[{stage}]", f"train.epochs={EPOCHS}"], seeds=seeds)


def setting_of(trial: Trial) -> str:
    return f"{trial.settings.lr} {trial.settings.dropout}"


def accuracy(trial: Trial, epoch: int) -> float:
    """Settings differ, seeds differ as much, and curves cross."""
    quality, luck = random.Random(setting_of(trial)), random.Random(f"{setting_of(trial)} {trial.settings.seed}")
    speed = quality.uniform(0.2, 1.5)
    level = 0.4 + 0.3 * quality.random() + 0.2 * luck.random()
    return level * (1 - math.exp(-speed * epoch)) + 0.02 * random.Random(f"{trial.id} {epoch}").random()


def no_trouble(trial: Trial, epoch: int) -> str:
    return ""


class KilledError(Exception):
    pass


class Run:
    """Runs made-up trials as executors do; what is recorded stays when it is killed."""

    def __init__(self, sweep: Sweep, folder: Path, trouble: Callable[[Trial, int], str] = no_trouble) -> None:
        self.sweep, self.results, self.trouble = sweep, Results(folder), trouble
        self.results.trials_path.mkdir(parents=True, exist_ok=True)
        self.rows: dict[str, list[dict[str, float]]] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.reasons: dict[str, str] = {}
        self.trained: Counter[str] = Counter()
        self.jobs: list[list[str]] = []
        self.notes: list[Note] = []

    def go(
        self, slots: int = 1, rng: random.Random | None = None, kill_after: float = math.inf, most: int | None = None
    ) -> Queue:
        """Run to the end, or to the first event too many; with several slots, trials take turns at random."""
        rng = rng or random.Random(0)
        queue = Queue(
            self.sweep,
            "d" * 16,
            weights={("resnet18", "imagenet"): "e" * 16},
            outcomes={id_: ended for id_, ended in self.outcomes.items() if ended.status is not Status.FAILED},
            slots=slots,
            history=lambda trial_id: list(self.rows.get(trial_id, ())),
            notes=list(self.notes),
            record=self.notes.extend,
            suggestions=self.results.suggestions(),
            suggest=Suggester(self.results.record_suggestions),
            max_trials=most,
        )
        jobs: list[Any] = []
        while True:
            while (job := queue.take()) is not None:
                jobs.append((job, self._job(queue, job.trials)))
            if not jobs:
                assert queue.is_exhausted
                self.outcomes = dict(queue.outcomes)
                return queue
            job, steps = chosen = rng.choice(jobs)
            if next(steps, None) is None:
                jobs.remove(chosen)
                queue.leave(trial for trial in job.trials if trial.id not in queue.outcomes)
            kill_after -= 1
            if kill_after < 0:
                self.outcomes = dict(queue.outcomes)
                raise KilledError

    def _job(self, queue: Queue, trials: tuple[Trial, ...]) -> Any:
        running = [self._trial(queue, trial) for trial in trials]
        self.jobs.append([trial.id for trial in trials])
        if trials[0].settings.fine_tune == "head":  # side by side
            while running:
                running = [steps for steps in running if next(steps, None)]
                yield True
        for steps in running:
            yield from steps

    def _trial(self, queue: Queue, trial: Trial) -> Any:
        rows = self.rows.setdefault(trial.id, [])
        for row in list(rows):  # as a worker tells them again
            value, at = row["val_accuracy"], int(row["epoch"])
            queue.hear(trial, EpochRow(at, 1.0, value, 1 - value, value, 0.1, 1.0))
            queue.commit()
        if trial.id in queue.waits and queue.waits[trial.id] <= len(rows):
            return
        while True:
            epoch, best = len(rows), max((row["val_accuracy"] for row in rows), default=0.0)
            stop = queue.stops.get(trial.id)
            if stop and stop.epoch <= epoch < EPOCHS:
                self.reasons[trial.id] = stop.reason
                queue.finish(trial, Outcome(Status.PRUNED, best, 1 - best, stopped_by=stop.rule))
            elif epoch == EPOCHS:
                queue.finish(trial, Outcome(Status.DONE, best, 1 - best))
            elif (trouble := self.trouble(trial, epoch + 1)) != "":
                queue.finish(trial, Outcome(Status.DIVERGED if trouble == DIVERGED else Status.FAILED))
            else:
                value = accuracy(trial, epoch + 1)
                rows.append({"epoch": epoch + 1, "val_accuracy": value})
                self.trained[trial.id] += 1
                queue.hear(trial, EpochRow(epoch + 1, 1.0, value, 1 - value, value, 0.1, 1.0))
                queue.commit()
                yield True
                if trial.id in queue.waits and queue.waits[trial.id] <= epoch + 1:
                    return
                continue
            yield True
            return

    def by_setting(self, queue: Queue) -> list[list[Trial]]:
        return [list(setting) for setting in settings_of(queue.plan.trials)]

    def survivors(self, queue: Queue) -> set[str]:
        return {setting_of(trial) for trial in queue.plan.trials.values() if self.status(trial) is Status.DONE}

    def status(self, trial: Trial) -> Status:
        return self.outcomes[trial.id].status

    def summary(self) -> dict[str, Any]:
        return {id_: (outcome, self.reasons.get(id_), self.rows[id_]) for id_, outcome in self.outcomes.items()}


def check_whole(run: Run, queue: Queue) -> None:
    """Every setting has all its seeds or none, and what wins by its mean has all."""
    assert len(run.outcomes) == queue.plan.total
    whole = stopped = 0
    for members in run.by_setting(queue):
        statuses = {run.status(trial) for trial in members}
        assert len(members) == 3
        assert len(statuses) == 1
        assert len({len(run.rows[trial.id]) for trial in members}) == 1
        whole += statuses == {Status.DONE}
        stopped += statuses == {Status.PRUNED}
    assert whole >= 1
    assert stopped >= 3
    winner = best_cell(queue.plan.trials.values(), run.outcomes, "val_accuracy")
    assert len(winner) == 3
    best = max(
        fmean(run.outcomes[trial.id].val_accuracy or 0.0 for trial in members)
        for members in run.by_setting(queue)
        if all(run.status(trial) is Status.DONE for trial in members)
    )
    assert fmean(run.outcomes[trial.id].val_accuracy or 0.0 for trial in winner) == best


@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize("search", ["random", "tpe"])
@pytest.mark.parametrize("rule", RULES)
def test_a_setting_has_all_its_seeds_or_none(tmp_path: Path, rule: str, search: str, slots: int) -> None:
    run = Run(sweep_of(rule, search), tmp_path)
    check_whole(run, run.go(slots))
    assert sum(run.trained.values()) < 0.8 * 60 * EPOCHS


def test_heads_of_other_layers_wait_together(tmp_path: Path) -> None:
    """Layers that start at random differ between seeds, so each seed's heads are a job."""
    run = Run(sweep_of("{method: asha}", space=HEADS), tmp_path)
    check_whole(run, run.go())
    assert [len(job) for job in run.jobs[:3]] == [16, 16, 16]


def test_heads_that_train_together_stop_together_and_wait_for_none(tmp_path: Path) -> None:
    run = Run(sweep_of("{method: asha}", space=PRETRAINED), tmp_path)
    queue = run.go()
    check_whole(run, queue)
    first = queue.plan.stages[0].trials[:3]
    assert {trial.id for trial in first} <= set(run.jobs[0])
    assert max(map(len, run.jobs)) > 9
    assert sorted(id_ for job in run.jobs for id_ in job) == sorted(queue.plan.trials)  # each was begun once


@settings(max_examples=20, deadline=None)
@given(
    rng=st.randoms(use_true_random=False), rule=st.sampled_from(RULES), kills=st.lists(st.integers(1, 120), max_size=3)
)
def test_whatever_the_order_settings_stay_whole(
    tmp_path_factory: pytest.TempPathFactory, rng: random.Random, rule: str, kills: list[int]
) -> None:
    """With several places, kills and failures on the way, nothing waits for ever."""
    run = Run(sweep_of(rule, trials=12), tmp_path_factory.mktemp("any"))
    for kill in kills:
        try:
            run.go(3, rng, kill)
        except KilledError:
            continue
    queue = run.go(3, rng)
    assert len(run.outcomes) == queue.plan.total
    for members in run.by_setting(queue):
        assert len({run.status(trial) for trial in members}) == 1


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("search", ["random", "tpe"])
def test_killed_at_any_time_it_comes_to_the_same_end(tmp_path: Path, rule: str, search: str) -> None:
    sweep = sweep_of(rule, search, trials=12)
    undisturbed = Run(sweep, tmp_path / "undisturbed")
    undisturbed.go()
    again = Run(sweep, tmp_path / "killed")
    rng, kills = random.Random(1), 0
    for _ in range(15):
        try:
            again.go(kill_after=rng.randrange(30))
        except KilledError:
            kills += 1
    assert kills > 5
    again.go()
    assert again.summary() == undisturbed.summary()


@pytest.mark.parametrize("rule", RULES)
def test_the_order_of_seeds_changes_nothing_about_what_survives(tmp_path: Path, rule: str) -> None:
    found = []
    for seeds in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        run = Run(sweep_of(rule, seeds=seeds), tmp_path / str(seeds))
        found.append(run.survivors(run.go()))
    assert found[0] == found[1] == found[2]


def test_limited_to_so_many_trials_what_began_waits_for_the_next_run(tmp_path: Path) -> None:
    sweep = sweep_of("{method: asha}", trials=6)
    run = Run(sweep, tmp_path / "limited")
    queue = run.go(most=5)
    assert len(run.rows) == 5
    assert len(run.outcomes) == 3  # those of the second setting have passed no rung
    assert len(queue.waits) == 2
    while len(run.outcomes) < 18:
        run.go(most=5)
    whole = Run(sweep, tmp_path / "whole")
    whole.go()
    assert run.summary() == whole.summary()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("slots", [1, 3])
def test_a_setting_with_a_seed_that_diverged_is_stopped(tmp_path: Path, rule: str, slots: int) -> None:
    def trouble(trial: Trial, epoch: int) -> str:
        return DIVERGED if trial.settings.seed == 1 and trial.settings.lr > 0.01 and epoch == 1 else ""

    run = Run(sweep_of(rule), tmp_path, trouble)
    queue = run.go(slots)
    bad = 0
    for members in run.by_setting(queue):
        if members[0].settings.lr > 0.01:
            bad += 1
            first, second, third = members
            assert run.status(second) is Status.DIVERGED
            if slots == 1:  # where hyperband compares a setting late or never, its first seed may have ended
                assert run.status(first) is Status.PRUNED or "hyperband" in rule
                assert run.status(third) is Status.PRUNED
                assert run.reasons[third.id].endswith("another seed of this setting diverged")
                assert len(run.rows[third.id]) == 1
        else:
            assert len({run.status(trial) for trial in members}) == 1
    assert bad >= 3
    assert run.survivors(queue)


@pytest.mark.parametrize("slots", [1, 3])
def test_a_setting_that_lost_a_seed_to_a_failure_is_judged_by_the_others(tmp_path: Path, slots: int) -> None:
    broken = True

    def trouble(trial: Trial, epoch: int) -> str:
        return FAILED if broken and trial.settings.seed == 2 and epoch == 2 and trial.settings.dropout > 0.25 else ""

    run = Run(sweep_of("{method: asha}"), tmp_path, trouble)
    queue = run.go(slots)
    hit = [m for m in run.by_setting(queue) if run.status(m[2]) is Status.FAILED]
    assert len(hit) >= 2
    for members in run.by_setting(queue):
        assert len({run.status(trial) for trial in members if run.status(trial) is not Status.FAILED}) == 1
    # The next run tries the failed seeds again: what was decided about the others holds for them.
    before, broken = dict(run.outcomes), False
    queue = run.go(slots)
    assert {id_: run.outcomes[id_] for id_, ended in before.items() if ended.status is not Status.FAILED} == {
        id_: ended for id_, ended in before.items() if ended.status is not Status.FAILED
    }
    for members in hit:
        assert len({run.status(trial) for trial in members}) == 1


def test_seeds_that_come_later_share_what_was_decided(tmp_path: Path) -> None:
    run = Run(sweep_of("{method: asha}", seeds=(0,)), tmp_path)
    run.go()
    pruned = sum(outcome.status is Status.PRUNED for outcome in run.outcomes.values())
    run.sweep = sweep_of("{method: asha}")
    queue = run.go()
    statuses = [{run.status(trial) for trial in members} for members in run.by_setting(queue)]
    assert statuses.count({Status.PRUNED}) == pruned
    assert statuses.count({Status.DONE}) == 20 - pruned


def seeds_of(stopper: Stopper, **settings: int) -> None:
    for name, several in settings.items():
        for seed in range(several):
            stopper.place(f"{name}{seed}", {}, f"{name}0", EPOCHS)
    stopper.settle()


def test_it_is_the_mean_that_is_compared() -> None:
    stopper = Stopper(Asha())
    seeds_of(stopper, a=2, b=2, c=2)
    assert not any(stopper.hear(f"a{seed}", 1, value, EPOCHS) for seed, value in enumerate([0.5, 0.5]))
    assert stopper.hear("b0", 1, 0.1, EPOCHS) is None
    assert stopper.waits_at("b0") == 1
    assert stopper.waits_at("b1") is None
    assert stopper.hear("b1", 1, 1.0, EPOCHS) is None  # 0.55
    assert stopper.waits_at("b0") is None
    stopper.hear("c0", 1, 0.9, EPOCHS)
    stop = stopper.hear("c1", 1, 0.1, EPOCHS)
    assert stop is not None
    assert stop.reason == "asha: 2nd of 3 at epoch 1, by the mean of 2 seeds"
    assert stopper.stops["c0"] == stop


def test_the_median_rule_has_seeds_wait_less_and_less_often() -> None:
    stopper = Stopper(Median())
    seeds_of(stopper, a=2)
    waits = []
    for epoch in range(1, EPOCHS):
        stopper.hear("a0", epoch, 0.5, EPOCHS)
        if stopper.waits_at("a0"):
            waits.append(epoch)
        stopper.hear("a1", epoch, 0.5, EPOCHS)
    assert waits == [1, 2, 3, 5, 8]


def test_patience_looks_at_each_seed_alone() -> None:
    stopper = Stopper(Patience(patience=2))
    seeds_of(stopper, a=2)
    for epoch in range(1, 4):
        stopper.hear("a0", epoch, 0.5, EPOCHS)
        assert stopper.waits_at("a0") is None
        assert stopper.hear("a1", epoch, 0.1 * epoch, EPOCHS) is None
    assert list(stopper.stops) == ["a0"]


@pytest.mark.usefixtures("shared_ray")
@pytest.mark.parametrize("kind", ["whole", "heads"])
@pytest.mark.after
def test_two_at_a_time_on_ray_settings_are_whole_too(tmp_path: Path, kind: str) -> None:
    (tmp_path / "seeds.yaml").write_text(REAL, encoding="utf-8")
    values = ["train.fine_tune=head"] if kind == "heads" else []
    values += ["run.trials_at_once=2", "stages.grid.stop_early.metric=val_loss"]
    with prepared(load_sweep(tmp_path / "seeds.yaml", values=values), tmp_path) as ready:
        finished = execute(ready)
    assert finished.exit_code == 0
    endings: dict[float, list[tuple[Status, int]]] = {}
    for record in Results(finished.results).records().values():
        endings.setdefault(record.settings.lr, []).append((record.status, record.epochs_done))
    assert [len(found) for found in endings.values()] == [3] * 6
    assert all(len(set(found)) == 1 for found in endings.values())
    assert (Status.DONE, 4) in {found[0] for found in endings.values()}


def test_seeds_that_start_from_seeds_are_a_setting_too() -> None:
    """A later stage starts each seed from that seed's best, and its settings are compared with each other."""
    first = "{name: grid, space: {lr: {grid: [0.01, 0.02]}}, stop_early: {method: asha}}"
    second = "{name: more, start_from: {stage: grid}, space: {dropout: {grid: [0.1, 0.2]}}, stop_early: {method: asha}}"
    sweep = load_sweep(
        "part1", values=[*SMALL, f"stages=[{first}, {second}]", f"train.epochs={EPOCHS}"], seeds=[0, 1, 2]
    )
    queue = Queue(sweep, "d" * 16, {})
    outcomes = {id_: Outcome(Status.DONE, trial.settings.lr, 1.0) for id_, trial in queue.plan.trials.items()}
    later = Queue(sweep, "d" * 16, outcomes)
    children = later.plan.stages[1].trials
    assert len({id(later._stopper_of[trial.id]) for trial in children}) == 1
    assert {len(later._stopper_of[trial.id].together(trial.id)) for trial in children} == {3}


REAL = """
name: seeds
data: {image_size: 8, split: {method: fill, train_per_class: 6, val_per_class: 10}}
train: {model: residual, width: 0.05, epochs: 4, precision: fp32}
run: {dashboard: false, trials_at_once: 1}
seeds: [0, 1, 2]
stages:
  - name: grid
    space: {lr: {loguniform: [0.0001, 0.1]}}
    search: {method: random, trials: 6}
    stop_early: {method: asha}
"""


def test_a_third_stage_starts_from_all_seeds_too() -> None:
    stages = (
        "{name: one, space: {lr: {grid: [0.01, 0.02]}}}",
        "{name: two, start_from: {stage: one}, space: {dropout: {grid: [0.1, 0.2]}}}",
        "{name: three, start_from: {stage: two}, space: {weight_decay: {grid: [0.1, 0.2]}}}",
    )
    sweep = load_sweep("part1", values=[*SMALL, f"stages=[{', '.join(stages)}]"], seeds=[0, 1, 2])
    outcomes: dict[str, Outcome] = {}
    for _ in stages:
        plan = Queue(sweep, "d" * 16, dict(outcomes)).plan
        outcomes = {
            id_: Outcome(Status.DONE, trial.settings.dropout + 0.1 * trial.settings.seed, 1.0)
            for id_, trial in plan.trials.items()
        }
    assert [(len(stage.trials), stage.lost) for stage in plan.stages] == [(6, 0)] * 3
    starts = {str(trial.parent_id) for trial in plan.stages[2].trials}
    assert {plan.trials[start].settings.dropout for start in starts} == {0.2}
    assert {plan.trials[start].settings.seed for start in starts} == {0, 1, 2}
    assert needed(sweep, plan, outcomes) >= starts


@pytest.mark.parametrize("kind", [pytest.param("whole", marks=pytest.mark.after), "heads"])
def test_a_real_sweep_one_trial_at_a_time(tmp_path: Path, kind: str) -> None:
    """Trials that wait lose nothing: their numbers are those of trials that were never interrupted."""
    (tmp_path / "seeds.yaml").write_text(REAL, encoding="utf-8")
    values = ["train.fine_tune=head"] if kind == "heads" else []
    found = []
    for name, rule in (("stopped", "{method: asha, metric: val_loss}"), ("whole", "null")):
        sweep = load_sweep(tmp_path / "seeds.yaml", values=[*values, f"stages.grid.stop_early={rule}"])
        with prepared(sweep, tmp_path / name) as ready:
            finished = execute(ready, serial=True)
        assert finished.exit_code == 0
        assert not list(finished.results.glob("trials/*/checkpoint.pt"))
        found.append((Results(finished.results).records(), numbers(finished.results)))
    (records, stopped), (_, whole) = found
    endings: dict[float, set[tuple[Status, int]]] = {}
    for record in records.values():
        endings.setdefault(record.settings.lr, set()).add((record.status, record.epochs_done))
    assert all(len(alike) == 1 for alike in endings.values())
    assert {status for alike in endings.values() for status, _ in alike} == {Status.DONE, Status.PRUNED}
    for trial_id, (facts, _, predictions, rows) in stopped.items():
        if records[trial_id].status is Status.DONE:
            assert (facts, predictions, rows) == (whole[trial_id][0], *whole[trial_id][2:])
        else:
            assert rows == whole[trial_id][3][: len(rows)]
            assert str(facts["error"]).endswith("by the mean of 3 seeds")
