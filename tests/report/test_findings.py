"""The sentences: what they claim, how sure they are, and that every number in them is in the tables."""

from __future__ import annotations

import functools
import re
from dataclasses import replace

import numpy as np
import pytest

from cnnsearch import stats
from cnnsearch.evidence.comparisons import Comparison
from cnnsearch.evidence.configurations import best_of, matched
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.evidence.verdicts import judge
from cnnsearch.report.claims import Claim, Finding, tell_all
from cnnsearch.report.findings import answer, findings, summary
from cnnsearch.report.words import points
from tests.report import factory

VARIANTS = (
    "part1", "with_trouble", "one_trial", "all_failed", "at_chance", "two_classes", "lr_only", "optimizers",
    "validation_and_test_disagree",
)  # fmt: skip


@functools.cache
def evidence_of(name: str) -> Evidence:
    return Evidence(factory.part1(seeds=(0, 1, 2)) if name == "seeds" else getattr(factory, name)())


def told(name: str, anchor: str) -> list[Finding]:
    return [finding for finding in findings(evidence_of(name)) if finding.anchor == anchor]


def comparison(value: float = 0.02, half: float = 0.015, p: float = 0.01, *, seeds_agree: bool = True) -> Comparison:
    estimate = stats.Estimate(value, value - half, value + half)
    return Comparison(estimate, p, pairs=1, seeds=1, seeds_agree=seeds_agree, disagreement=0.1)


class TestJudging:
    def test_verdicts(self):
        assert judge(comparison(), 0.04) == "clear"
        assert judge(comparison(), 0.06) == "suggestive"
        assert judge(comparison(half=0.03), 0.06) == "cannot tell"
        assert judge(comparison(seeds_agree=False), 0.001) == "cannot tell"

    def test_one_family_for_all_comparisons(self):
        """p = 0.02 is clear alone and only suggestive among three."""

        def claim(p: float) -> Claim:
            return Claim((comparison(p=p),), lambda verdicts: Finding("", verdicts[0], ""))

        assert [f.verdict for f in tell_all([claim(0.02)])] == ["clear"]
        assert tell_all([claim(p) for p in (0.02, 0.3, 0.4)])[0].verdict == "suggestive"


@pytest.mark.parametrize("name", [*VARIANTS, "seeds"])
class TestEverySentence:
    def test_accuracies_carry_their_interval(self, name):
        for text in [answer(evidence_of(name)).sentence, *(f.sentence for f in findings(evidence_of(name)))]:
            bare = re.findall(r"\d\.\d %(?! \(\d+\.\d–\d+\.\d\))", text)
            assert bare == []

    def test_differences_carry_their_interval(self, name):
        for finding in findings(evidence_of(name)):
            assert re.findall(r"\d points(?! \(−?\d+\.\d to −?\d+\.\d\))", finding.sentence) == []

    def test_accuracies_are_those_of_the_tables(self, name):
        evidence = evidence_of(name)
        known = {
            score.text
            for configuration in evidence.configurations
            for split in ("val", "test")
            for moment in ("best", "before")
            if (score := evidence.score(configuration, split, moment))
        }
        for text in [answer(evidence).sentence, *(f.sentence for f in findings(evidence))]:
            assert set(re.findall(r"\d+\.\d % \(\d+\.\d–\d+\.\d\)", text)) <= known

    def test_there_are_at_most_seven(self, name):
        assert len(findings(evidence_of(name))) <= 7


class TestModels:
    def test_the_difference_is_that_of_the_best_of_each(self):
        evidence = evidence_of("part1")
        grid = evidence.stage("grid")
        residual, plain = (best_of(s for s in grid if s.model == model) for model in ("residual", "plain"))
        assert residual is not None
        assert plain is not None
        paired = evidence.compare([(residual, plain)])
        assert paired is not None
        (finding,) = told("part1", "all-settings")
        assert finding.sentence.startswith("Residual blocks help: ")
        assert points(paired.difference) in finding.sentence
        assert "residual is ahead at all 4 settings they share" in finding.sentence
        assert finding.verdict == "clear"

    def test_three_models_are_ranked_by_validation(self):
        (finding,) = told("optimizers", "all-settings")
        assert finding.sentence.startswith("Of 3 models, resnet18 is best by validation with ")
        assert finding.sentence.index("residual by") < finding.sentence.index("plain by")

    def test_guessing_networks_cannot_be_told_apart(self):
        verdicts = {finding.verdict for finding in told("at_chance", "all-settings")}
        assert verdicts == {"cannot tell"}
        assert "None of 8 settings can be told from chance (10 %)" in told("at_chance", "all-settings")[-1].sentence


