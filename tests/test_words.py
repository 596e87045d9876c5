from __future__ import annotations

import pytest

from cnnsearch import words
from cnnsearch.plan import Trial
from cnnsearch.spec import Settings
from cnnsearch.sweepfile import load_sweep


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (0.6, "0.6 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (160, "2 min 40 s"),
        (3600, "1 h"),
        (11_100, "3 h 5 min"),
        (187_200, "2 d 4 h"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


def test_clock_and_size() -> None:
    assert (words.clock(62), words.clock(7384)) == ("1:02", "2:03:04")
    assert (words.size(90_400_000), words.size(1_130_000_000), words.size(10)) == ("90 MB", "1.1 GB", "1 MB")


def test_accuracy_carries_its_interval() -> None:
    # Wilson 95 % of 80/100, as in Newcombe (1998), table I: 0.7112 to 0.8666.
    assert words.accuracy(0.8, 100) == "80.0 % (71.1–86.7)"


def test_a_setting_names_what_varies() -> None:
    sweep = load_sweep("part1", seeds=[0, 1])
    axes = words.varied_axes(sweep)
    assert axes == ["model", "lr", "batch_size", "dropout", "seed"]
    settings = Settings(model="plain", lr=0.0001, batch_size=16, seed=1)
    assert words.setting(settings, axes) == "plain, lr 0.0001, batch 16, seed 1"
    assert words.setting(settings.model_copy(update={"dropout": 0.25}), ["model", "dropout"]) == "plain, dropout 0.25"


def test_trials_are_told_apart_by_stage_settings_and_id() -> None:
    sweep = load_sweep("part1", values=["stages.grid.space.optimizer={grid: [adam, sgd]}"])
    axes = words.told_axes(sweep)
    assert axes == ["model", "lr", "batch_size", "optimizer", "dropout"]
    one, other = (Trial("grid", Settings(model="plain", batch_size=size), "data") for size in (16, 32))
    assert words.trial_label(one, axes) == f"grid: plain, lr 0.001, batch 16, adam [{one.id}]"
    assert words.job_label((one,), axes) == words.trial_label(one, axes)
    assert words.job_label((one, other), axes) == f"grid: plain, lr 0.001, adam, 2 trials [{one.id} …]"
    assert words.job_label((one, other), ["batch_size"]) == f"grid: 2 trials [{one.id} …]"
