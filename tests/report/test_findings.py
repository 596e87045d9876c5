"""The sentences: what they claim, how sure they are, and that every number in them is in the tables."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from cnnsearch import plots, stats
from cnnsearch.evidence.comparisons import Basis, Comparison
from cnnsearch.evidence.configurations import best_of, matched
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.evidence.statements import of_change, of_values
from cnnsearch.evidence.verdicts import judge, judge_all, together
from cnnsearch.plots.curves import curves_title
from cnnsearch.report.claims import Finding
from cnnsearch.report.findings import _alternatives, answer, findings, shared, summary
from cnnsearch.report.words import points
from cnnsearch.results.tables import Tables
from tests.report import factory

VARIANTS: dict[str, Callable[[], Tables]] = {
    "part1": factory.part1,
    "seeds": lambda: factory.part1(seeds=(0, 1, 2)),
    "five": lambda: factory.part1(seeds=range(5)),
    "confirmed": factory.confirmed,
    "with_trouble": factory.with_trouble,
    "one_trial": factory.one_trial,
    "all_failed": factory.all_failed,
    "at_chance": factory.at_chance,
    "two_classes": factory.two_classes,
    "lr_only": factory.lr_only,
    "lr_seeds": lambda: factory.lr_only(seeds=(0, 1, 2)),
    "optimizers": factory.optimizers,
    "optimizers_seeds": lambda: factory.optimizers(seeds=(0, 1, 2)),
    "disagree": factory.validation_and_test_disagree,
    "disagree_seeds": lambda: factory.validation_and_test_disagree(seeds=(0, 1, 2)),
}


@functools.cache
def evidence_of(name: str) -> Evidence:
    return Evidence(VARIANTS[name]())


def told(name: str, anchor: str) -> list[Finding]:
    return [finding for finding in findings(evidence_of(name)) if finding.anchor == anchor]


def comparison(value: float = 0.02, half: float = 0.015, p: float = 0.01, basis: Basis = "seeds") -> Comparison:
    return Comparison(stats.Estimate(value, value - half, value + half), p, basis, pairs=1, seeds=3)


class TestJudging:
    def test_verdicts(self):
        assert judge(comparison(), 0.04) == "clear"
        assert judge(comparison(), 0.06) == "suggestive"
        assert judge(comparison(half=0.03), 0.06) == "cannot tell"

    def test_networks_alone_say_nothing_of_settings(self):
        assert judge(comparison(basis="networks"), 1e-9) == "cannot tell"
        assert judge(comparison(basis="networks")._replace(of_networks=True), 1e-9) == "clear"

    def test_one_family_for_all_comparisons(self):
        """p = 0.02 is clear alone and only suggestive among three."""
        assert judge_all([comparison(p=0.02)]) == ["clear"]
        assert judge_all([comparison(p=p) for p in (0.02, 0.3, 0.4)])[0] == "suggestive"

    def test_what_can_tell_nothing_costs_the_others_nothing(self):
        several = [comparison(p=0.02), *[comparison(p=0.5, basis="networks")] * 20]
        assert judge_all(several) == ["clear", *["cannot tell"] * 20]

    def test_several_together(self):
        assert together(["clear", "clear"]) == "clear"
        assert together(["clear", "cannot tell"]) == "suggestive"
        assert together(["cannot tell", "cannot tell"]) == "cannot tell"


class TestPoints:
    @given(st.floats(-1, 1), st.floats(0, 0.3))
    def test_a_difference_is_never_told_as_none(self, value, half):
        text = points(stats.Estimate(value, value - half, value + half))
        shown = float(text.split(" points")[0].replace("−", "-").replace("+", ""))
        if abs(value) >= 1e-5:  # a thousandth of a point
            assert shown != 0
            assert (shown > 0) == (value > 0)
        elif value == 0:
            assert text.startswith("0.0 points")

    def test_golden(self):
        assert points(stats.Estimate(0.027, 0.004, 0.05)) == "2.7 points (0.4 to 5.0)"
        assert points(stats.Estimate(0.027, 0.004, 0.05), -1) == "−2.7 points (−5.0 to −0.4)"
        assert points(stats.Estimate(0.0001, -0.01, 0.0102)) == "0.01 points (−1.00 to 1.02)"


@pytest.mark.parametrize("name", VARIANTS)
class TestEverySentence:
    def test_accuracies_carry_their_interval(self, name):
        for text in [answer(evidence_of(name)).sentence, *(f.sentence for f in findings(evidence_of(name)))]:
            bare = re.findall(r"\d\.\d %(?! \(\d+\.\d–\d+\.\d\))", text)
            assert bare == []

    def test_differences_carry_their_interval(self, name):
        for finding in findings(evidence_of(name)):
            assert re.findall(r"\d points(?! \(−?\d+\.\d+ to −?\d+\.\d+\))", finding.sentence) == []

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

    def test_numbers_are_written_as_one_says_them(self, name):
        evidence = evidence_of(name)
        lines = [f"{key} {value}" for key, value in summary(evidence)]
        titles = [plots.style.title_of(figure)] if (figure := plots.all_settings(evidence)) else []
        for text in [answer(evidence).sentence, *(f.sentence for f in findings(evidence)), *lines, *titles]:
            assert not re.search(r"\ball 2\b|(?<![\d.])1 (points|settings|seeds|trials)\b|−0\.0+ points", text), text


class TestSeeds:
    """What one seed may say, and what takes more of them."""

    @pytest.mark.parametrize("name", VARIANTS)
    def test_networks_alone_are_never_clear_or_suggestive_about_settings(self, name):
        evidence = evidence_of(name)
        alone = [key for key, c in evidence.statements.items() if c.basis == "networks" and key[0] != "change"]
        assert {evidence.verdict(key) for key in alone} <= {"cannot tell"}
        if all(len(c.trial_ids) < 3 for c in evidence.configurations):
            assert not evidence.told_apart
            assert not evidence.better_than_best
            assert not evidence.tells_settings_apart
            assert answer(evidence).verdict == "cannot tell"
        assert not any(
            c.pairs < 4 and c.seeds < 3 for c in evidence.statements.values() if c.can_tell and not c.of_networks
        )

    def test_what_training_on_changed_is_a_statement_about_networks(self):
        evidence = evidence_of("part1")
        changes = {key: c for key, c in evidence.statements.items() if key[0] == "change"}
        assert len(changes) == 8
        assert all(c.of_networks for c in changes.values())
        assert "clear" in {evidence.verdict(key) for key in changes}

    def test_more_seeds_never_earn_less(self):
        """Of the same world: what was clear stays clear, and so does what was suggestive of an effect of some size."""
        one, three, five = (evidence_of(name) for name in ("part1", "seeds", "five"))
        able = [key for key, c in one.statements.items() if c.basis == "pairs"]
        assert len(able) == 3
        for fewer, more in ((one, three), (three, five)):
            for key in able:
                assert more.statements[key].basis == "pairs"
                if fewer.verdict(key) == "clear":
                    assert more.verdict(key) == "clear"
        rate = of_values("grid", "lr", 0.001, 0.0001)
        assert [evidence.verdict(rate) for evidence in (one, three, five)] == ["suggestive", "clear", "clear"]
        assert three.told_apart
        assert len(three.near_best) >= len(five.near_best)

    def test_a_setting_that_lacks_a_seed_is_named(self):
        tables = factory.part1(seeds=(0, 1, 2))
        row = tables.trials.query("stage == 'grid' and model == 'residual' and seed == 2").index[0]
        trials = tables.trials.copy()
        trials.loc[row, "status"] = "failed"
        evidence = Evidence(replace(tables, trials=trials))
        (lacking,) = evidence.incomplete
        assert lacking.values["model"] == "residual"
        (sentence,) = [f.sentence for f in findings(evidence) if "fewer seeds" in f.sentence]
        assert sentence.startswith("1 setting has fewer seeds than others")
        assert f"{evidence.label(lacking)} (2 seeds)" in sentence
        assert not evidence_of("seeds").incomplete
        assert not any("fewer seeds" in f.sentence for f in findings(evidence_of("seeds")))

    def test_a_setting_that_lacks_a_seed_is_not_best(self):
        tables = factory.part1(seeds=(0, 1, 2))
        best = Evidence(tables).best
        assert best is not None
        trials = tables.trials.copy()
        trials.loc[trials["trial_id"] == best.trial_ids[2], "status"] = "failed"
        evidence = Evidence(replace(tables, trials=trials))
        assert evidence.best is not None
        assert evidence.best.values != best.values
        assert len(evidence.best.trial_ids) == 3


class TestModels:
    def test_the_difference_is_that_over_the_settings_they_share(self):
        evidence = evidence_of("part1")
        pairs = matched(evidence.stage("grid"), "model", "residual", "plain")
        paired = evidence.compare(pairs)
        assert paired is not None
        assert paired.basis == "pairs"
        (finding,) = told("part1", "all-settings")
        assert finding.sentence == (
            f"Residual blocks help: residual is better than plain by {points(paired.difference)} on average over 4 "
            "matched settings, in all of which it is ahead."
        )
        assert finding.verdict == "clear"

    def test_three_models_take_three_seeds(self):
        (finding,) = told("optimizers", "all-settings")
        assert finding.sentence.startswith("Which of 3 models is best is not clear from one seed: ")
        assert finding.verdict == "cannot tell"
        (finding,) = told("optimizers_seeds", "all-settings")
        assert finding.sentence.startswith("Of 3 models, resnet18 is best by validation with ")
        assert finding.sentence.index("better than residual by") < finding.sentence.index("better than plain by")
        assert finding.verdict == "clear"

    def test_two_models_with_one_setting_each_take_three_seeds(self):
        def one_each(seeds: tuple[int, ...]) -> list[Finding]:
            plans = [plan for plan in factory.grid_plans(seeds) if plan.values["lr"] == 0.001]
            plans = [plan for plan in plans if plan.values["batch_size"] == 16]
            return [f for f in findings(Evidence(factory.make(plans, [factory.GRID]))) if f.anchor == "all-settings"]

        (once,), (thrice,) = one_each((0,)), one_each((0, 1, 2))
        assert once.verdict == "cannot tell"
        assert once.sentence.startswith("Which model is better is not clear from one seed: the best residual setting")
        assert thrice.verdict == "clear"
        assert thrice.sentence.startswith("Residual blocks help: residual is better than plain: the best residual")
        assert thrice.sentence.endswith(" over 3 seeds each.")

    def test_models_that_a_later_stage_made_better_are_compared_by_name_of_the_stage(self):
        plans = [p for p in factory.grid_plans() if (p.values["lr"], p.values["batch_size"]) == (0.001, 16)]
        later = factory.make(
            plans, [factory.GRID, factory.DROPOUT], children=lambda _, some: factory.dropout_plans(some)
        )
        (finding,) = [f for f in findings(Evidence(later)) if f.anchor == "all-settings"]
        assert finding.sentence.startswith(
            "Which model is better is not clear from one seed: the best residual setting of stage grid gets"
        )

    def test_guessing_networks_cannot_be_told_apart(self):
        verdicts = {finding.verdict for finding in told("at_chance", "all-settings")}
        assert verdicts == {"cannot tell"}
        assert (
            "None of 8 settings is clearly better than chance (10 %)" in told("at_chance", "all-settings")[-1].sentence
        )


class TestAxes:
    @pytest.mark.parametrize(("name", "verdict"), [("part1", "suggestive"), ("seeds", "clear")])
    def test_an_effect_is_averaged_over_matched_settings(self, name, verdict):
        evidence = evidence_of(name)
        pairs = matched(evidence.stage("grid"), "lr", 0.001, 0.0001)
        mean = np.mean([a.scores["test_accuracy"] - b.scores["test_accuracy"] for a, b in pairs])
        (finding,) = [f for f in told(name, "heatmaps") if "earning rate" in f.sentence]
        assert finding.verdict == verdict
        better = "is better than" if verdict == "clear" else "may be better than"
        assert f"Learning rate 0.001 {better} 0.0001: it is ahead by {100 * mean:.1f} points" in finding.sentence
        assert "on average over 4 matched settings" in finding.sentence

    def test_no_effect_is_said_to_be_none(self):
        (finding,) = [f for f in told("part1", "heatmaps") if "atch size" in f.sentence]
        assert finding.verdict == "cannot tell"
        assert "There is no clear difference between batch sizes 16 and 32" in finding.sentence

    def test_several_values_are_compared_with_the_best_by_validation(self):
        (finding,) = told("lr_seeds", "heatmaps")
        assert finding.sentence.startswith("Of 4 learning rates, 0.001 is best by validation. It is better than ")
        assert finding.sentence.count("better than") == 3
        assert finding.verdict == "clear"

    def test_several_values_with_one_seed_are_not_ranked(self):
        (finding,) = told("lr_only", "heatmaps")
        assert finding.sentence == (
            "Of 4 learning rates, 0.001 is best by validation. Whether it is better than the others is not clear "
            "from one seed."
        )
        assert finding.verdict == "cannot tell"

    def test_partly_clear_is_suggestive(self):
        (finding,) = told("optimizers_seeds", "heatmaps")
        assert "not clearly different from adam" in finding.sentence
        assert "better than sgd" in finding.sentence
        assert finding.verdict == "suggestive"

    def test_models_that_want_opposite_values_are_told_one_by_one(self):
        def sentences(seeds: tuple[int, ...]) -> list[str]:
            plans = [
                replace(plan, ability=0.5 + 0.5 * ((plan.values["model"] == "plain") == (plan.values["lr"] == 0.001)))
                for plan in factory.grid_plans(seeds)
            ]
            found = findings(Evidence(factory.make(plans, [factory.GRID])))
            return [f.sentence for f in found if "learning rate" in f.sentence.lower()]

        (sentence,) = sentences((0, 1, 2))
        assert sentence.startswith(
            "The better learning rate depends on the model: for plain 0.001 is better than 0.0001"
        )
        assert "for residual 0.0001 is better than 0.001" in sentence
        assert not sentences((0,))[0].startswith("The better learning rate depends")


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
            assert f"{before.text} before, {after.text} after" in finding.sentence
            assert f"dropout {best.values['dropout']:g} for 10 more epochs" in finding.sentence
        assert residual.verdict == "clear"
        assert "no clear difference from dropout 0.01, 0.25 and 0.5 with one seed" in residual.sentence

    def test_siblings_are_told_apart_by_seeds(self):
        *_, residual = told("five", "continued-dropout")
        assert residual.verdict == "clear"
        assert "; no clear difference from dropout 0.25. " in residual.sentence

    def test_verdicts_are_those_of_the_networks_before_and_after(self):
        evidence = evidence_of("part1")
        for finding, model in zip(told("part1", "continued-dropout"), ("plain", "residual"), strict=True):
            best = best_of(s for s in evidence.stage("dropout") if s.model == model)
            assert best is not None
            change = evidence.change(best)
            assert change is not None
            assert finding.verdict == evidence.verdict(of_change(best))
            assert points(change.difference) in finding.sentence

    def test_without_a_control_the_cause_is_left_open(self):
        for finding in told("part1", "continued-dropout"):
            assert finding.sentence.endswith(
                "None was continued without dropout, so the extra epochs rather than dropout may explain it."
            )

    @pytest.mark.parametrize(
        ("seeds", "end"),
        [((0,), "no clear difference from dropout 0.5 with one seed"), ((0, 1, 2), "the other value is worse")],
    )
    def test_a_control_that_wins_leaves_nothing_to_explain(self, seeds, end):
        def children(rows, plans):
            return [
                replace(parent, stage="dropout", parent=parent.trial_id, ability=parent.ability + gain,
                        values={**parent.values, "dropout": rate})
                for parent in plans
                for rate, gain in ((0.0, 1.0), (0.5, -1.0))
            ]  # fmt: skip

        stage = {**factory.DROPOUT, "space": {"dropout": {"grid": [0.0, 0.5]}}}
        tables = factory.make(factory.grid_plans(seeds)[-len(seeds) :], [factory.GRID, stage], children=children)
        found = [f for f in findings(Evidence(tables)) if f.anchor == "continued-dropout"]
        (finding,) = [f for f in found if f.sentence.startswith("Training the best")]
        assert "with no dropout for 10 more epochs raised its test accuracy" in finding.sentence
        assert "may explain" not in finding.sentence
        assert f"; {end}." in finding.sentence
        (collapse,) = [f for f in found if f is not finding]
        assert re.match(
            r"Continuing with dropout 0\.5 lost \d\d\.\d points \(.*\) of test accuracy\.$", collapse.sentence
        )
        assert collapse.verdict == "clear"

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
        assert "raised its test accuracy" in finding.sentence
        assert "Compared with continuing unchanged, the difference is" in finding.sentence
        assert finding.sentence.endswith(", which is not a clear one.")
        assert "may explain" not in finding.sentence
        assert evidence.verdict(of_change(best)) == "clear"
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
        rest = [s.key for s, turn in zip(evidence.stage("grid"), turns, strict=True) if turn is None]
        more = len(evidence.risen(rest))
        assert more > 0
        assert finding.sentence.endswith(f". In {more} more it ends above its lowest, which noise may explain.")
        assert finding.verdict == "suggestive"

    @pytest.mark.parametrize(
        ("seeds", "count", "where"),
        [((0,), 8, "in all 8 settings"), ((0,), 2, "in both settings"), ((0,), 1, "starts to rise while"),
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
            "Validation loss does not clearly rise again within 10 epochs in any of 8 settings."
        )
        assert finding.verdict == "cannot tell"

    def test_of_too_few_epochs_nothing_is_told(self):
        evidence = Evidence(factory.make(factory.grid_plans(), [factory.GRID], epochs=5))
        (finding,) = [f for f in findings(evidence) if f.anchor == "curves"]
        assert finding.sentence == "Whether overfitting starts cannot be told from 5 epochs: that takes 6 or more."
        assert finding.verdict == "cannot tell"
        assert curves_title(evidence, evidence.stage("grid"), "loss") == "How does loss change with training?"

    def test_a_rise_that_is_too_rough_to_be_sure_of_is_not_told_as_none(self):
        """As of 80 validation images and one seed: from 0.5 to 1.2, but every other epoch is far above the next."""
        tables = factory.make([replace(plan, turn=2.0) for plan in factory.grid_plans()], [factory.GRID], epochs=20)
        at = tables.epochs["epoch"].to_numpy(dtype=float)
        rough = list(tables.trials["trial_id"][:5])
        is_rough = tables.epochs["trial_id"].isin(rough).to_numpy()
        loss = 0.5 + 1.1 * np.exp(-at / 2) + 0.7 * np.clip((at - 10) / 10, 0, 1) + 0.12 * (-1) ** at
        tables.epochs.loc[is_rough, "val_loss"] = loss[is_rough]
        evidence = Evidence(tables)
        assert not any(evidence.turn(trial) for trial in rough)
        (finding,) = [f for f in findings(evidence) if f.anchor == "curves"]
        assert finding.sentence == (
            "Whether overfitting starts within 20 epochs is not clear: validation loss ends more than 5 % above its "
            "lowest in 5 of 8 settings (2.7 times as high in the median), but noise from epoch to epoch may explain "
            "that."
        )
        assert finding.verdict == "cannot tell"
        assert curves_title(evidence, evidence.stage("grid"), "loss") == (
            "Validation loss ends above its lowest in 5 of 8 settings, which noise may explain"
        )


class TestAnswer:
    @pytest.mark.parametrize(
        ("name", "end", "verdict"),
        [
            (
                "part1",
                ". Each setting was trained once, which is too little to say whether another of the 16 is better.",
                "cannot tell",
            ),
            ("five", ", the mean of 5 seeds, but the same with dropout 0.25 may be as good.", "suggestive"),
            (
                "confirmed",
                ", the mean of 5 seeds. It was chosen among 3 contenders that were trained again on fresh seeds, and "
                "both other settings are worse.",
                "clear",
            ),
        ],
    )
    def test_names_the_best_and_its_rivals(self, name, end, verdict):
        evidence = evidence_of(name)
        best = evidence.best
        assert best is not None
        score = evidence.score(best)
        assert score is not None
        sentence = answer(evidence).sentence
        assert sentence == (
            f"Best by validation is {evidence.label(best)}: it gets {score.text} of 1,000 test images right{end}"
        )
        assert answer(evidence).verdict == verdict

    def test_the_winner_is_chosen_by_validation_with_any_number_of_seeds(self):
        for name in ("disagree", "disagree_seeds"):
            sentence = answer(evidence_of(name)).sentence
            assert sentence.startswith("Best by validation is batch 16: it gets 70.0 % (67.1–72.8)")
            assert answer(evidence_of(name)).verdict == "cannot tell"
        assert "batch 32" not in answer(evidence_of("disagree")).sentence

    def test_what_beats_the_winner_on_test_is_named_once_and_not_as_its_equal(self):
        evidence = evidence_of("disagree_seeds")
        assert [evidence.label(c) for c in evidence.better_than_best] == ["batch 32"]
        assert not {c.key for c in evidence.near_best} & {c.key for c in evidence.better_than_best}
        sentence = answer(evidence).sentence
        assert "batch 32, which validation ranked lower, does better on them with 80.0 % (77.4–82.4)" in sentence
        assert sentence.count("batch 32") == 1
        assert "may be as good" not in sentence

    @pytest.mark.parametrize(
        ("name", "start", "verdict"),
        [
            ("lr_only", "Best by validation is lr 0.001", "cannot tell"),
            ("lr_seeds", "Best by validation is lr 0.001", "clear"),
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
        plans = [
            replace(plan, ability=plan.ability + 0.4 * (plan.values["lr"] == 0.001))
            for plan in factory.grid_plans((0, 1, 2, 3, 4))
        ]
        evidence = Evidence(factory.make(plans, [{**factory.GRID}]))
        near = evidence.near_best
        assert {(c.model, c.values["lr"]) for c in near} == {("residual", 0.001)}
        assert shared(evidence, [*near, *filter(None, [evidence.best])]) == "residual with lr 0.001"

    def test_many_rivals_are_counted_with_what_they_share(self):
        rates = [0.001, 0.0011, 0.0012, 0.0013, 0.0014, 0.1]
        plans = [
            factory.Plan("r", {"model": model, "lr": lr}, 0.5 - (lr == 0.1) - (model == "plain"), seed=seed)
            for model in ("plain", "residual")
            for lr in rates
            for seed in (0, 1, 2)
        ]
        space = {"model": {"grid": ["plain", "residual"]}, "lr": {"grid": rates}}
        sentence = answer(Evidence(factory.make(plans, [{"name": "r", "space": space}]))).sentence
        assert ", but 4 of 11 other settings, all residual, may be as good" in sentence


class TestConfirmed:
    """The best is chosen among settings that were trained again on fresh seeds; nothing else counts for it."""

    def test_contenders_are_only_what_was_trained_again_as_such(self):
        evidence = evidence_of("confirmed")
        assert evidence.is_confirmed
        assert {c.values["dropout"] for c in evidence.contenders} == {0.1, 0.25, 0.5}
        assert {c.stage for c in evidence.contenders} == {"confirm"}
        assert all(c.seeds == (1, 2, 3, 4, 5) for c in evidence.contenders)
        assert all(evidence.by_key[c.confirms or ""].stage == "dropout" for c in evidence.contenders)
        assert {c.key for c in evidence.near_best + evidence.told_apart} < {c.key for c in evidence.contenders}
        # What they start from was trained again too, and is no contender.
        starts = [c for c in evidence.stage("confirm") if c.confirms is None]
        assert [c.values["dropout"] for c in starts] == [0.0]

    def test_without_that_stage_all_settings_are(self):
        assert evidence_of("part1").contenders == evidence_of("part1").configurations
        assert not evidence_of("part1").is_confirmed

    def test_the_score_is_that_of_the_fresh_seeds(self):
        evidence = evidence_of("confirmed")
        rows = evidence.tables.trials
        fresh = rows[(rows["stage"] == "confirm") & (rows["dropout"] == 0.1)]
        assert evidence.best is not None
        score = evidence.score(evidence.best)
        assert score is not None
        assert score.value == pytest.approx(fresh["test_accuracy"].mean())
        assert (score.seeds, score.covers_seeds) == (5, True)

    def test_the_stage_is_no_stage_of_axes_and_no_continuation(self):
        evidence = evidence_of("confirmed")
        assert "confirm" in evidence.stages
        assert not evidence.continues("confirm")
        assert not any("confirm" in key for key in evidence.statements)
        assert not any("confirm" in f.anchor for f in findings(evidence))
        assert [f.sentence for f in findings(evidence)] == [f.sentence for f in findings(evidence_of("part1"))]


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
        assert not any("clearly better than chance" in finding.sentence for finding in findings(evidence))

    def test_none_is_said_only_where_it_is_true_of_all(self):
        plans = [replace(plan, ability=-9.0) for plan in factory.grid_plans()[:6]] + factory.grid_plans()[6:]
        evidence = Evidence(factory.make(plans, [factory.GRID]))
        sentences = [finding.sentence for finding in findings(evidence)]
        assert "6 of 8 settings are not clearly better than chance (10 %) on the test images." in sentences

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


def test_a_class_that_is_never_found_is_named():
    tables = factory.make(factory.grid_plans()[-2:], [factory.GRID])
    frame = tables.predictions.copy()
    frame.loc[frame["predicted"] == "Shirt", "predicted"] = "Coat"
    right = frame[(frame["split"] == "test") & (frame["label"] == frame["predicted"])].groupby("trial_id").size()
    trials = tables.trials.assign(test_accuracy=tables.trials["trial_id"].map(right) / 1000)
    found = findings(Evidence(replace(tables, predictions=frame, trials=trials)))
    assert Finding("The best setting never finds Shirt (100 test images).", "clear", "errors") in found
    assert not any("never finds" in f.sentence for f in findings(Evidence(tables)))


def test_of_a_class_with_few_test_images_it_is_not_said_that_none_is_found():
    tables = factory.make(factory.grid_plans()[-2:], [factory.GRID], test_per_class=4)
    frame = tables.predictions.copy()
    frame.loc[frame["predicted"] == "Shirt", "predicted"] = "Coat"
    found = findings(Evidence(replace(tables, predictions=frame)))
    assert not any("never finds" in f.sentence for f in found)


def test_summary_lines_for_the_terminal():
    lines = dict(summary(evidence_of("part1")))
    assert lines["best"] == "residual, lr 0.001, batch 32, dropout 0.1"
    assert re.fullmatch(r"validation \d+\.\d % \(.*\), test \d+\.\d % \(.*\)", lines["scores"])
    assert lines["not compared"] == "15 other settings: that takes 3 seeds of each"
    lines = dict(summary(evidence_of("five")))
    assert lines["may be as good"] == "the same with dropout 0.25"
    assert "not compared" not in lines
    assert "may be as good" not in dict(summary(evidence_of("confirmed")))
    assert dict(summary(evidence_of("disagree_seeds")))["better on test"] == "batch 32"
    assert dict(summary(evidence_of("disagree_seeds")))["verdict"] == "cannot tell"
    assert "no better than chance" in dict(summary(evidence_of("at_chance")))["warning"]
    assert summary(evidence_of("all_failed"))[0] == ("no answer", "all 8 trials failed")


@pytest.mark.parametrize("name", VARIANTS)
def test_the_verdict_of_the_summary_is_that_of_the_answer(name):
    lines = dict(summary(evidence_of(name)))
    assert lines.get("verdict", "cannot tell").startswith(answer(evidence_of(name)).verdict)


def test_a_network_has_one_interval_before_it_goes_on_as_after_its_own_training() -> None:
    evidence = Evidence(factory.part1(seeds=(0, 1, 2)))
    children = evidence.stage("dropout")
    assert children
    for child in children:
        assert child.parent is not None
        assert evidence.score(child, moment="before") == evidence.score(evidence.by_key[child.parent])


def test_of_rivals_that_change_two_settings_it_is_clear_what_belongs_together():
    def setting(model: str, lr: float, batch_size: int) -> Any:
        return SimpleNamespace(values={"model": model, "lr": lr, "batch_size": batch_size})

    evidence: Any = SimpleNamespace(varying=("model", "lr", "batch_size"))
    best, plain, both = setting("residual", 0.003, 16), setting("plain", 0.003, 16), setting("residual", 0.001, 8)
    told = _alternatives(evidence, best, [plain, both, setting("residual", 0.001, 16)])
    assert told == "plain, with lr 0.001 and batch 8 or with lr 0.001"
    assert _alternatives(evidence, best, [plain, setting("residual", 0.001, 16)]) == "plain or lr 0.001"
