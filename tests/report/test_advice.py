"""What to try next."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from statistics import NormalDist

import pytest
from hypothesis import given, strategies as st

from cnnsearch import stats
from cnnsearch.evidence.comparisons import Comparison
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.evidence.statements import of_values
from cnnsearch.report.advice import advice, next_values, repetitions_needed
from cnnsearch.report.words import points
from cnnsearch.results.tables import Tables
from cnnsearch.spec.confirm import Confirm
from tests.report import factory


class TestNextValues:
    @pytest.mark.parametrize(
        ("axis", "grid", "upwards", "expected"),
        [
            ("lr", [0.0001, 0.001], True, [0.003, 0.01]),
            ("lr", [0.0001, 0.001], False, [0.00003, 0.00001]),
            ("lr", [0.0002, 0.0005], True, [0.001, 0.003]),
            ("lr", [0.0003], False, [0.0001, 0.00003]),
            ("batch_size", [16, 32], True, [64, 128]),
            ("batch_size", [2, 32], False, [1]),
            ("weight_decay", [0.0, 0.01], False, []),
            ("dropout", [0.01, 0.5], True, [0.6, 0.7]),
            ("dropout", [0.01, 0.5], False, [0.0]),
            ("dropout", [0.0, 0.5], False, []),
            ("momentum", [0.9, 0.99], True, []),
        ],
    )
    def test_golden(self, axis, grid, upwards, expected):
        assert next_values(axis, grid, upwards=upwards) == pytest.approx(expected)

    @given(st.floats(1e-7, 10), st.booleans())
    def test_learning_rates_go_on_past_the_edge_in_steps_a_log_scale_can_see(self, edge, upwards):
        first, second = next_values("lr", [edge], upwards=upwards)
        assert (edge < first < second) if upwards else (edge > first > second)
        assert 2.9 < max(first, second) / min(first, second) < 3.4
        assert max(first, edge) / min(first, edge) < 3.4


def told(tables: Tables) -> list[str]:
    return [item.text for item in advice(Evidence(tables))]


def comparison(value: float, between: float, over_images: float, seeds: int = 5) -> Comparison:
    estimate = stats.Estimate(value, value - 0.1, value + 0.1)
    return Comparison(estimate, 0.5, "seeds", 1, seeds, between=between, over_images=over_images)


class TestRepetitionsNeeded:
    def test_where_images_are_enough_only_seeds_are(self):
        # By hand: (0.02 / 2.80159)^2 = 5.096e-5, of which the images take 1e-6; 5 seeds leave 2e-4 between.
        assert repetitions_needed(comparison(0.02, 2e-4, 1e-6), 1000) == (21, 1000)

    def test_where_they_are_not_both_take_half(self):
        # By hand: half of 5.096e-5 is 2.548e-5.
        assert repetitions_needed(comparison(0.02, 2e-4, 1e-4), 1000) == (40, 3925)

    @given(st.floats(0.005, 0.2), st.floats(1e-7, 1e-3), st.floats(1e-7, 1e-3), st.integers(3, 20))
    def test_that_many_give_that_power(self, value, between, over_images, seeds):
        need, images = repetitions_needed(comparison(value, between, over_images, seeds), 1000)
        variance = between * seeds / need + over_images * 1000 / images
        normal = NormalDist()
        power = normal.cdf(abs(value) / math.sqrt(variance) - normal.inv_cdf(0.975))
        assert power >= 0.8 - 1e-9


def edges(evidence: Evidence) -> list[tuple[str, str, float]]:
    """(stage, axis, value) of each piece of advice to go on past the end of a grid."""
    found = []
    for item in advice(evidence):
        match = re.search(r"^(.*) (\S+) is best by validation and the (largest|smallest) in its grid", item.text)
        if match:
            key = re.search(r"stages\.(\w+)\.space\.(\w+)\.grid", item.command or "")
            assert key is not None
            found.append((key[1], key[2], float(match[2])))
    return found


def grids_that_disagree() -> Tables:
    """The larger learning rate is better in all settings but the best of all."""
    batches = [1, 2, 4, 8, 16, 32, 64, 128]
    plans = [
        factory.Plan("grid", {"model": "plain", "lr": lr, "batch_size": batch}, ability)
        for batch in batches
        for lr, ability in ((0.0001, 0.9 if batch == 8 else 0.0), (0.001, 0.5))
    ]
    space = {"model": "plain", "lr": {"grid": [0.0001, 0.001]}, "batch_size": {"grid": batches}}
    return factory.make(plans, [{"name": "grid", "space": space}])


WORLDS = {
    "one seed": factory.part1,
    "three seeds": lambda: factory.part1(seeds=(0, 1, 2)),
    "five seeds": lambda: factory.part1(seeds=range(5)),
    "confirmed": factory.confirmed,
    "disagree": lambda: factory.validation_and_test_disagree(seeds=(0, 1, 2)),
    "rates": lambda: factory.lr_only(seeds=(0, 1, 2)),
    "grids that disagree": grids_that_disagree,
}


class TestAdviceAndFindings:
    @pytest.mark.parametrize("name", WORLDS)
    def test_it_never_goes_on_from_a_value_that_the_report_calls_worse(self, name):
        evidence = Evidence(WORLDS[name]())
        for stage, axis, value in edges(evidence):
            for key, compared in evidence.statements.items():
                if key[:3] == ("axis", stage, axis) and key[5] == "" and evidence.verdict(key) != "cannot tell":
                    ahead, behind = key[3:5] if compared.difference.value > 0 else (key[4], key[3])
                    assert value != behind, f"advice goes on from {axis} {behind}; {ahead} is {evidence.verdict(key)}"

    @pytest.mark.parametrize("name", WORLDS)
    def test_none_for_an_axis_whose_values_cannot_be_told_apart(self, name):
        evidence = Evidence(WORLDS[name]())
        for stage, axis, _ in edges(evidence):
            verdicts = [
                evidence.verdict(key)
                for key, compared in evidence.statements.items()
                if key[:3] == ("axis", stage, axis) and compared.can_tell
            ]
            assert not verdicts or set(verdicts) != {"cannot tell"}

    def test_it_goes_on_from_the_better_value_though_the_best_setting_has_the_other(self):
        evidence = Evidence(grids_that_disagree())
        assert evidence.best is not None
        assert evidence.best.values["lr"] == 0.0001
        assert evidence.verdict(of_values("grid", "lr", 0.001, 0.0001)) == "clear"
        assert ("grid", "lr", 0.001) in edges(evidence)

    def test_an_axis_that_makes_no_difference_is_left_alone(self):
        evidence = Evidence(factory.part1())
        assert evidence.verdict(of_values("grid", "batch_size", 16, 32)) == "cannot tell"
        assert [axis for _, axis, _ in edges(evidence)] == ["lr"]


class TestAdvice:
    def test_part1_in_order(self):
        items = advice(Evidence(factory.part1()))
        assert [item.text.split()[0] for item in items] == ["Learning", "Continue", "Confirm"]
        assert items[0].text == (
            "Learning rate 0.001 is best by validation and the largest in its grid: try 0.003 and 0.01."
        )
        assert items[0].command == (
            "python -m cnnsearch.sweep part1 --set 'stages.grid.space.lr.grid=[0.0001, 0.001, 0.003, 0.01]'"
        )
        assert items[1].command == (
            "python -m cnnsearch.sweep part1 --set 'stages.dropout.space.dropout.grid=[0, 0.01, 0.1, 0.25, 0.5]'"
        )
        assert items[2].text.startswith("Confirm the best: ")
        assert items[2].command == "python -m cnnsearch.sweep part1 --confirm 5"

    def test_a_best_value_inside_its_grid_is_no_edge(self):
        assert not any("grid" in text for text in told(factory.lr_only()))

    @pytest.mark.parametrize(("seeds", "trained"), [((0,), "once"), ((0, 1), "with 2 seeds"), ((0, 1, 2), None)])
    def test_it_says_to_confirm_only_where_seeds_are_too_few(self, seeds, trained):
        texts = [text for text in told(factory.part1(seeds=seeds)) if text.startswith("Confirm")]
        assert len(texts) == (trained is not None)
        assert all(f"Each setting was trained {trained};" in text for text in texts)

    def test_what_was_confirmed_is_not_to_be_confirmed_again(self):
        assert not any("onfirm" in text for text in told(factory.confirmed()))

    def test_what_is_still_to_be_confirmed_is_only_to_be_finished(self):
        tables = factory.part1()
        sweep = tables.sweep.model_copy(update={"confirm": Confirm(seeds=5)})
        texts = told(replace(tables, sweep=sweep, planned=len(tables.trials) + 10))
        assert texts[0].startswith("Finish the sweep: 10 trials of ")
        assert not any("onfirm" in text for text in texts)

    def test_what_is_needed_is_that_of_the_closest_rival(self):
        evidence = Evidence(factory.part1(seeds=range(5)))
        best, (rival,) = evidence.best, evidence.near_best
        assert best is not None
        compared = evidence.compare([(best, rival)])
        assert compared is not None
        seeds, images = repetitions_needed(compared, 1000)
        assert seeds > 5
        assert images == 1000
        (text,) = [one.text for one in advice(evidence) if one.text.startswith("Telling the best from")]
        assert f"{evidence.label(rival)}, which is behind by {points(compared.difference)}" in text
        assert f"takes about {seeds} seeds of each for a power of 80 %" in text
        assert text.endswith("there are 5 seeds and 1,000 images.")

    def test_equals_are_to_be_taken_as_equal(self):
        assert any(text.startswith("Treat the best and") for text in told(factory.part2((0.5, 0.5), seeds=(0, 1, 2))))

    def test_what_did_not_run_comes_first(self):
        items = advice(Evidence(factory.make(factory.grid_plans(), [factory.GRID], waiting=3)))
        assert items[0].text.startswith("Finish the sweep: 3 trials of 11 have not run.")
        failed = advice(Evidence(factory.all_failed()))
        assert [item.text for item in failed] == [
            "Finish the sweep: 8 trials failed. The same command again runs only what is missing."
        ]

    def test_what_would_fail_again_is_not_to_be_run_again(self):
        plans = factory.grid_plans()
        plans[1] = replace(plans[1], status="failed", error="ValueError: too small (train.py, line 123, in step)")
        plans[2] = replace(plans[2], status="failed", error="its process died 3 times; the last time: killed")
        texts = [item.text for item in advice(Evidence(factory.make(plans, [factory.GRID])))]
        assert texts[:2] == [
            "Change what failed: 1 trial ended in an error that would come again, ValueError: too small (train.py, "
            "line 123, in step). Leave out such settings, or report the error.",
            "Finish the sweep: 1 trial failed. The same command again runs only what is missing.",
        ]

    def test_at_chance_nothing_else_is_worth_trying(self):
        texts = told(factory.at_chance())
        assert len(texts) == 1
        assert "look at the labels" in texts[0]
        assert "At its epoch of best validation accuracy, no setting gets more than" in texts[0]

    def test_too_few_images_are_no_fault_of_the_labels(self):
        plans = [replace(plan, ability=9.0) for plan in factory.grid_plans()]
        (text,) = told(factory.make(plans, [factory.GRID], classes=("cat", "dog"), test_per_class=2))
        assert (
            text == "Test on more images: 4 test images are too few to tell any setting from chance, even a good one."
        )

    def test_longer_where_the_last_epochs_were_the_best(self):
        tables = factory.make([replace(factory.grid_plans()[-1], turn=2.0)], [factory.GRID])
        assert not any("Train longer" in text for text in told(tables))
        late = replace(tables, trials=tables.trials.assign(best_epoch=10))
        assert any("Train longer: the best epoch of the best setting is 10 of 10" in text for text in told(late))
        rising = 1 + 0.05 * late.epochs["epoch"] + 0.2 * (late.epochs["epoch"] % 2)  # too rough to be a turn
        rough = replace(late, epochs=late.epochs.assign(val_loss=rising))
        assert Evidence(rough).turn(rough.trials["trial_id"][0]) is None
        assert not any("Train longer" in text for text in told(rough))

    def test_without_a_recorded_command_there_is_none(self):
        items = advice(Evidence(replace(factory.part1(), provenance={})))
        assert items
        assert all(item.command is None for item in items)
