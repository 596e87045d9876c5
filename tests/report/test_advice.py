"""What to try next."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnsearch import stats
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.report.advice import advice, next_values
from cnnsearch.results.tables import Tables
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


class TestAdvice:
    def test_part1_in_order(self):
        items = advice(Evidence(factory.part1()))
        assert [item.text.split()[0] for item in items] == ["Learning", "Batch", "Go", "Repeat", "More"]
        assert items[0].text == (
            "Learning rate 0.001 is best by validation and the largest in its grid: try 0.003 and 0.01."
        )
        assert items[0].command == (
            "python -m cnnsearch.sweep part1 --set 'stages.grid.space.lr.grid=[0.0001, 0.001, 0.003, 0.01]'"
        )
        assert items[2].command == (
            "python -m cnnsearch.sweep part1 --set 'stages.dropout.space.dropout.grid=[0, 0.01, 0.1, 0.25, 0.5]'"
        )
        assert items[3].command == "python -m cnnsearch.sweep part1 --seeds 0,1,2"

    def test_a_best_value_inside_its_grid_is_no_edge(self):
        assert not any("grid" in text for text in told(factory.lr_only()))

    def test_more_seeds_only_where_there_is_one(self):
        assert not any("seeds" in text for text in told(factory.part1(seeds=(0, 1))))

    def test_images_needed_are_those_of_the_closest_rival(self):
        evidence = Evidence(factory.part1())
        best, (rival,) = evidence.best, evidence.near_best
        assert best is not None
        compared, a, b = evidence.compare([(best, rival)]), evidence.score(best), evidence.score(rival)
        assert compared is not None
        assert a is not None
        assert b is not None
        need = stats.test_images_needed(a.value, b.value, disagreement=compared.disagreement)
        assert need is not None
        (text,) = [text for text in told(factory.part1()) if text.startswith("More test images")]
        assert f"{evidence.label(rival)}, which is behind by" in text
        assert f"takes about {round(need, -2):,} for a power of 80 %" in text
        assert text.endswith("there are 1,000.")

    def test_what_did_not_run_comes_first(self):
        items = advice(Evidence(factory.make(factory.grid_plans(), [factory.GRID], waiting=3)))
        assert items[0].text.startswith("Finish the sweep: 3 trials of 11 have not run.")
        failed = advice(Evidence(factory.all_failed()))
        assert [item.text for item in failed] == [
            "Finish the sweep: 8 trials failed. The same command again runs only what is missing."
        ]

    def test_at_chance_nothing_else_is_worth_trying(self):
        texts = told(factory.at_chance())
        assert len(texts) == 1
        assert "look at the labels" in texts[0]

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

    def test_without_a_recorded_command_there_is_none(self):
        items = advice(Evidence(replace(factory.part1(), provenance={})))
        assert items
        assert all(item.command is None for item in items)
