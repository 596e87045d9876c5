from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, strategies as st

from cnnsearch.errors import ResultsError
from cnnsearch.planning.identity import trial_id
from cnnsearch.planning.job import Job
from cnnsearch.planning.plan import best_cell, make_plan
from cnnsearch.planning.queue import Queue
from cnnsearch.planning.trial import Outcome, Status, Trial
from cnnsearch.spec.load import load_sweep
from cnnsearch.spec.settings import Settings
from cnnsearch.spec.sweep import Sweep
from cnnsearch.storage.checksums import canonical_json

DATA = "d" * 16


def done(accuracy: float, loss: float = 1.0) -> Outcome:
    return Outcome(Status.DONE, accuracy, loss)


def finish_all(sweep: Sweep, score: Callable[[Trial], Outcome]) -> Queue:
    queue = Queue(sweep, DATA, {})
    while (job := queue.take()) is not None:
        for trial in job.trials:
            queue.finish(trial, score(trial))
    return queue


def test_part1_has_eight_and_eight_trials() -> None:
    plan = make_plan(load_sweep("part1"), DATA, {})
    assert [(stage.stage.name, len(stage.trials), stage.waiting) for stage in plan.stages] == [
        ("grid", 8, 0),
        ("dropout", 0, 8),
    ]
    assert plan.total == 16
    assert [(t.settings.model, t.settings.lr, t.settings.batch_size) for t in plan.stages[0].trials][:3] == [
        ("plain", 0.0001, 16),
        ("plain", 0.0001, 32),
        ("plain", 0.001, 16),
    ]


def test_dropout_starts_from_the_best_of_each_model() -> None:
    best = {"plain": (0.001, 32), "residual": (0.0001, 16)}

    def score(trial: Trial) -> Outcome:
        s = trial.settings
        return done(0.9 if (s.lr, s.batch_size) == best[s.model] else 0.5)

    queue = finish_all(load_sweep("part1"), score)
    children = queue.plan.stages[1].trials
    assert [(t.settings.model, t.settings.lr, t.settings.batch_size, t.settings.dropout) for t in children] == [
        (model, *best[model], dropout) for model in best for dropout in (0.01, 0.1, 0.25, 0.5)
    ]
    assert {t.parent_id for t in children} == {
        t.id for t in queue.plan.stages[0].trials if (t.settings.lr, t.settings.batch_size) == best[t.settings.model]
    }
    assert len(queue.outcomes) == 16
    assert queue.is_exhausted


def test_a_group_goes_on_before_the_other_is_complete() -> None:
    queue = Queue(load_sweep("part1"), DATA, {})
    for _ in range(4):
        job = queue.take()
        assert job is not None
        (trial,) = job.trials
        queue.finish(trial, done(0.5))
    waiting = {stage.stage.name: stage.waiting for stage in queue.plan.stages}
    assert waiting == {"grid": 0, "dropout": 4}
    assert len(queue.plan.stages[1].trials) == 4


def test_children_are_paired_with_their_parents_by_seed() -> None:
    sweep = load_sweep("part1", seeds=[7, 8, 9])
    queue = finish_all(sweep, lambda trial: done(trial.settings.lr * trial.settings.batch_size))
    assert queue.plan.total == 8 * 3 + 8 * 3
    by_id = queue.plan.trials
    for child in queue.plan.stages[1].trials:
        assert child.parent_id is not None
        assert by_id[child.parent_id].settings.seed == child.settings.seed


def test_the_best_setting_is_the_best_on_average_over_seeds() -> None:
    sweep = load_sweep("part1", seeds=[0, 1], values=["stages.grid.space.model=plain"])
    trials = make_plan(sweep, DATA, {}).stages[0].trials
    scores = {(0.0001, 16): (0.9, 0.1), (0.0001, 32): (0.6, 0.6), (0.001, 16): (0.5, 0.5), (0.001, 32): (0.6, 0.6)}
    outcomes = {t.id: done(scores[t.settings.lr, t.settings.batch_size][t.settings.seed]) for t in trials}
    best = best_cell(trials, outcomes, "val_accuracy")
    assert [(t.settings.lr, t.settings.batch_size, t.settings.seed) for t in best] == [(0.0001, 32, 0), (0.0001, 32, 1)]


def test_a_setting_with_all_seeds_beats_one_that_lost_a_seed() -> None:
    sweep = load_sweep("part1", seeds=[0, 1], values=["stages.grid.space={lr: {grid: [0.1, 0.2]}}"])
    first, second, third, fourth = make_plan(sweep, DATA, {}).stages[0].trials
    outcomes = {first.id: done(0.99), second.id: Outcome(Status.DIVERGED), third.id: done(0.5), fourth.id: done(0.5)}
    assert best_cell([first, second, third, fourth], outcomes, "val_accuracy") == [third, fourth]


