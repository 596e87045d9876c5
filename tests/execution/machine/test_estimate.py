from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cnnsearch.execution.machine import estimate, pace, timing
from cnnsearch.execution.machine.estimate import Calibration, Sizes, representatives, workload_key
from cnnsearch.execution.machine.hardware import Layout, detect
from cnnsearch.execution.machine.timing import calibrate
from cnnsearch.planning.plan import make_plan
from cnnsearch.spec.settings import Settings
from cnnsearch.spec.sweep import Sweep
from cnnsearch.storage.durable import read_checked

LAYOUT = Layout("cpu", 2, 1, 0.0)
SIZES = Sizes(train=100, val=50, test=50)


def calibration(*settings: Settings, step: float = 0.1, image: float = 0.01) -> Calibration:
    timed = {
        "step_seconds": step,
        "eval_image_seconds": image,
        "prefix_image_seconds": 0,
        "memory_bytes": 100,
        "weights_bytes": 1000,
    }
    return Calibration("fp32", {workload_key(s): timed for s in settings})


def test_a_trials_seconds() -> None:
    settings = Settings(model="plain", batch_size=32, epochs=10)
    # 4 steps of 0.1 s and 50 images of 0.01 s an epoch; validation and test once at the end; the overhead.
    expected = 10 * (4 * 0.1 + 50 * 0.01) + 100 * 0.01 + estimate.TRIAL_SECONDS
    assert calibration(settings).seconds(settings, SIZES) == pytest.approx(expected)
    assert calibration(settings).seconds(settings, SIZES, starts_from=True) == pytest.approx(expected + 1.0)


def test_trials_that_keep_their_weights_keep_probabilities_too(small_sweep: Callable[..., Sweep]) -> None:
    trials = list(
        make_plan(small_sweep("stages=[{name: a, space: {lr: {grid: [0.1, 0.2, 0.3]}}}]"), "d", {}).trials.values()
    )
    costs = calibration(*(trial.settings for trial in trials))

    def disk(classes: int, kept: int | None) -> int:
        return costs.cost(trials, replace(SIZES, classes=classes), LAYOUT, kept).disk_bytes

    assert disk(10, 2) - disk(0, 2) == 2 * 4 * 10 * (50 + 50)
    assert disk(10, None) - disk(0, None) == 3 * 4 * 10 * (50 + 50)


def test_what_is_no_step_takes_longer_on_a_slow_machine() -> None:
    settings = Settings(model="plain", batch_size=32, epochs=10)
    usual = calibration(settings)
    slow = replace(usual, import_seconds=3 * usual.import_seconds)
    more = slow.seconds(settings, SIZES) - usual.seconds(settings, SIZES)
    assert more == pytest.approx(2 * estimate.TRIAL_SECONDS)
    assert slow.around_seconds(100) == pytest.approx(3 * usual.around_seconds(100))
    assert slow.around_seconds(100) - slow.around_seconds(100, serial=True) == pytest.approx(3 * estimate.RAY_SECONDS)
    assert usual.around_seconds(10_100) - usual.around_seconds(100) == pytest.approx(36, rel=0.1)


def test_slots_share_the_work(small_sweep: Callable[..., Sweep]) -> None:
    trials = list(make_plan(small_sweep(), "d" * 16, {}).trials.values())
    timed = calibration(*(t.settings for t in trials))
    alone = timed.cost(trials, SIZES, Layout("cpu", 1, 1, 0.0))
    shared = timed.cost(trials, SIZES, LAYOUT)
    assert alone.seconds == pytest.approx(sum(timed.seconds(t.settings, SIZES) for t in trials))
    assert shared.seconds == pytest.approx(alone.seconds / 2)
    assert (shared.memory_bytes, shared.trials) == (200, 8)


def test_trials_not_known_yet_are_stood_in_for(small_sweep: Callable[..., Sweep]) -> None:
    plan = make_plan(small_sweep("seeds=[0, 1]"), "d" * 16, {})
    stand_ins = representatives(plan)
    assert len(stand_ins) == plan.total == 32
    assert sum(t.stage == "dropout" for t in stand_ins) == 16


def test_memory_on_the_device_counts_features_that_are_kept() -> None:
    settings = Settings(model="plain")
    timed = Calibration("fp32", {workload_key(settings): {"memory_bytes": 100, "features_image_bytes": 7}})
    assert timed.device_bytes(settings, images=10, features_limit=70) == 170
    assert timed.device_bytes(settings, images=11, features_limit=70) == 100


@pytest.fixture
def _no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNNSEARCH_CACHE", str(tmp_path))


