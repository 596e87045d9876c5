from __future__ import annotations

from cnnsearch.planning import labels
from cnnsearch.planning.trial import Trial
from cnnsearch.spec.load import load_sweep
from cnnsearch.spec.settings import Settings


def test_a_setting_names_what_varies() -> None:
    sweep = load_sweep("part1", seeds=[0, 1])
    axes = labels.varied_axes(sweep)
    assert axes == ["model", "lr", "batch_size", "dropout", "seed"]
    settings = Settings(model="plain", lr=0.0001, batch_size=16, seed=1)
    assert labels.setting(settings, axes) == "plain, lr 0.0001, batch 16, seed 1"
    assert labels.setting(settings.model_copy(update={"dropout": 0.25}), ["model", "dropout"]) == "plain, dropout 0.25"


def test_trials_are_told_apart_by_stage_settings_and_id() -> None:
    sweep = load_sweep("part1", values=["stages.grid.space.optimizer={grid: [adam, sgd]}"])
    axes = labels.told_axes(sweep)
    assert axes == ["model", "lr", "batch_size", "optimizer", "dropout"]
    one, other = (Trial("grid", Settings(model="plain", batch_size=size), "data") for size in (16, 32))
    assert labels.trial_label(one, axes) == f"grid: plain, lr 0.001, batch 16, adam [{one.id}]"
    assert labels.job_label((one,), axes) == labels.trial_label(one, axes)
    assert labels.job_label((one, other), axes) == f"grid: plain, lr 0.001, adam, 2 trials [{one.id} …]"
    assert labels.job_label((one, other), ["batch_size"]) == f"grid: 2 trials [{one.id} …]"
