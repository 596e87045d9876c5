"""Importances of axes whose effect is known."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from cnnsearch.evidence import importance
from cnnsearch.evidence.importance import LEAST_TRIALS, Importances, importances

KINDS = {"word": 3}


def known(count: int = 200, seed: int = 0) -> tuple[dict[str, list[float | None]], list[float]]:
    """`much` explains about nine tenths of the variance, `word` most of the rest, `nothing` none."""
    rng = np.random.default_rng(seed)
    much, nothing, word = rng.random(count), rng.random(count), rng.integers(0, 3, count)
    scores = -2 * np.abs(much - 0.6) + 0.3 * (word == 1) + rng.normal(0, 0.02, count)
    columns: dict[str, Any] = {"nothing": nothing.tolist(), "word": word.tolist(), "much": much.tolist()}
    return columns, scores.tolist()


def found(columns: dict[str, list[float | None]], scores: list[float], **options: Any) -> Importances:
    result = importances(columns, KINDS, scores, **options)
    assert result is not None
    return result


def test_axes_are_ranked_by_what_they_explain():
    result = found(*known())
    assert result.ranked[0] == "much"
    assert result.shares["much"].value > 0.8
    assert 0.01 < result.shares["word"].value < 0.15
    assert result.shares["nothing"].value < 0.01
    assert result.configurations == 200


def test_only_axes_with_an_effect_stand_out_from_random_numbers():
    result = found(*known())
    assert [name for name in result.ranked if result.stands_out(name)] == ["much", "word"]
    assert not result.is_likely("nothing")
    assert not result.stands_out("unknown")


def test_permutations_in_portions_say_the_same(monkeypatch):
    columns, scores = known(40)
    whole = found(columns, scores)
    monkeypatch.setattr(importance, "_TOGETHER", 40 * 7)
    assert found(columns, scores).p_values == whole.p_values


@pytest.mark.parametrize("seed", range(3))
def test_in_noise_nothing_stands_out(seed):
    columns, _ = known(60, seed)
    noise = np.random.default_rng(seed + 100).normal(size=60).tolist()
    result = found(columns, noise)
    assert not any(result.stands_out(name) for name in result.ranked)


def test_in_noise_hardly_ever_any_axis_passes_and_a_true_one_mostly_does(monkeypatch):
    monkeypatch.setattr(importance, "_PERMUTATIONS", 199)
    rng = np.random.default_rng(1)
    false, true = [], []
    for _ in range(150):
        columns: dict[str, Any] = {f"axis {index}": rng.random(40).tolist() for index in range(6)}
        columns["word"] = rng.integers(0, 3, 40).tolist()
        columns["part"] = [value if rng.random() < 0.5 else None for value in rng.random(40)]
        noise = rng.standard_t(3, size=40)
        found = importance._against_permuted(columns, KINDS, noise, rng)
        false.append(min(found.values()))
        one = importance._against_permuted(columns, KINDS, noise - 8 * np.abs(np.array(columns["axis 0"]) - 0.5), rng)
        true.append(one["axis 0"])
    assert np.mean(np.array(false) < 0.05) <= 0.09  # 5 %, and what 150 searches may miss it by
    assert np.mean(np.array(false) < 0.01) <= 0.03
    assert np.mean(np.array(true) < 0.05) >= 0.5


def test_the_same_trials_give_the_same_numbers_and_intervals_hold_their_means():
    first, second = found(*known(40)), found(*known(40))
    assert first == second
    assert found(*known(40), seed=1) != first
    for share in first.shares.values():
        assert 0 <= share.low <= share.value <= share.high <= 1


def test_fewer_trials_say_less():
    wide, narrow = found(*known(LEAST_TRIALS)).shares["much"], found(*known(150)).shares["much"]
    assert wide.high - wide.low > narrow.high - narrow.low


def test_too_few_trials_no_spread_and_no_axes_say_nothing():
    columns, scores = known(LEAST_TRIALS - 1)
    assert importances(columns, KINDS, scores) is None
    columns, scores = known(50)
    assert importances(columns, KINDS, [0.5] * 50) is None
    assert importances({}, {}, scores) is None


def test_an_axis_without_part_in_most_trials_is_not_what_decides_about_it():
    """Where a default stood in for missing values, the condition's effect would show up as the axis's own."""
    rng = np.random.default_rng(0)
    word = rng.integers(0, 2, 200)
    scores = (word + rng.normal(0, 0.05, 200)).tolist()
    only_one: list[float | None] = [float(rng.random()) if kind else None for kind in word]
    columns: dict[str, Any] = {"word": word.tolist(), "conditional": only_one}
    result = importances(columns, {"word": 2}, scores)
    assert result is not None
    assert result.shares["word"].value > 0.9
    assert result.shares["conditional"].value < 0.02


def test_very_many_trials_are_drawn_from(monkeypatch):
    sizes = []
    monkeypatch.setattr(importance, "MOST_TRIALS", 50)
    fitted = importance._fanova

    def counted(table, kinds, target, *, seed):
        sizes.append(len(target))
        return fitted(table, kinds, target, seed=seed)

    monkeypatch.setattr(importance, "_fanova", counted)
    result = found(*known(200))
    assert set(sizes) == {50}
    assert result.configurations == 200
    assert result.ranked[0] == "much"


def test_optuna_is_imported_only_when_asked():
    code = "import sys, cnnsearch.evidence.importance, cnnsearch.plots; sys.exit('optuna' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
