"""Differences over seeds and images: hand-computed cases, and what holds for any table of answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st
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


def test_portions_of_pairs_give_what_all_at_once_give(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = [Answered.of(drawn(seed, 2 + seed % 3)) for seed in range(7)]
    value, p_values = crossed.between_all(sides)
    assert np.array_equal(p_values, p_values.T)
    for together in (1, 14, 20):
        monkeypatch.setattr(crossed, "TOGETHER", together)
        again = crossed.between_all(sides)
        assert np.array_equal(again[0], value)
        assert np.array_equal(again[1], p_values)


@given(st.integers(0, 200), st.integers(2, 9), st.sampled_from([0, 30]))
def test_many_tables_of_differences_are_judged_as_each_is(seed: int, replicates: int, worth: int) -> None:
    tables = np.random.default_rng(seed).integers(-1, 2, (4, replicates, 23)) / 3
    tables[0] = 0.0
    one_by_one = [crossed.differs_from_zero(Answered.of(table, worth)) for table in tables]
    assert crossed.all_differ_from_zero(tables, worth) == one_by_one


def test_a_mean_of_all_right_has_an_interval_that_ends_at_one() -> None:
    found = crossed.mean_of(Answered.of(np.ones((3, 50))))

    assert found.value == found.high == 1
    assert 0.9 < found.low < 1


def test_one_replicate_has_no_interval_over_replicates() -> None:
    with pytest.raises(ValueError, match="two"):
        crossed.mean_of(Answered.of(np.ones((1, 50))))
    with pytest.raises(ValueError, match="no examples"):
        crossed.difference(Answered(np.ones(0), 2, 0.0, 0.0, 1.0), Answered(np.ones(0), 2, 0.0, 0.0, 1.0))


@given(st.integers(0, 200), st.integers(2, 5))
def test_the_luck_of_a_choice_is_part_of_the_lead(seed: int, count: int) -> None:
    sides = [Answered.of(drawn(seed + i, 5)) for i in range(count)]
    means = [float(side.mean.mean()) for side in sides]
    best = int(np.argmax(means))

    of_seeds = crossed.luck_of_the_best(sides, best, on_same_images=False)
    of_both = crossed.luck_of_the_best(sides, best, on_same_images=True)

    assert 0 <= of_seeds <= of_both <= means[best] - np.mean(means) + 1e-12


def sides_of(spreads: list[float], replicates: int = 3, seed: int = 0) -> list[Answered]:
    """Sides of 400 images whose replicates differ by these standard deviations."""
    rng = np.random.default_rng(seed)
    tables = [rng.normal(0.8, 0.05, (replicates, 400)) + rng.normal(0, sd, (replicates, 1)) for sd in spreads]
    return [Answered.of(table) for table in tables]


def test_sides_that_vary_alike_vouch_for_each_other() -> None:
    sides = sides_of([0.01] * 16)
    shared = crossed.sharing_spread(sides)
    for before, after in zip(sides, shared, strict=True):
        assert after.between >= before.between  # nobody is made to look steadier
        assert after.degrees == 2 or after.degrees > 5
        assert (after.degrees == 2) == (after.between == before.between)
    quiet = [side.between for side in shared if side.degrees > 2]
    assert 0.3 * 0.01**2 / 3 < min(quiet) <= max(quiet) < 3 * 0.01**2 / 3


def test_sides_that_differ_in_their_spread_vouch_for_less() -> None:
    alike, unlike = (
        max(side.degrees for side in crossed.sharing_spread(sides_of(spreads)))
        for spreads in ([0.01] * 16, [0.001, 0.1] * 8)
    )
    assert unlike < 4 < alike


def test_too_few_sides_say_nothing_of_each_other() -> None:
    sides = sides_of([0.01] * 3)
    assert crossed.sharing_spread(sides) == sides
    alone = [Answered.of(np.ones((1, 50)))] * 5
    assert crossed.sharing_spread(alone) == alone


def test_replicates_that_agree_by_luck_are_not_taken_for_certain() -> None:
    sides = [*sides_of([0.01] * 7), Answered.of(np.ones((3, 400)))]
    assert sides[-1].between == 0
    assert crossed.sharing_spread(sides)[-1].between > 0.3 * 0.01**2 / 3


@given(st.lists(st.floats(0.0001, 0.2), min_size=4, max_size=20), st.integers(2, 8))
def test_no_spread_is_shared_beyond_what_all_know(spreads: list[float], replicates: int) -> None:
    shared = crossed.sharing_spread(sides_of(spreads, replicates))
    for side in shared:
        assert replicates - 1 <= side.degrees <= len(spreads) * (replicates - 1)
        assert np.isfinite(side.between)