def test_lowest_loss_can_be_best() -> None:
    sweep = load_sweep("part1", values=["stages.dropout.start_from.best=val_loss"])
    queue = finish_all(sweep, lambda t: done(t.settings.lr, loss=t.settings.lr))
    assert {t.settings.lr for t in queue.plan.stages[1].trials} == {0.0001}


def test_children_of_nothing_are_lost_not_forgotten() -> None:
    queue = finish_all(
        load_sweep("part1"),
        lambda t: Outcome(Status.DIVERGED) if t.settings.model == "plain" else done(0.5),
    )
    assert (queue.plan.lost, queue.plan.waiting, queue.plan.total) == (4, 0, 16)
    assert queue.is_exhausted
    assert len(queue.outcomes) == 12


def test_a_stage_on_a_stage_is_counted_before_it_is_known() -> None:
    chain = "{name: more, start_from: {stage: dropout, per: model}, space: {lr: {grid: [1e-5, 1e-6]}}}"
    sweep = load_sweep(
        "part1",
        values=[
            f"stages=[{{name: grid, space: {{lr: 0.1}}}}, {{name: dropout, "
            f"start_from: {{stage: grid}}, space: {{dropout: {{grid: [0.1, 0.2]}}}}}}, {chain}]"
        ],
    )
    queue = finish_all(sweep, lambda trial: done(0.5))
    assert queue.plan.total == 1 + 2 + 2


def test_adding_a_value_adds_only_its_cells() -> None:
    before = make_plan(load_sweep("part1"), DATA, {})
    after = make_plan(load_sweep("part1", values=["stages.grid.space.lr.grid=[0.0001, 0.001, 0.01]"]), DATA, {})
    assert set(before.trials) < set(after.trials)
    assert {t.settings.lr for i, t in after.trials.items() if i not in before.trials} == {0.01}


def test_longest_first() -> None:
    queue = Queue(load_sweep("part1"), DATA, {}, cost=lambda t: t.settings.lr * t.settings.batch_size, slots=8)
    order = [queue.take() for _ in range(8)]
    costs = [t.settings.lr * t.settings.batch_size for job in order if job for t in job.trials]
    assert costs == sorted(costs, reverse=True)


def test_heads_on_the_same_features_are_one_job() -> None:
    space = "{fine_tune: {grid: [head, full]}, lr: {grid: [0.1, 0.2, 0.3]}, batch_size: {grid: [4, 8]}}"
    sweep = load_sweep("part2", values=["train.weights=w.pth", f"stages.transfer.space={space}"], seeds=[0, 1])
    weights = {("resnet18", "w.pth"): "digest"}
    queue = Queue(sweep, DATA, {}, weights, slots=1)
    jobs = []
    while (job := queue.take()) is not None:
        jobs.append(job)
        for trial in job.trials:
            assert queue.slots_taken == 1
            assert queue.take() is None
            queue.finish(trial, done(0.5))
        assert queue.slots_taken == 0
    assert queue.is_exhausted
    heads = [job for job in jobs if job.trials[0].settings.fine_tune == "head"]
    assert sorted(len(job.trials) for job in jobs) == [1] * 12 + [6, 6]
    assert all(len({trial.settings.batch_size for trial in job.trials}) == 1 for job in heads)
    spread = Queue(sweep, DATA, {}, weights, slots=3)
    first = [spread.take() for _ in range(3)]
    assert [len(job.trials) for job in first if job] == [2, 2, 2]


def test_short_trials_are_handed_out_several_at_a_time() -> None:
    """About three seconds of them, the longest first, and never so many that a place has nothing left to do."""
    rates = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 2.0, 3.0]
    values = [f"stages=[{{name: grid, space: {{lr: {{grid: {rates}}}}}}}]"]
    queue = Queue(load_sweep("part1", values=values), DATA, {}, cost=lambda t: 3 * t.settings.lr, slots=2)
    jobs = []
    while (job := queue.take()) is not None:
        jobs.append([trial.settings.lr for trial in job.trials])
        for trial in job.trials:
            queue.finish(trial, done(0.5))
    assert jobs == [[3.0], [2.0], [1.0], [0.9], [0.8], [0.7], [0.6], [0.5, 0.4], [0.3], [0.2], [0.1]]
    quick = Queue(load_sweep("part1", values=values), DATA, {}, cost=lambda t: 0.3 * t.settings.lr, slots=2)
    first = quick.take()
    assert first
    assert [trial.settings.lr for trial in first.trials] == [3.0, 2.0, 1.0]


