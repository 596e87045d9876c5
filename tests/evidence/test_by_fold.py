"""Means over folds: Nadeau and Bengio's variance, and that "clear" is seldom wrong where settings are equally good."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import special

from benchmarks.folds import told_apart
from cnnsearch.evidence import by_fold
from cnnsearch.evidence.crossed import mean_of
from cnnsearch.spec.data import FoldsSplit

A = np.array([0.80, 0.70, 0.75, 0.90, 0.85])
B = np.array([0.70, 0.68, 0.61, 0.80, 0.81])


def test_a_difference_is_students_t_with_the_corrected_variance() -> None:
    found = by_fold.difference(A, B, 5, 0)

    d = A - B
    error = math.sqrt((1 / 5 + 1 / 4) * d.var(ddof=1))
    half = float(special.stdtrit(4, 0.975)) * error
    assert found.estimate == pytest.approx((d.mean(), d.mean() - half, d.mean() + half))
    assert found.p_value == pytest.approx(2 * special.stdtr(4, -d.mean() / error))


def test_repeats_count_as_folds_and_leave_what_the_folds_share() -> None:
    twice, many = (by_fold.condensed(np.tile(A, n), 5, 0) for n in (2, 200))
    assert twice.between == pytest.approx((1 / 10 + 1 / 4) * np.tile(A, 2).var(ddof=1))
    assert many.between == pytest.approx(A.var() / 4, rel=0.05)


def test_folds_that_agree_by_luck_are_not_taken_for_sure() -> None:
    same = by_fold.difference(np.full(3, 0.75), np.full(3, 0.5), 3, 4)
    assert same.p_value > 0.05
    alone = mean_of(by_fold.condensed(np.full(5, 0.75), 5, 20))
    assert alone.high - alone.low > 0.2


@given(st.integers(0, 500), st.integers(2, 5), st.integers(3, 8))
def test_all_pairs_at_once_are_the_pairs_one_by_one(seed: int, sides: int, folds: int) -> None:
    rng = np.random.default_rng(seed)
    scores = [dict(enumerate(rng.random(folds))) for _ in range(sides)]
    if sides > 2:
        del scores[2][0]  # whose first fold failed

    value, p_values = by_fold.between_all(scores, folds, 10)

    assert np.array_equal(value, -value.T)
    assert np.array_equal(p_values, p_values.T)
    for i in range(sides):
        for j in range(i + 1, sides):
            a, b = by_fold.shared([scores[i], scores[j]])
            assert len(a) == folds - (2 in (i, j))
            one = by_fold.difference(a, b, folds, 10)
            assert (value[i, j], p_values[i, j]) == pytest.approx((one.estimate.value, one.p_value))


@given(st.integers(0, 500), st.integers(2, 6))
def test_without_what_a_fold_does_to_all_means_stay_and_folds_cancel(seed: int, sides: int) -> None:
    rng = np.random.default_rng(seed)
    table, fold = rng.random((sides, 5)), 100 * rng.random(5)

    plain, shifted = (
        by_fold.without_the_folds([dict(enumerate(row)) for row in rows]) for rows in (table, table + fold)
    )

    assert [row.mean() for row in plain] == pytest.approx(table.mean(axis=1))
    assert np.allclose(np.stack(plain), np.stack(shifted) - fold.mean())


@pytest.mark.parametrize("split", [FoldsSplit(k=5), FoldsSplit(k=5, repeats=4)])
def test_settings_that_are_equally_good_are_seldom_told_apart(split: FoldsSplit) -> None:
    corrected, naive = told_apart(split, images=60, times=300)
    assert corrected <= 0.05
    if split.repeats > 1:  # what the correction is for
        assert naive > 0.2


def test_a_setting_that_is_better_is_found() -> None:
    assert told_apart(FoldsSplit(k=5, repeats=3), images=200, times=40, better=0.4)[0] > 0.9
