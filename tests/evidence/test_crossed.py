"""Differences over seeds and images: hand-computed cases, and what holds for any table of answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import special

from cnnsearch.evidence import crossed
from cnnsearch.evidence.crossed import Answered

seeds_of = st.integers(2, 6)


def drawn(seed: int, seeds: int, images: int = 60, share: float = 0.7) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    return (rng.random((seeds, images)) < share).astype(np.float64)


def test_variances_are_those_of_a_two_way_layout() -> None:
    table = np.array([[1.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 1.0]])

    found = Answered.of(table)

    rows = table.mean(axis=1)
    rest = table - table.mean(axis=0) - rows[:, None] + table.mean()
    assert found.between == pytest.approx(rows.var(ddof=1) / 2)
    assert found.single == pytest.approx((rest**2).sum() / (1 * 3) / (2 * 4))


def test_without_images_worth_mentioning_it_is_welchs_t_over_the_seeds() -> None:
    # Every image is answered alike within a seed, so that only the seeds vary.
    a = np.repeat([[0.70], [0.74], [0.72]], 200, axis=1)
    b = np.repeat([[0.60], [0.66], [0.63], [0.61]], 200, axis=1)

    found = crossed.difference(Answered.of(a), Answered.of(b))

    parts = [float(np.var(side[:, 0], ddof=1)) / len(side) for side in (a, b)]
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 2 + parts[1] ** 2 / 3)
    over_seeds = float(special.stdtrit(freedom, 0.975)) * math.sqrt(sum(parts))
    assert found.estimate.value == pytest.approx(0.72 - 0.625)
    assert found.estimate.high - found.estimate.value >= over_seeds - 1e-12


@given(st.integers(0, 500), seeds_of, seeds_of)
def test_turned_around_it_is_the_same_difference(seed: int, k_a: int, k_b: int) -> None:
    a, b = Answered.of(drawn(seed, k_a)), Answered.of(drawn(seed + 1, k_b, share=0.6))

    one, other = crossed.difference(a, b), crossed.difference(b, a)

    assert one.p_value == pytest.approx(other.p_value)
    assert one.estimate.low == pytest.approx(-other.estimate.high)


@given(st.integers(0, 500), seeds_of, seeds_of)
def test_interval_and_p_value_agree(seed: int, k_a: int, k_b: int) -> None:
    found = crossed.difference(Answered.of(drawn(seed, k_a)), Answered.of(drawn(seed + 1, k_b, share=0.6)))

    excludes = found.estimate.low > 0 or found.estimate.high < 0
    assert excludes == (found.p_value < 0.05)


@given(st.integers(0, 200), st.lists(seeds_of, min_size=2, max_size=4))
def test_all_pairs_at_once_are_the_pairs_one_by_one(seed: int, replicates: list[int]) -> None:
    sides = [Answered.of(drawn(seed + i, k)) for i, k in enumerate(replicates)]

    value, p_values = crossed.between_all(sides)

    for i, a in enumerate(sides):
        for j, b in enumerate(sides):
            if i != j:
                one = crossed.difference(a, b)
                assert value[i, j] == pytest.approx(one.estimate.value)
                assert p_values[i, j] == pytest.approx(one.p_value)


def test_a_mean_of_all_right_has_an_interval_that_ends_at_one() -> None:
    found = crossed.mean_of(Answered.of(np.ones((3, 50))))

    assert found.value == found.high == 1
    assert 0.9 < found.low < 1


def test_one_replicate_has_no_interval_over_replicates() -> None:
    with pytest.raises(ValueError, match="two"):
        crossed.mean_of(Answered.of(np.ones((1, 50))))
    with pytest.raises(ValueError, match="no examples"):
        crossed.difference(Answered(np.ones(0), 2, 0.0, 0.0), Answered(np.ones(0), 2, 0.0, 0.0))


@given(st.integers(0, 200), st.integers(2, 5))
def test_the_luck_of_a_choice_is_part_of_the_lead(seed: int, count: int) -> None:
    sides = [Answered.of(drawn(seed + i, 5)) for i in range(count)]
    means = [float(side.mean.mean()) for side in sides]
    best = int(np.argmax(means))

    of_seeds = crossed.luck_of_the_best(sides, best, on_same_images=False)
    of_both = crossed.luck_of_the_best(sides, best, on_same_images=True)

    assert 0 <= of_seeds <= of_both <= means[best] - np.mean(means) + 1e-12
