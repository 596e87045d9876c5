"""Two folders of like sweeps: which settings are the same, and what can be said of their differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cnnsearch.evidence.counterparts import counterparts, held, judged_split
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.evidence.verdicts import CANNOT_TELL, CLEAR, SUGGESTIVE
from cnnsearch.results.tables import Tables
from cnnsearch.stats import sign_flip_exact
from tests.report import factory
from tests.report.factory import GRID, make


def grid(seeds: Sequence[int] = (0, 1, 2), loss: float = 0.0, only: Sequence[str] = (), **options: Any) -> Tables:
    """The grid of part 1; `loss` is taken from the ability of models in `only`, or of all."""
    plans = factory.grid_plans(seeds)
    changed = [
        replace(plan, ability=plan.ability - loss * (not only or plan.values["model"] in only)) for plan in plans
    ]
    return make(changed, [GRID], **options)


def both(a: Tables, b: Tables) -> tuple[Evidence, Evidence]:
    return Evidence(a), Evidence(b)


def test_all_settings_have_a_counterpart_in_a_copy() -> None:
    a, b = both(factory.part1((0, 1)), factory.part1((0, 1)))
    found = counterparts(a, b)
    assert [pair.a.key for pair in found.pairs] == [one.key for one in a.configurations]
    assert all(pair.a.values == pair.b.values and pair.seeds == (0, 1) for pair in found.pairs)
    assert (found.only_a, found.only_b) == ([], [])
    overall, each = held(a, b, found.pairs)
    assert overall is not None
    for one in [overall, *each]:
        assert one.same_answers
        assert one.comparison.difference.value == 0
        assert one.verdict == CANNOT_TELL
        assert not one.is_regression


def test_what_a_setting_starts_from_belongs_to_it() -> None:
    """The dropout stage of one folder goes on from another setting than that of the other."""
    a, b = both(factory.part1(), factory.part1((3,)))
    found = counterparts(a, b)
    children = [pair for pair in found.pairs if pair.a.stage == "dropout"]
    for pair in children:
        assert a.by_key[pair.a.parent or ""].values == b.by_key[pair.b.parent or ""].values
    assert len(children) + len([one for one in found.only_a if one.stage == "dropout"]) == 8


def test_a_stage_may_be_called_otherwise() -> None:
    plans = [replace(plan, stage="first") for plan in factory.grid_plans()]
    a, b = both(grid((0,)), make(plans, [{**GRID, "name": "first"}]))
    assert len(counterparts(a, b).pairs) == 8


def test_confirmed_settings_are_held_against_confirmed_ones() -> None:
    a, b = both(factory.confirmed(), factory.confirmed())
    found = counterparts(a, b)
    assert all((pair.a.confirms is None) == (pair.b.confirms is None) for pair in found.pairs)
    assert any(pair.a.confirms is not None for pair in found.pairs)
    assert (found.only_a, found.only_b) == ([], [])


def test_settings_of_one_folder_alone() -> None:
    a, b = both(grid(), make([p for p in factory.grid_plans() if p.values["lr"] == 0.001], [GRID]))
    found = counterparts(a, b)
    assert {pair.a.values["lr"] for pair in found.pairs} == {0.001}
    assert {one.values["lr"] for one in found.only_a} == {0.0001}
    assert found.only_b == []


def test_what_the_precision_came_to_does_not_part_settings() -> None:
    changed = grid()
    changed.trials["precision"] = "fp32"
    a, b = both(grid(), changed)
    assert {one.values["precision"] for one in a.configurations} != {"fp32"}
    assert len(counterparts(a, b).pairs) == 8
    asked = [
        replace(tables, sweep=tables.sweep.with_values({"train.precision": wanted}))
        for tables, wanted in ((grid(), "bf16"), (changed, "fp32"))
    ]
    assert counterparts(*both(*asked)).pairs == []


def test_a_worse_folder_is_a_regression() -> None:
    a, b = both(grid(), grid(loss=0.5))
    overall, each = held(a, b, counterparts(a, b).pairs)
    assert overall is not None
    assert overall.verdict == CLEAR
    assert overall.is_regression
    assert (overall.comparison.basis, overall.comparison.pairs) == ("pairs", 8)
    assert any(one.is_regression for one in each)
    assert {one.paired for one in each} == {"seeds and images"}
    mean = np.mean([one.comparison.difference.value for one in each])
    assert overall.comparison.difference.value == pytest.approx(mean)
    better, _ = held(b, a, counterparts(b, a).pairs)
    assert better is not None
    assert better.verdict == CLEAR
    assert not better.is_regression
    assert better.comparison.difference.value == pytest.approx(-mean)


def test_with_one_seed_only_all_settings_together_can_tell() -> None:
    a, b = both(grid((0,)), grid((0,), loss=0.5))
    overall, each = held(a, b, counterparts(a, b).pairs)
    assert overall is not None
    assert overall.is_regression
    assert {one.verdict for one in each} == {CANNOT_TELL}
    pair = each[0].pair
    assert pair is not None
    tables = a.table(pair.a, "test"), b.table(pair.b, "test")
    assert tables[0] is not None
    assert tables[1] is not None
    assert each[0].comparison.p_value == sign_flip_exact((tables[1] - tables[0])[0].astype(int))


def test_other_seeds_are_no_pairs() -> None:
    a, b = both(grid((0, 1, 2)), grid((3, 4, 5), loss=0.5))
    _, each = held(a, b, counterparts(a, b).pairs)
    assert {one.paired for one in each} == {"images"}
    assert any(one.is_regression for one in each)


def test_luck_alone_is_no_regression() -> None:
    for first in range(10):
        a, b = both(grid((0, 1, 2)), grid((first, first + 1, first + 2)))
        overall, each = held(a, b, counterparts(a, b).pairs)
        assert overall is not None
        assert not any(one.is_regression for one in [overall, *each])


def test_on_other_images_nothing_is_clear() -> None:
    a, b = both(grid(), grid(loss=0.6, test_per_class=90))
    overall, each = held(a, b, counterparts(a, b).pairs)
    assert overall is None
    assert {one.paired for one in each} == {"nothing"}
    assert SUGGESTIVE in {one.verdict for one in each}
    assert not any(one.is_regression for one in each)


def test_one_more_setting_costs_evidence() -> None:
    """One error rate for all of them: the bound of each is lower, the more there are."""
    a, b = both(grid(), grid(loss=0.5))
    found = counterparts(a, b).pairs
    alone = sum(held(a, b, [pair])[1][0].verdict == CLEAR for pair in found)
    together = sum(one.verdict == CLEAR for one in held(a, b, found)[1])
    assert alone >= together > 0


def test_a_sealed_test_set_stays_sealed() -> None:
    a, b = both(grid(), replace(grid(loss=0.5), is_sealed=True))
    assert judged_split(a, b) == "val"
    overall, _ = held(a, b, counterparts(a, b).pairs)
    assert overall is not None
    expected = np.mean([two.worth - one.worth for one, two in zip(a.configurations, b.configurations, strict=True)])
    assert overall.comparison.difference.value == pytest.approx(expected)
