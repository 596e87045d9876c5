"""Golden numbers from the papers (or counted by hand), scipy as a second opinion, and what must always hold."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, strategies as st
from numpy.typing import NDArray
from scipy import stats as reference

from cnnsearch import stats

Counts = NDArray[np.int_]

outcomes = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)
differences = st.lists(st.integers(-4, 4), min_size=1, max_size=10)
p_lists = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def sides(pairs: list[tuple[bool, bool]]) -> tuple[Counts, Counts]:
    """Two arrays of 0 and 1 from pairs of booleans."""
    return np.array([a for a, _ in pairs], int), np.array([b for _, b in pairs], int)


def table(only_a: int, only_b: int, n: int) -> tuple[Counts, Counts]:
    """Right answers of two sides that `only_a` and `only_b` examples tell apart."""
    a, b = np.zeros(n, int), np.zeros(n, int)
    a[:only_a] = 1
    b[only_a : only_a + only_b] = 1
    return a, b


class TestWilson:
    # Newcombe 1998, Stat. Med. 17:857, table I, method 3.
    @pytest.mark.parametrize(
        ("successes", "n", "low", "high"),
        [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
    )
    def test_agrees_with_newcombe(self, successes, n, low, high):
        assert stats.wilson(successes, n) == pytest.approx((low, high), abs=5e-5)

    def test_is_the_interval_of_the_sketch_in_the_specification(self):
        low, high = stats.wilson(789, 1000)
        assert (round(100 * low, 1), round(100 * high, 1)) == (76.3, 81.3)

    @given(st.integers(1, 2000), st.data())
    def test_agrees_with_scipy(self, n, data):
        k = data.draw(st.integers(0, n))
        expected = reference.binomtest(k, n).proportion_ci(0.9, method="wilson")
        assert stats.wilson(k, n, 0.9) == pytest.approx((expected.low, expected.high), abs=1e-9)

    @given(st.integers(1, 500), st.data())
    def test_holds_the_estimate_and_mirrors(self, n, data):
        k = data.draw(st.integers(0, n))
        low, high = stats.wilson(k, n)
        assert 0 <= low <= k / n <= high <= 1
        assert stats.wilson(n - k, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)

    @pytest.mark.parametrize(("successes", "n"), [(1, 0), (-1, 10), (11, 10)])
    def test_refuses_the_impossible(self, successes, n):
        with pytest.raises(ValueError, match="successes must lie between 0 and n"):
            stats.wilson(successes, n)


class TestScoreInterval:
    @given(st.floats(0, 1), st.floats(1, 5000), st.floats(0.5, 4))
    def test_holds_the_proportion_and_mirrors(self, p, n, z):
        low, high = stats.score_interval(p, n, z)
        assert 0 <= low <= p + 1e-12
        assert p - 1e-12 <= high <= 1
        assert stats.score_interval(1 - p, n, z) == pytest.approx((1 - high, 1 - low), abs=1e-9)

    @given(st.floats(0, 1), st.floats(1, 5000))
    def test_more_examples_and_less_certainty_make_it_narrower(self, p, n):
        low, high = stats.score_interval(p, n, 2)
        more, surer = stats.score_interval(p, 2 * n, 2), stats.score_interval(p, n, 3)
        assert more.high - more.low <= high - low <= surer.high - surer.low

    def test_is_wilsons_where_the_proportion_is_of_whole_examples(self):
        expected = stats.wilson(81, 263)
        assert stats.score_interval(81 / 263, 263, 1.959964) == pytest.approx(expected, abs=1e-6)


class TestMcNemar:
    """The sign-flip test of one pair of networks is McNemar's exact test."""

    # Discordant 1 and 7: 2 (C(8,0) + C(8,1)) / 2^8 by hand. The table of Bentur et al. in Fagerland et al. 2014.
    def test_golden(self):
        a, b = table(1, 7, 21)
        assert stats.sign_flip_exact(a - b) == pytest.approx(18 / 256)

    def test_never_disagreeing_is_no_evidence(self):
        assert stats.sign_flip_exact([0, 0, 0]) == 1.0

    @given(outcomes)
    def test_is_the_binomial_test_of_the_discordant_examples(self, pairs):
        a, b = sides(pairs)
        only_a, only_b = int(np.sum(a > b)), int(np.sum(b > a))
        expected = reference.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
        assert stats.sign_flip_exact(a - b) == pytest.approx(expected)
        assert stats.sign_flip_exact(b - a) == pytest.approx(expected)