def test_what_needs_more_room_waits_for_it_and_is_not_overtaken() -> None:
    queue = Queue(load_sweep("part1"), DATA, {}, slots=2)
    one, other = queue.take(), queue.take()
    assert one
    assert other
    queue.retry(Job(one.trials, slots=2, attempt=2))
    assert queue.take() is None
    queue.finish(other.trials[0], done(0.5))
    again = queue.take()
    assert again
    assert (again.id, again.slots, again.attempt) == (one.id, 2, 2)
    assert queue.take() is None
    queue.finish(one.trials[0], done(0.5))
    assert queue.take() is not None


@given(st.lists(st.floats(0, 1), min_size=16, max_size=16), st.integers(0, 1000))
def test_planning_again_from_what_is_recorded_gives_the_same_trials(scores: list[float], shuffle: int) -> None:
    """Whatever the order in which trials end, and wherever a run stops, the end is the same."""
    sweep = load_sweep("part1")
    ranks: dict[str, float] = {}

    def score(trial: Trial) -> Outcome:
        return done(ranks.setdefault(trial.id, scores[int(trial.id, 16) % 16]))

    whole = finish_all(sweep, score)
    rng = random.Random(shuffle)
    recorded: dict[str, Outcome] = {}
    while True:
        queue = Queue(sweep, DATA, dict(recorded))
        ready: list[Trial] = []
        while (job := queue.take()) is not None:
            ready += job.trials
        if not ready:
            break
        for trial in rng.sample(ready, max(1, len(ready) // 2)):
            recorded[trial.id] = score(trial)
    assert recorded == whole.outcomes
    assert make_plan(sweep, DATA, recorded) == whole.plan


settings_values = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["plain", "residual"]),
        "lr": st.floats(1e-6, 1),
        "batch_size": st.integers(1, 512),
        "dropout": st.floats(0, 0.9),
        "seed": st.integers(0, 2**31 - 1),
        "optimizer": st.sampled_from(["adam", "sgd"]),
    }
)


@given(settings_values, st.randoms())
def test_ids_do_not_depend_on_the_order_of_keys(values: dict[str, Any], rng: random.Random) -> None:
    keys = list(values)
    rng.shuffle(keys)
    shuffled = {key: values[key] for key in keys}
    one, two = Settings(**values), Settings(**shuffled)
    assert Trial("grid", one, DATA).id == Trial("other", two, DATA).id


@given(settings_values, settings_values)
def test_ids_differ_where_settings_do(a: dict[str, Any], b: dict[str, Any]) -> None:
    one, two = Settings(**a), Settings(**b)
    assert (Trial("s", one, DATA).id == Trial("s", two, DATA).id) == (one == two)


def test_ids_know_data_and_parent_but_not_what_has_no_effect() -> None:
    settings = Settings(optimizer="adam")
    same = Settings(optimizer="adam", momentum=0.5)
    assert Trial("s", settings, DATA).id == Trial("s", same, DATA).id
    assert Trial("s", settings, DATA).id != Trial("s", settings, "e" * 16).id
    assert Trial("s", settings, DATA).id != Trial("s", settings, DATA, "0" * 16).id
    assert (
        Trial("s", Settings(optimizer="sgd"), DATA).id != Trial("s", Settings(optimizer="sgd", momentum=0.5), DATA).id
    )


def test_ids_are_stable_across_versions_of_the_code() -> None:
    """Golden: a change here retrains everybody's finished trials. Raise a version in `identity` on purpose only."""
    deciding = {"model": "plain", "lr": 0.1, "seed": 0}
    assert canonical_json({"b": 0.1, "a": [1, None]}) == '{"a":[1,null],"b":0.1}'
    assert trial_id(deciding, data=DATA, parent_id=None) == "beee59adf9b57087"


@pytest.mark.parametrize("status", list(Status))
def test_only_what_would_come_out_the_same_is_final(status: Status) -> None:
    assert status.is_final == (status in (Status.DONE, Status.DIVERGED))


def test_weights_that_the_data_does_not_name_are_asked_for() -> None:
    sweep = load_sweep("part1", values=["train.weights=w.pth"])
    with pytest.raises(ResultsError, match=r"data\.json does not say which weights w\.pth of plain are"):
        make_plan(sweep, DATA, {})