class TestAxes:
    def test_an_effect_is_averaged_over_matched_settings(self):
        evidence = evidence_of("part1")
        pairs = matched(evidence.stage("grid"), "lr", 0.001, 0.0001)
        mean = np.mean([a.scores["test_accuracy"] - b.scores["test_accuracy"] for a, b in pairs])
        (finding,) = [f for f in told("part1", "heatmaps") if "earning rate" in f.sentence]
        assert finding.verdict == "clear"
        assert f"Learning rate 0.001 is better than 0.0001 by {100 * mean:.1f} points" in finding.sentence
        assert "averaged over 4 matched settings" in finding.sentence

    def test_no_effect_is_said_to_be_none(self):
        (finding,) = [f for f in told("part1", "heatmaps") if "atch size" in f.sentence]
        assert finding.verdict == "cannot tell"
        assert "Batch sizes 16 and 32 cannot be told apart" in finding.sentence

    def test_several_values_are_compared_with_the_best_by_validation(self):
        (finding,) = told("lr_only", "heatmaps")
        assert finding.sentence.startswith("Of 4 learning rates, 0.001 is best by validation: ")
        assert finding.sentence.count("ahead of") == 3
        assert finding.verdict == "clear"

    def test_partly_clear_is_suggestive(self):
        (finding,) = told("optimizers", "heatmaps")
        assert "not told apart from adam" in finding.sentence
        assert "ahead of sgd" in finding.sentence
        assert finding.verdict == "suggestive"

    def test_models_that_want_opposite_values_are_told_one_by_one(self):
        plans = [
            replace(plan, ability=0.5 + 0.5 * ((plan.values["model"] == "plain") == (plan.values["lr"] == 0.001)))
            for plan in factory.grid_plans()
        ]
        sentences = [f.sentence for f in findings(Evidence(factory.make(plans, [factory.GRID])))]
        (sentence,) = [s for s in sentences if "learning rate" in s]
        assert sentence.startswith("The better learning rate depends on the model: plain does better with 0.001")
        assert "residual does better with 0.0001 than with 0.001" in sentence


class TestGoingOn:
    def test_before_after_and_siblings(self):
        evidence = evidence_of("part1")
        plain, residual = told("part1", "continued-dropout")
        for finding, model in ((plain, "plain"), (residual, "residual")):
            best = best_of(s for s in evidence.stage("dropout") if s.model == model)
            assert best is not None
            before, after = evidence.score(best, moment="before"), evidence.score(best)
            assert before is not None
            assert after is not None
            assert f"from {before.text} to {after.text}" in finding.sentence
            assert f"dropout {best.values['dropout']:g} for 10 more epochs" in finding.sentence
        assert residual.verdict == "clear"
        assert "dropout 0.25 cannot be told apart from it" in residual.sentence

    def test_without_a_control_the_cause_is_left_open(self):
        for finding in told("part1", "continued-dropout"):
            assert "No arm goes on without dropout, so the extra epochs alone may explain it." in finding.sentence

    def test_a_control_that_wins_leaves_nothing_to_explain(self):
        def children(rows, plans):
            parent = plans[-1]
            return [
                replace(parent, stage="dropout", parent=parent.trial_id, ability=parent.ability + gain,
                        values={**parent.values, "dropout": rate})
                for rate, gain in ((0.0, 1.0), (0.5, -1.0))
            ]  # fmt: skip

        stage = {**factory.DROPOUT, "space": {"dropout": {"grid": [0.0, 0.5]}}}
        tables = factory.make(factory.grid_plans()[-1:], [factory.GRID, stage], children=children)
        (finding,) = [f for f in findings(Evidence(tables)) if f.anchor == "continued-dropout"]
        assert "with no dropout for 10 more epochs raises test accuracy" in finding.sentence
        assert finding.sentence.endswith("the other value is worse.")

    def test_a_control_is_what_counts(self):
        """All children gain alike, also the one without dropout: dropout then did nothing."""

        def children(rows, plans):
            parent = plans[-1]
            return [
                replace(parent, stage="dropout", parent=parent.trial_id, ability=parent.ability + 0.5,
                        values={**parent.values, "dropout": rate})
                for rate in (0.0, 0.1)
            ]  # fmt: skip

        stage = {**factory.DROPOUT, "space": {"dropout": {"grid": [0.0, 0.1]}}}
        tables = factory.make(factory.grid_plans()[-1:], [factory.GRID, stage], children=children)
        evidence = Evidence(tables)
        best = best_of(evidence.stage("dropout"))
        assert best is not None
        assert best.values["dropout"] == 0.1  # else the control won, and there is nothing to hold against it
        (finding,) = [f for f in findings(evidence) if f.anchor == "continued-dropout"]
        assert "raises test accuracy" in finding.sentence
        assert "Against going on unchanged the difference is" in finding.sentence
        assert "may explain" not in finding.sentence
        assert finding.verdict == "cannot tell"


