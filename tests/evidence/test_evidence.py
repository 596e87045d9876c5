"""What the tables are understood to say: settings, the best, right answers, comparisons."""

from __future__ import annotations

import functools
from dataclasses import replace

import pandas as pd
import pyarrow as pa
import pytest

from cnnsearch import plots
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

    def test_seeds_that_disagree_are_never_told_apart(self):
        """Two settings far apart on the images, but not in the same direction for each seed."""
        plans = [
            replace(plan, ability=plan.ability + shift)
            for plan in factory.grid_plans((0, 1, 2))[-6:]
            for shift in [{0: 2.5, 1: -0.5, 2: 0.5}[plan.seed] if plan.values["batch_size"] == 32 else 0.0]
        ]
        evidence = Evidence(factory.make(plans, [factory.GRID]))
        assert evidence.best is not None
        comparison = evidence.compare([tuple(evidence.configurations)])  # type: ignore[list-item]
        assert comparison is not None
        assert comparison.p_value < 0.001
        assert not comparison.seeds_agree
        assert len(evidence.near_best) == 1

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
