from __future__ import annotations

from hypothesis import given, strategies as st

from cnnsearch.planning.plan import best_cell, groups, make_plan
from cnnsearch.planning.retention import needed
from cnnsearch.planning.trial import Outcome, Status, Trial
from cnnsearch.spec.load import load_sweep

DATA = "d" * 16
SEEDED = load_sweep("part1", seeds=[0, 1])
PLAN = make_plan(SEEDED, DATA, {})
GRID = list(PLAN.trials.values())

outcomes = st.fixed_dictionaries(
    {},
    optional={
        trial.id: st.builds(
            Outcome,
            st.sampled_from([Status.DONE, Status.DONE, Status.DONE, Status.FAILED]),
            st.sampled_from([0.25, 0.5, 0.75]),
            st.floats(0, 2),
        )
        for trial in GRID
    },
)


@given(outcomes)
def test_whatever_has_ended_the_parents_that_will_be_chosen_are_kept(ended: dict[str, Outcome]) -> None:
    """At any moment, and whatever the rest turns out to be: what wins in the end has never been dropped."""
    kept = needed(SEEDED, PLAN, ended)
    rest = {trial.id: Outcome(Status.DONE, 0.5, 1.0) for trial in GRID if trial.id not in ended}
    final = {**ended, **rest}
    for group in groups(GRID, ["model"]).values():
        for metric in ("val_accuracy", "val_loss"):
            assert {trial.id for trial in best_cell(group, final, metric)} <= kept


def test_most_of_a_finished_grid_is_not_kept() -> None:
    ended = {trial.id: Outcome(Status.DONE, index / 100, 1 - index / 100) for index, trial in enumerate(GRID)}
    kept = needed(SEEDED, make_plan(SEEDED, DATA, ended), ended)
    assert len([trial for trial in GRID if trial.id in kept]) == 2 * 2  # the best of each model, both seeds


def test_what_a_fine_tuned_trial_started_from_is_kept_with_it() -> None:
    space = "{name: more, start_from: {stage: dropout, best: val_accuracy}, space: {fine_tune: head}}"
    sweep = load_sweep(
        "part1", values=[f"stages=[{{name: dropout, space: {{model: plain, lr: {{grid: [1.0, 2.0]}}}}}}, {space}]"]
    )
    roots = list(make_plan(sweep, DATA, {}).trials.values())
    ended = {roots[0].id: Outcome(Status.DONE, 0.5, 1.0), roots[1].id: Outcome(Status.DONE, 0.6, 0.9)}
    plan = make_plan(sweep, DATA, ended)
    child: Trial = next(trial for trial in plan.trials.values() if trial.parent_id)
    assert child.parent_id == roots[1].id
    kept = needed(sweep, plan, {**ended, child.id: Outcome(Status.DONE, 0.9, 0.1)})
    assert kept == {roots[1].id, child.id}