class TestOverfitting:
    def test_where_it_starts(self):
        (finding,) = told("part1", "curves")
        evidence = evidence_of("part1")
        turns = [evidence.turn(s.key) for s in evidence.stage("grid")]
        known = [turn for turn in turns if turn is not None]
        assert 0 < len(known) < 0.8 * len(turns)
        assert f"may start between epochs {min(known)} and {max(known)} of 10" in finding.sentence
        assert f"in {len(known)} of 8 settings" in finding.sentence
        assert finding.verdict == "suggestive"

    @pytest.mark.parametrize(
        ("seeds", "count", "where"),
        [((0,), 8, "in all 8 settings"), ((0,), 2, "in both settings"), ((0,), 1, "turns while"),
         ((0, 1), 2, "in both trials"), ((0, 1), 4, "in all 4 trials")],
    )  # fmt: skip
    def test_how_many_turned_is_told(self, seeds, count, where):
        plans = [replace(plan, turn=0.2) for plan in factory.grid_plans(seeds)[:count]]
        tables = factory.make(plans, [factory.GRID], epochs=30)
        (finding,) = [f for f in findings(Evidence(tables)) if f.anchor == "curves"]
        assert finding.sentence.startswith("Overfitting starts ")
        assert where in finding.sentence
        assert finding.verdict == "clear"

    def test_where_it_does_not(self):
        plans = [replace(plan, turn=2.0) for plan in factory.grid_plans()]
        (finding,) = [f for f in findings(Evidence(factory.make(plans, [factory.GRID]))) if f.anchor == "curves"]
        assert finding.sentence == (
            "No overfitting is seen: validation loss does not clearly turn within 10 epochs in any of 8 settings."
        )
        assert finding.verdict == "cannot tell"


class TestAnswer:
    def test_names_the_best_and_its_rivals(self):
        evidence = evidence_of("part1")
        best = evidence.best
        assert best is not None
        score = evidence.score(best)
        assert score is not None
        sentence = answer(evidence).sentence
        assert sentence.startswith(f"Best by validation is {evidence.label(best)}: it gets {score.text} of 1,000 ")
        assert sentence.endswith("but the same with dropout 0.25 cannot be told apart from it.")
        assert answer(evidence).verdict == "suggestive"

    def test_the_winner_is_chosen_by_validation_and_what_beats_it_on_test_is_named(self):
        sentence = answer(evidence_of("validation_and_test_disagree")).sentence
        assert sentence.startswith("Best by validation is batch 16: it gets 70.0 % (67.1–72.8)")
        assert "batch 32, which validation ranked lower, does better on them with 80.0 % (77.4–82.4)" in sentence
        assert answer(evidence_of("validation_and_test_disagree")).verdict == "cannot tell"

    @pytest.mark.parametrize(
        ("name", "start", "verdict"),
        [
            ("lr_only", "Best by validation is lr 0.001", "clear"),
            ("one_trial", "The one setting that finished, residual, lr 0.001, batch 32, gets", "cannot tell"),
            ("all_failed", "No answer: all 8 trials failed.", "cannot tell"),
            ("at_chance", "No setting can be said to work", "cannot tell"),
        ],
    )
    def test_other_endings(self, name, start, verdict):
        result = answer(evidence_of(name))
        assert result.sentence.startswith(start)
        assert result.verdict == verdict

    def test_settings_level_with_the_best_are_counted(self):
        tables = factory.lr_only()
        level = Evidence(replace(tables, trials=tables.trials.assign(val_accuracy=0.5)))
        assert ", the first of 4 with the same validation accuracy: it gets" in answer(level).sentence
        assert "the first of" not in answer(Evidence(tables)).sentence

    def test_what_the_rivals_share_is_what_is_settled(self):
        sentence = answer(Evidence(factory.many(100))).sentence
        assert re.search(
            r"but \d+ of 99 other settings, all residual( with .*)?, cannot be told apart from it", sentence
        )