@pytest.mark.usefixtures("_no_cache")
def test_steps_are_timed_once_for_real(small_sweep: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch) -> None:
    trials = [*make_plan(small_sweep("stages.grid.space.lr=100"), "d" * 16, {}).trials.values()][:2]
    calibrate(trials, 10, LAYOUT, detect())

    def refuse(*args: object) -> None:
        raise AssertionError("timed again")

    monkeypatch.setattr(timing, "answer", refuse)
    usual = (read_checked(timing._cache_file(detect(), LAYOUT)) or {})["import_pace"]
    monkeypatch.setattr(timing, "pace", lambda: usual)
    first = calibrate(trials, 10, LAYOUT, detect())
    assert first.precision in ("fp32", "bf16")
    assert 0.2 < first.import_seconds < 60
    timed = first.workloads[workload_key(trials[0].settings)]
    assert 0 < timed["step_seconds"] < 5
    assert 0 < timed["eval_image_seconds"] < 1
    assert timed["memory_bytes"] > 50e6
    assert 0 <= timed["shared_bytes"] < timed["memory_bytes"]
    if sys.platform == "linux":
        assert timed["shared_bytes"] > 50e6  # torch's libraries
    assert timed["weights_bytes"] >= 4 * timed["parameters"]

    assert calibrate(trials, 10, LAYOUT, detect()) == first

    # The machine is slower now, by half.
    monkeypatch.setattr(timing, "pace", lambda: 1.5 * usual)
    slow = calibrate(trials, 10, LAYOUT, detect())
    assert slow.import_seconds == pytest.approx(1.5 * first.import_seconds)
    for key, timed in slow.workloads.items():
        assert timed["step_seconds"] == pytest.approx(1.5 * first.workloads[key]["step_seconds"])
        assert timed["eval_image_seconds"] == pytest.approx(1.5 * first.workloads[key]["eval_image_seconds"])
        assert timed["memory_bytes"] == first.workloads[key]["memory_bytes"]


def test_what_takes_longer_now_is_told_within_reason() -> None:
    assert pace.slower(0.01, 0.02) == 2
    assert pace.slower(0.01, 0.001) == 1 / pace.MOST
    assert pace.slower(0.01, 1.0) == pace.MOST
    assert pace.slower(None, 1.0) == 1
    one = pace.pace()
    assert 0 < one < 1


def test_what_runs_last_leaves_places_empty(small_sweep: Callable[..., Sweep]) -> None:
    trials = list(make_plan(small_sweep(), "d" * 16, {}).trials.values())
    timed = calibration(*(t.settings for t in trials))
    certain = timed.cost(trials, SIZES, LAYOUT, lengths=lambda trial: {4.0: 1.0})
    assert certain.seconds == pytest.approx(len(trials) * 4.0 / 2)
    # The same in the mean, but one in four takes four times as long.
    early = timed.cost(trials, SIZES, LAYOUT, lengths=lambda trial: {2.0: 0.75, 10.0: 0.25}, in_order=True)
    assert 1.05 * certain.seconds < early.seconds < 1.5 * certain.seconds
    assert timed.cost(trials, SIZES, LAYOUT, lengths=lambda trial: {2.0: 0.75, 10.0: 0.25}, in_order=True) == early


def test_the_longest_first_unless_they_come_in_order(small_sweep: Callable[..., Sweep]) -> None:
    trials = list(make_plan(small_sweep(), "d" * 16, {}).trials.values())[:3]
    timed = calibration(*(t.settings for t in trials))
    seconds = dict(zip((trial.id for trial in trials), (1.0, 1.0, 2.0), strict=True))
    cost = functools.partial(timed.cost, trials, SIZES, LAYOUT, lengths=lambda trial: {seconds[trial.id]: 1.0})
    assert cost().seconds == 2.0
    assert cost(in_order=True).seconds == 3.0


def test_trials_that_run_share_the_pass_through_their_frozen_layers(small_sweep: Callable[..., Sweep]) -> None:
    trial = next(iter(make_plan(small_sweep(), "d" * 16, {}).trials.values()))
    timed = calibration(trial.settings)
    key = workload_key(trial.settings)
    slow = replace(timed, workloads={key: {**timed.workloads[key], "prefix_image_seconds": 0.5}})
    images = SIZES.train + SIZES.val + SIZES.test

    def frozen(trials: int) -> float:
        cost = functools.partial(timed.cost, [trial] * trials, SIZES, LAYOUT, lengths=lambda trial: {1.0: 1.0})
        whole = functools.partial(slow.cost, [trial] * trials, SIZES, LAYOUT, lengths=lambda trial: {1.0: 1.0})
        return whole().seconds - cost().seconds

    assert LAYOUT.trials_at_once == 2
    assert frozen(1) == pytest.approx(0.5 * images)
    assert frozen(2) == frozen(8) == pytest.approx(0.25 * images)


def test_pages_that_processes_share_are_counted_once(small_sweep: Callable[..., Sweep]) -> None:
    trial = next(iter(make_plan(small_sweep(), "d" * 16, {}).trials.values()))
    timed = calibration(trial.settings)
    key = workload_key(trial.settings)
    shared = replace(timed, workloads={key: {**timed.workloads[key], "shared_bytes": 30}})
    assert [shared.cost([trial] * count, SIZES, LAYOUT).memory_bytes for count in (0, 1, 2, 5)] == [0, 100, 170, 170]