class TestSignFlip:
    @given(differences)
    def test_counts_all_signs(self, values):
        observed = abs(sum(values))
        flips = itertools.product((-1, 1), repeat=len(values))
        hits = sum(abs(sum(s * abs(v) for s, v in zip(signs, values, strict=True))) >= observed for signs in flips)
        assert stats.sign_flip_exact(values) == pytest.approx(hits / 2 ** len(values), abs=1e-9)

    @given(differences, st.integers(2, 5))
    def test_does_not_depend_on_the_unit(self, values, unit):
        assert stats.sign_flip_exact([unit * v for v in values]) == pytest.approx(stats.sign_flip_exact(values))

    def test_many_steps_agree_with_the_exact_distribution(self, monkeypatch):
        values = np.random.default_rng(0).integers(-4, 6, 200)
        exact = stats.sign_flip_exact(values)
        monkeypatch.setattr(stats, "_EXACT_STEPS", 1)
        assert 1e-9 < exact < 0.05
        assert stats.sign_flip_exact(values) == pytest.approx(exact, rel=0.15)


class TestHolm:
    def test_golden(self):
        # R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
        assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])

    @given(p_lists)
    def test_lies_between_none_and_bonferroni_and_keeps_the_order(self, p_values):
        adjusted = stats.holm(p_values)
        assert all(p <= q <= min(1.0, len(p_values) * p) + 1e-12 for p, q in zip(p_values, adjusted, strict=True))
        ordered = [adjusted[i] for i in sorted(range(len(p_values)), key=lambda i: p_values[i])]
        assert ordered == sorted(ordered)

    @given(p_lists, st.randoms())
    def test_goes_with_its_p_value(self, p_values, random):
        order = list(range(len(p_values)))
        random.shuffle(order)
        shuffled = stats.holm([p_values[i] for i in order])
        assert shuffled == pytest.approx([stats.holm(p_values)[i] for i in order])

    @given(st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.01, 0.02, 0.05]), max_size=30), st.floats(0.01, 0.2))
    def test_the_bound_tells_the_same_p_values_as_the_adjustment(self, p_values, significance):
        bound = stats.holm_bound(np.array(p_values), significance)
        adjusted = stats.holm(p_values)
        for p, q in zip(p_values, adjusted, strict=True):
            if abs(q - significance) > 1e-12:  # where they are equal, rounding decides
                assert (p < bound) == (q < significance)

    def test_the_bound_of_nothing_lets_nothing_pass(self):
        assert stats.holm_bound(np.array([])) == 0


class TestPairedDifference:
    # Fagerland, Lydersen & Laake 2014, table V: airway hyper-responsiveness, discordant 1 and 7 of 21.
    def test_golden(self):
        estimate = stats.paired_difference(*table(1, 7, 21))
        assert estimate.value == pytest.approx(-6 / 21)
        # By hand: p12 = 2/23, p21 = 8/23, -6/23 -+ 1.96 sqrt((10/23 - 36/529) / 23)
        half = 1.959964 * math.sqrt((10 / 23 - 36 / 529) / 23)
        assert estimate[1:] == pytest.approx((-6 / 23 - half, -6 / 23 + half), abs=1e-6)
        assert estimate[1:] == pytest.approx((-0.508, -0.013), abs=5e-4)

    @given(outcomes)
    def test_holds_the_difference_and_turns_round(self, pairs):
        a, b = sides(pairs)
        value, low, high = stats.paired_difference(a, b)
        assert value == pytest.approx(a.mean() - b.mean())
        assert -1 <= low <= value <= high <= 1
        assert stats.paired_difference(b, a) == pytest.approx((-value, -high, -low))

    @given(outcomes)
    def test_never_claims_to_know_exactly(self, pairs):
        a, b = sides(pairs)
        _, low, high = stats.paired_difference(a, b)
        assert high - low > 0

    @given(outcomes)
    def test_the_mean_of_two_equal_networks_is_one_of_them(self, pairs):
        a, b = sides(pairs)
        assert stats.paired_difference((a + a) / 2, (b + b) / 2) == stats.paired_difference(a, b)

    def test_covers_the_truth_about_as_often_as_it_says(self):
        rng = np.random.default_rng(1)
        held = 0
        for _ in range(800):
            only_a, only_b, _ = rng.multinomial(120, [0.12, 0.05, 0.83])
            _, low, high = stats.paired_difference(*table(only_a, only_b, 120))
            held += low <= 0.07 <= high
        assert 0.93 <= held / 800 <= 0.98

    def test_refuses_nothing(self):
        with pytest.raises(ValueError, match="no examples"):
            stats.paired_difference([], [])