def one_in_twenty(abilities: list[float]) -> Evidence:
    """Settings of learning rates, tested on 20 times as many cats as dogs."""
    plans = [
        factory.Plan("rates", {"model": "plain", "lr": 10.0**-index}, ability)
        for index, ability in enumerate(abilities)
    ]
    stage = {"name": "rates", "space": {"lr": {"grid": [plan.values["lr"] for plan in plans]}}}
    tables = factory.make(plans, [stage], classes=("cat", "dog"), test_per_class=1000)
    kept = tables.predictions
    dogs = (kept["label"] == "dog") & (kept["split"] == "test")
    kept = kept[~dogs | (kept["example"].str[-9:-4].astype(int) < 1050)]
    tests = kept[kept["split"] == "test"]
    accuracy = (tests["label"] == tests["predicted"]).groupby(tests["trial_id"]).mean()
    trials = tables.trials.assign(test_accuracy=tables.trials["trial_id"].map(accuracy))
    counts = {**tables.data["counts"], "test": tests.groupby(["trial_id", "label"]).size().iloc[:2].tolist()}
    return Evidence(replace(tables, predictions=kept, trials=trials, data={**tables.data, "counts": counts}))


class TestChance:
    def test_settings_that_find_both_of_two_uneven_classes_work(self):
        evidence = one_in_twenty([1.2, 1.0])
        assert evidence.class_counts("test") == [1000, 50]
        assert evidence.any_beats_chance
        assert answer(evidence).sentence.startswith("Best by validation is")
        (found,) = [f.sentence for f in findings(evidence) if "uneven" in f.sentence]
        assert "always naming the largest would get 95.2 %" in found
        assert "that of guessing 50 %" in found
        assert not any("told from chance" in finding.sentence for finding in findings(evidence))

    def test_none_is_said_only_where_it_is_true_of_all(self):
        plans = [replace(plan, ability=-9.0) for plan in factory.grid_plans()[:6]] + factory.grid_plans()[6:]
        evidence = Evidence(factory.make(plans, [factory.GRID]))
        sentences = [finding.sentence for finding in findings(evidence)]
        assert "6 of 8 settings cannot be told from chance (10 %) on the test images." in sentences

    def test_that_the_best_by_validation_guesses_is_not_said_of_the_others(self):
        tables = factory.make([replace(p, ability=-9.0 if i else 1.0) for i, p in enumerate(factory.grid_plans())],
                              [factory.GRID])  # fmt: skip
        trials = tables.trials.assign(val_accuracy=[0.1 + 0.1 * (row == 7) for row in range(8)])
        sentence = answer(Evidence(replace(tables, trials=trials))).sentence
        assert sentence.startswith("The best by validation cannot be said to work: ")
        assert sentence.endswith("1 other setting is better than chance on the test images.")

    def test_of_many_that_guess_the_luckiest_is_no_exception(self):
        """The best of 64 guesses passes an uncorrected test."""
        rng = np.random.default_rng(3)
        p_values = [stats.better_than_chance(int(k), 500, 10).p_value for k in rng.binomial(500, 0.1, 64)]
        assert min(p_values) < 0.05 < min(stats.holm(p_values))


def test_divergence_is_a_finding_with_what_the_lost_share():
    plans = [replace(p, status="diverged") if p.values["lr"] == 0.001 else p for p in factory.grid_plans()]
    (finding,) = [f for f in findings(Evidence(factory.make(plans, [factory.GRID]))) if f.anchor == "trials"]
    assert finding.sentence == "4 trials of 8 diverged, all with lr 0.001."


def test_where_none_finished_it_says_how_they_ended():
    def sentence(*statuses: str) -> str:
        plans = [replace(p, status=s) for p, s in zip(factory.grid_plans(), statuses, strict=False)]
        return answer(Evidence(factory.make(plans, [factory.GRID]))).sentence

    assert sentence("diverged") == "No answer: the one trial diverged: the loss was no longer a number."
    assert sentence(*["diverged"] * 8) == "No answer: all 8 trials diverged: the loss was no longer a number."
    assert sentence("diverged", "failed") == "No answer: none of 2 trials finished: 1 failed and 1 diverged."


def test_without_predictions_it_says_that_nothing_can_be_compared():
    tables = factory.part1()
    found = findings(Evidence(replace(tables, predictions=tables.predictions.iloc[:0])))
    assert "answers on the test images are not recorded" in found[-1].sentence
    assert not any("points" in finding.sentence for finding in found)


def test_summary_lines_for_the_terminal():
    lines = dict(summary(Evidence(factory.part1())))
    assert lines["best"] == "residual, lr 0.001, batch 32, dropout 0.1"
    assert re.fullmatch(r"validation \d+\.\d % \(.*\), test \d+\.\d % \(.*\)", lines["scores"])
    assert lines["not told apart"] == "dropout 0.25"
    assert "no better than chance" in dict(summary(Evidence(factory.at_chance())))["warning"]
    assert summary(Evidence(factory.all_failed())) == [("no answer", "all 8 trials failed")]
