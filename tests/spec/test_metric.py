"""`metric:` of a sweep: what follows it, what is refused, and the ids that stay."""

from __future__ import annotations

import pytest

from cnnsearch.errors import SpecError
from cnnsearch.planning.plan import make_plan
from cnnsearch.planning.trial import Outcome, Status
from cnnsearch.spec.load import from_yaml, load_sweep, to_yaml
from cnnsearch.spec.metric import METRICS
from cnnsearch.spec.sweep import Sweep

TEXT = """
name: mine
metric: macro_f1
stages:
  - name: grid
    space: {lr: {grid: [0.1, 0.01]}, model: {grid: [plain, residual]}}
    stop_early: {method: asha}
  - name: more
    start_from: {stage: grid, per: model}
    space: {dropout: {uniform: [0.1, 0.5]}}
    search: {method: tpe, trials: 3}
"""


def made(text: str = TEXT) -> Sweep:
    return from_yaml(text, "mine.yaml")


def chosen_by(sweep: Sweep) -> list[object]:
    grid, more = sweep.stages
    assert grid.stop_early is not None
    assert more.start_from is not None
    return [grid.stop_early.metric, more.start_from.best, *more.search.aims]


def test_what_does_not_say_by_what_to_choose_goes_by_the_metric() -> None:
    assert chosen_by(made()) == ["val_macro_f1"] * 3
    assert chosen_by(made(TEXT.replace("metric: macro_f1\n", ""))) == ["val_accuracy"] * 3
    own = TEXT.replace("method: asha", "method: asha, metric: val_loss").replace(
        "per: model", "best: val_auroc, per: model"
    )
    assert chosen_by(made(own)) == ["val_loss", "val_auroc", "val_macro_f1"]


def test_a_resolved_sweep_reads_back_and_follows_another_metric() -> None:
    assert from_yaml(to_yaml(made()), "sweep.yaml") == made()
    assert chosen_by(made().with_values({"metric": "brier"})) == ["val_brier"] * 3


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (
            "metric: macro_f1",
            "metric: f1",
            r"metric given 'f1'; it should be 'accuracy', 'loss', 'balanced_acc",
        ),
        (
            "method: asha",
            "method: asha, metric: val_auroc",
            r"stop_early.metric given val_auroc; allowed: val_accuracy",
        ),
        ("per: model", "best: val_f1, per: model", r"start_from.best given 'val_f1'"),
        ("lr: {grid: [0.1, 0.01]}", "metric: {grid: [auroc]}", r"space.metric is not a key"),
    ],
)
def test_wrong_metrics_are_refused(old: str, new: str, complaint: str) -> None:
    with pytest.raises(SpecError, match=complaint):
        made(TEXT.replace(old, new, 1))


def test_ids_of_before_stay_and_another_metric_makes_other_trials() -> None:
    sweep = load_sweep("part1")
    ids = list(make_plan(sweep, "d" * 16, {}).trials)
    assert ids[0] == "56a24653ab23c98d"
    others = {metric: list(make_plan(sweep.with_values({"metric": metric}), "d" * 16, {}).trials) for metric in METRICS}
    assert others["accuracy"] == ids
    assert len({id_ for several in others.values() for id_ in several}) == len(METRICS) * len(ids)


@pytest.mark.parametrize(("metric", "best"), [("macro_f1", 0), ("brier", 1), ("accuracy", 2)])
def test_a_later_stage_starts_from_the_best_by_the_metric(metric: str, best: int) -> None:
    text = TEXT.replace("macro_f1", metric).replace("{grid: [plain, residual]}", "plain").replace("0.01]", "0.01, 0.2]")
    sweep = made(text)
    trials = list(make_plan(sweep, "d" * 16, {}).trials.values())
    numbers = [(0.5, 0.9, 0.5), (0.6, 0.5, 0.3), (0.7, 0.4, 0.6)]
    outcomes = {
        trial.id: Outcome(Status.DONE, accuracy, 1.0, {"val_macro_f1": f1, "val_brier": brier})
        for trial, (accuracy, f1, brier) in zip(trials, numbers, strict=True)
    }
    (study,) = make_plan(sweep, "d" * 16, outcomes).stages[1].studies
    assert study.parents == (trials[best].id,)
