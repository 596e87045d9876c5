"""What the tables are understood to say: settings, the best, right answers, comparisons."""

from __future__ import annotations

import functools
from dataclasses import replace

import pandas as pd
import pyarrow as pa
import pytest

from cnnsearch import plots, stats
from cnnsearch.evidence.configurations import best_of, distinct, matched
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.results.parquet import EPOCHS, PREDICTIONS, TRIALS
from tests.report import factory


@functools.cache
def part1() -> Evidence:
    return Evidence(factory.part1())


@functools.cache
def seeds() -> Evidence:
    return Evidence(factory.part1(seeds=(0, 1, 2)))


class TestEvidence:
    def test_settings_join_seeds_and_nothing_else(self):
        assert len(part1().configurations) == 16
        assert len(seeds().configurations) == 16
        assert all(configuration.seeds == (0, 1, 2) for configuration in seeds().configurations)

    def test_scores_are_those_of_the_tables(self):
        trials = part1().tables.trials.set_index("trial_id")
        for configuration in part1().configurations:
            score = part1().score(configuration)
            assert score is not None
            assert score.value == trials.loc[configuration.key, "test_accuracy"]

    def test_right_answers_add_up_to_the_accuracy(self):
        for evidence in (part1(), seeds()):
            for configuration in evidence.configurations:
                correct = evidence.correct(configuration)
                assert correct is not None
                mean = correct.mean() / len(configuration.trial_ids)
                assert mean == pytest.approx(configuration.scores["test_accuracy"])

    def test_the_best_is_chosen_by_validation(self):
        evidence = Evidence(factory.validation_and_test_disagree())
        assert evidence.best is not None
        assert evidence.best.scores["val_accuracy"] == max(s.scores["val_accuracy"] for s in evidence.configurations)
        assert evidence.best.scores["test_accuracy"] < max(s.scores["test_accuracy"] for s in evidence.configurations)

    def test_the_earliest_of_equals_is_best_and_a_lost_seed_loses(self):
        a, b = part1().configurations[:2]
        tie = {"val_accuracy": 0.5}
        assert best_of([replace(a, scores=tie), replace(b, scores=tie)]) == replace(a, scores=tie)
        lost = replace(b, scores={"val_accuracy": 0.9}, trial_ids=())
        assert best_of([replace(a, scores=tie), lost]) == replace(a, scores=tie)

    def test_children_know_their_parent(self):
        evidence = part1()
        for configuration in evidence.stage("dropout"):
            parent = evidence.by_key[configuration.parent or ""]
            assert parent.stage == "grid"
            assert parent.model == configuration.model
            before = evidence.score(configuration, moment="before")
            assert before is not None
            assert before.value == parent.scores["test_accuracy"]

    def test_matched_pairs_differ_in_one_axis(self):
        pairs = matched(part1().stage("grid"), "lr", 0.001, 0.0001)
        assert len(pairs) == 4
        for a, b in pairs:
            assert {axis for axis in a.values if a.values[axis] != b.values[axis]} == {"lr"}

    def test_comparing_is_antisymmetric_and_pairs_seeds(self):
        a, b = seeds().configurations[0], seeds().configurations[-1]
        forth, back = seeds().compare([(a, b)]), seeds().compare([(b, a)])
        assert forth is not None
        assert back is not None
        assert forth.difference.value == pytest.approx(-back.difference.value)
        assert forth.p_value == pytest.approx(back.p_value)
        assert forth.seeds == 3

    def test_one_seed_of_a_pair_compares_networks_alone(self):
        a, b = part1().configurations[0], part1().configurations[-1]
        comparison, of_a, of_b = part1().compare([(a, b)]), part1().correct(a), part1().correct(b)
        assert comparison is not None
        assert of_a is not None
        assert of_b is not None
        assert (comparison.basis, comparison.can_tell) == ("networks", False)
        assert comparison.difference == pytest.approx(stats.paired_difference(of_a, of_b))
        assert comparison.p_value == pytest.approx(stats.sign_flip_exact(of_a - of_b))

    @pytest.mark.parametrize(("count", "basis"), [(1, "networks"), (2, "networks"), (3, "seeds"), (5, "seeds")])
    def test_settings_take_three_seeds(self, count, basis):
        evidence = Evidence(factory.make(factory.grid_plans(range(count))[: 4 * count], [factory.GRID]))
        a, b = evidence.configurations[:2]
        comparison = evidence.compare([(a, b)])
        assert comparison is not None
        assert comparison.basis == basis
        assert comparison.can_tell == (basis == "seeds")
        assert evidence.tells_settings_apart == (basis == "seeds")

    @pytest.mark.parametrize(("count", "basis"), [(2, "networks"), (3, "networks"), (4, "pairs")])
    def test_or_four_pairs_of_them(self, count, basis):
        pairs = matched(part1().stage("grid"), "lr", 0.001, 0.0001)[:count]
        comparison = part1().compare(pairs)
        assert comparison is not None
        assert (comparison.basis, comparison.pairs) == (basis, count)

    @pytest.mark.parametrize("count", [1, 2, 3, 5])
    def test_an_interval_covers_seeds_from_three_of_them(self, count):
        evidence = Evidence(factory.make(factory.grid_plans(range(count))[: 2 * count], [factory.GRID]))
        score = evidence.score(evidence.configurations[1])
        assert score is not None
        assert (score.seeds, score.covers_seeds) == (count, count >= 3)

    @pytest.mark.parametrize(
        ("shifts", "told"), [((2.5, -0.5, 0.5), False), ((1.0, 0.9, 1.1), True), ((0.0, 0.05, -0.05), False)]
    )
    def test_settings_are_told_apart_only_where_their_seeds_agree(self, shifts, told):
        """Two settings far apart on the images, in the same direction for each seed or not."""
        plans = [
            replace(plan, ability=plan.ability + (shifts[plan.seed] if plan.values["batch_size"] == 32 else 0.0))
            for plan in factory.grid_plans((0, 1, 2))[-6:]
        ]
        evidence = Evidence(factory.make(plans, [factory.GRID]))
        assert evidence.best is not None
        comparison = evidence.compare([tuple(evidence.configurations)])  # type: ignore[list-item]
        assert comparison is not None
        assert comparison.basis == "seeds"
        assert (comparison.p_value < 0.05) == told
        assert len(evidence.near_best) == (not told)
        assert len(evidence.told_apart) == told

    def test_with_one_seed_all_settings_may_be_best(self):
        assert len(part1().near_best) == 15
        assert part1().told_apart == part1().better_than_best == part1().incomplete == []

    def test_who_lost_to_the_best_cannot_be_best(self):
        evidence = seeds()
        assert evidence.told_apart
        best = {c.key for c in [*evidence.near_best, *filter(None, [evidence.best])]}
        assert not best & {c.key for c in evidence.told_apart}
        assert len(best) + len(evidence.told_apart) == 16

    def test_nullable_columns_give_the_same(self):
        """`to_pandas` may or may not be asked for pandas' own nullable types."""
        tables = factory.with_trouble()
        kinds = {pa.int64(): pd.Int64Dtype(), pa.float64(): pd.Float64Dtype(), pa.string(): pd.StringDtype()}
        nullable = {
            name: pa.Table.from_pandas(getattr(tables, name), schema=schema).to_pandas(types_mapper=kinds.get)
            for name, schema in (("trials", TRIALS), ("epochs", EPOCHS), ("predictions", PREDICTIONS))
        }
        ours, theirs = Evidence(tables), Evidence(replace(tables, **nullable))
        assert [s.values for s in ours.configurations] == [s.values for s in theirs.configurations]
        assert [s.scores for s in ours.configurations] == [s.scores for s in theirs.configurations]
        one, other = plots.all_settings(ours), plots.all_settings(theirs)
        assert one is not None
        assert other is not None
        assert plots.to_svg(one, "x") == plots.to_svg(other, "x")

    def test_without_predictions_nothing_is_told_apart(self):
        tables = factory.part1()
        evidence = Evidence(replace(tables, predictions=tables.predictions.iloc[:0]))
        assert len(evidence.near_best) == 15
        assert evidence.score(evidence.configurations[0]) == part1().score(part1().configurations[0])

    def test_numbers_ascend_and_words_keep_their_order(self):
        assert distinct(part1().configurations, "dropout") == [0.0, 0.01, 0.1, 0.25, 0.5]
        assert distinct(part1().configurations, "model") == ["plain", "residual"]