class TestMeanInterval:
    def test_golden(self):
        # By hand: mean 4, s = 2, t(0.975, 2) = 4.302653, so 4 -+ 4.302653 * 2 / sqrt(3)
        assert stats.mean_interval([2.0, 4.0, 6.0]) == pytest.approx((4.0, 4 - 4.96828, 4 + 4.96828), abs=1e-4)

    def test_one_value_says_nothing_of_its_spread(self):
        assert stats.mean_interval([0.7]) == (0.7, -math.inf, math.inf)

    @given(st.lists(st.floats(-10, 10), min_size=2, max_size=8))
    def test_agrees_with_scipy(self, values):
        mean, low, high = stats.mean_interval(values)
        error = np.std(values, ddof=1) / math.sqrt(len(values))
        if error > 1e-9:
            expected = reference.t.interval(0.95, len(values) - 1, np.mean(values), error)
            assert (low, high) == pytest.approx(expected)
        assert low <= mean <= high


def autocorrelated(curves: int, epochs: int, carried: float) -> NDArray[np.float64]:
    """Noise of variance 1 that carries a share of itself to the next epoch."""
    noise = np.random.default_rng(6).normal(size=(curves, epochs))
    for epoch in range(1, epochs):
        noise[:, epoch] = carried * noise[:, epoch - 1] + math.sqrt(1 - carried**2) * noise[:, epoch]
    return noise


class TestTurningEpoch:
    def test_golden(self):
        loss = [2.0, 1.5, 1.2, 1.1, 1.12, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8]
        assert stats.turning_epoch(loss) == 4
        assert stats.turning_epoch(loss, first_epoch=10) == 13

    def test_a_rise_of_fewer_than_three_epochs_is_no_turn(self):
        assert stats.turning_epoch([1.9, 1.7, 1.5, 1.3, 1.1, 1.5, 1.9]) is None

    def test_a_last_epoch_that_jumps_is_no_turn(self):
        """The noise of a real curve, whose loss is lowest at epoch 7 of 8."""
        assert stats.turning_epoch([1.188, 0.964, 0.827, 0.774, 0.775, 0.782, 0.644, 1.045]) is None

    def test_a_falling_curve_has_not_turned(self):
        assert stats.turning_epoch([2 * 0.9**i for i in range(40)]) is None

    def test_a_plateau_has_not_turned(self):
        assert stats.turning_epoch([*np.linspace(2, 1, 20), *[1.01] * 20]) is None

    def test_a_spike_is_no_minimum(self):
        loss = [*np.linspace(2, 0.5, 50), *np.linspace(0.5, 1.5, 50)]
        loss[20] = 0.1
        turn = stats.turning_epoch(loss)
        assert turn is not None
        assert abs(turn - 50) <= 2

    @pytest.mark.parametrize("carried", [0.0, 0.4, 0.8])
    @pytest.mark.parametrize("epochs", [8, 30, 100])
    @pytest.mark.parametrize("fall", [0.0, 0.6])
    def test_of_eight_curves_without_a_turn_hardly_ever_one_turns(self, epochs, carried, fall):
        curve = 1 + fall * np.exp(-5 * np.linspace(1 / epochs, 1, epochs))
        curves = curve + 0.1 * autocorrelated(150 * 8, epochs, carried)
        turned = np.array([stats.turning_epoch(loss.tolist()) is not None for loss in curves])
        assert turned.reshape(150, 8).any(axis=1).mean() <= 0.065  # 5 % and what 150 reports may miss it by

    @pytest.mark.parametrize("carried", [0.0, 0.8])
    @pytest.mark.parametrize(("epochs", "rise"), [(8, 40), (30, 20), (100, 10)])
    def test_a_rise_of_several_times_the_noise_is_found_where_it_starts(self, epochs, rise, carried):
        at = np.linspace(1 / epochs, 1, epochs)
        curve = 1 + 2 * np.exp(-9 * at) + 0.02 * rise * np.maximum(0, (at - 0.4) / 0.6)
        curves = curve + 0.02 * autocorrelated(100, epochs, carried)
        found = [turn for loss in curves if (turn := stats.turning_epoch(loss.tolist())) is not None]
        assert len(found) >= 70
        assert abs(np.median(found) - (1 + np.argmin(curve))) <= max(1, epochs / 20)

    @given(st.lists(st.floats(0.01, 10), min_size=0, max_size=60))
    def test_a_curve_that_turns_ends_above_its_lowest(self, loss):
        times = stats.ends_above_lowest(loss)
        assert times is None or times > 1.05
        assert times is not None or stats.turning_epoch(loss) is None

    def test_a_rise_too_rough_to_be_a_turn_still_ends_above_its_lowest(self):
        loss = [1.5, 0.9, 0.6, 0.5, 0.9, 0.5, 1.0, 0.6, 1.2, 0.7, 1.4, 1.0]
        assert stats.turning_epoch(loss) is None
        assert stats.ends_above_lowest(loss) == pytest.approx((0.7 + 1.4 + 1.0) / 3 / 0.5)

    def test_a_falling_curve_does_not_end_above_its_lowest(self):
        assert stats.ends_above_lowest([2 * 0.9**i for i in range(40)]) is None

    @given(st.integers(0, 1000))
    def test_the_epoch_named_is_where_the_smoothed_loss_is_lowest(self, seed):
        loss = np.abs(np.linspace(-1, 2, 20)) + 0.02 * np.random.default_rng(seed).normal(size=20) + 1
        turn = stats.turning_epoch(loss.tolist())
        assert turn is not None
        smooth = [np.median(loss[max(0, i - 1) : i + 2]) for i in range(20)]
        assert loss[turn - 1] <= min(smooth[:-1])

    def test_noise_on_a_turn_does_not_hide_it(self):
        rng = np.random.default_rng(7)
        curve = np.concatenate([np.linspace(2, 0.8, 30), np.linspace(0.8, 1.8, 70)])
        turns = [stats.turning_epoch((curve + 0.05 * rng.normal(size=100)).tolist()) for _ in range(100)]
        found = [turn for turn in turns if turn is not None]
        assert len(found) == 100
        assert np.median(np.abs(np.array(found) - 30)) <= 4

    @given(st.lists(st.floats(0.01, 10), min_size=0, max_size=60), st.integers(-3, 100))
    def test_lies_within_the_curve(self, loss, first):
        turn = stats.turning_epoch(loss, first)
        assert turn is None or (len(loss) >= 6 and first <= turn < first + len(loss))

    @given(st.lists(st.floats(0.01, 10), min_size=4, max_size=40), st.lists(st.floats(0, 9), max_size=5))
    def test_ignores_what_follows_a_breakdown(self, loss, rest):
        assert stats.turning_epoch([*loss, math.nan, *rest]) == stats.turning_epoch(loss)


class TestUnevenClasses:
    def test_which_classes_are_uneven(self):
        assert stats.are_uneven([95, 5])
        assert not stats.are_uneven([60, 40])
        assert stats.are_uneven([30, 10, 10, 0])
        assert not stats.are_uneven([])

    def test_golden(self):
        value, p_value = stats.balanced_accuracy([760, 40], [950, 50])
        assert value.value == pytest.approx(0.8)
        assert value.low == pytest.approx(0.743, abs=0.002)
        assert p_value < 1e-10

    @pytest.mark.parametrize("named", [0.0, 0.02, 0.3, 1.0])
    @pytest.mark.parametrize("sizes", [(95, 5), (190, 10), (950, 50)])
    def test_guessing_hardly_ever_passes(self, named, sizes):
        rng = np.random.default_rng(8)
        right = np.stack([rng.binomial(sizes[0], 1 - named, 400), rng.binomial(sizes[1], named, 400)], axis=1)
        passed = [stats.balanced_accuracy(one.tolist(), sizes)[1] < 0.05 for one in right]
        assert np.mean(passed) <= 0.08  # 5 %, and what 400 may miss it by

    def test_a_recall_of_80_percent_passes(self):
        rng = np.random.default_rng(9)
        right = np.stack([rng.binomial(190, 0.8, 200), rng.binomial(10, 0.8, 200)], axis=1)
        assert np.mean([stats.balanced_accuracy(one.tolist(), (190, 10))[1] < 0.05 for one in right]) > 0.9


def test_one_turn_in_eight_curves_is_more_than_noise_and_one_in_sixteen_is_not():
    assert stats.more_than_noise_turns(1, 8)
    assert not stats.more_than_noise_turns(1, 16)
    assert stats.more_than_noise_turns(2, 16)
    assert not stats.more_than_noise_turns(0, 8)


class TestChance:
    def test_golden(self):
        # 1 - pbinom(29, 200, 0.1) in R
        result = stats.better_than_chance(30, 200, 10)
        assert result.chance == pytest.approx(0.1)
        assert result.p_value == pytest.approx(reference.binomtest(30, 200, 0.1, "greater").pvalue)
        assert result.p_value == pytest.approx(0.016327, abs=1e-6)
        assert result.better

    def test_chance_is_the_largest_class_where_classes_differ(self):
        assert stats.better_than_chance(60, 100, [70, 30]).chance == pytest.approx(0.7)
        assert not stats.better_than_chance(60, 100, [70, 30]).better
        assert stats.better_than_chance(60, 100, 2).better

    @given(st.integers(1, 300), st.integers(2, 50), st.data())
    def test_more_right_answers_are_more_evidence(self, n, classes, data):
        k = data.draw(st.integers(0, n - 1))
        assert stats.better_than_chance(k + 1, n, classes).p_value <= stats.better_than_chance(k, n, classes).p_value
        assert stats.better_than_chance(0, n, classes).p_value == 1.0
