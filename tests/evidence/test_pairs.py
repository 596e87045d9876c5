"""Settings that differ in one axis alone: each pair is found, and means are kept only as far as memory allows."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from cnnsearch.evidence import compared, crossed
from cnnsearch.evidence.configurations import Matching, distinct, is_missing, mean_worths, preferred
from cnnsearch.evidence.evidence import Evidence
from tests.report import factory


def test_all_pairs_are_found_and_no_others() -> None:
    evidence = Evidence(factory.part1())
    found = 0
    for stage in evidence.stages:
        configurations = evidence.stage(stage)
        for axis in evidence.axes(stage):
            matching = Matching(configurations, axis)
            for value in distinct(configurations, axis):
                for other in distinct(configurations, axis):
                    expected = [
                        (a, b)
                        for a in configurations
                        for b in configurations
                        if a.parent == b.parent
                        and (a.values[axis], b.values[axis]) == (value, other)
                        and all(a.values[name] == b.values[name] for name in a.values if name != axis)
                    ]
                    assert matching.pairs(value, other) == expected
                    found += len(expected)
            assert matching.pairs("no such value", "no such value") == []
    assert found > 50


def test_what_is_not_kept_is_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = factory.part1(seeds=(0, 1))
    kept, forgetful = Evidence(tables), Evidence(tables)
    assert [one.basis for one in kept.statements.values()].count("pairs") > 1
    monkeypatch.setattr(compared, "MOST_KEPT_BYTES", 0)
    assert forgetful.statements == kept.statements
    assert len(forgetful._means) < len(kept._means)


@pytest.mark.parametrize("together", [crossed.TOGETHER, 1])
def test_compared_all_at_once_settings_are_what_they_are_one_by_one(
    together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crossed, "TOGETHER", together)
    evidence = Evidence(factory.part1(seeds=(0, 1, 2)))
    answers = evidence.tables.predictions
    lacking = evidence.stage("grid")[0]
    evidence = Evidence(replace(evidence.tables, predictions=answers[answers["trial_id"] != lacking.trial_ids[0]]))
    every = [[(a, b)] * count for a, b in pairwise(evidence.configurations) for count in (1, 4, 5)]
    found = evidence.compare_all(every)
    assert found == [Evidence(evidence.tables).compare(pairs) for pairs in every]
    assert {one.basis for one in found if one} == {"seeds", "pairs"}
    assert None in found


def test_the_preferred_value_is_the_best_on_average() -> None:
    configurations = Evidence(factory.part1(seeds=(0, 1))).stage("grid")
    for axis in ("model", "lr", "batch_size"):
        found = mean_worths(configurations, axis)
        assert list(found) == list(dict.fromkeys(one.values[axis] for one in configurations))
        for value, worth in found.items():
            of_value = [one.worth for one in configurations if one.values[axis] == value]
            assert worth == sum(of_value) / len(of_value)
        assert found[preferred(configurations, axis)] == max(found.values())


def test_what_a_table_has_where_nothing_was_recorded() -> None:
    assert all(map(is_missing, (None, float("nan"), np.float64("nan"), pd.NA, pd.NaT)))
    assert not any(
        map(is_missing, (0, False, 0.0, "", "nan", np.int64(0), np.bool_(False), np.float32(1), pd.Timestamp(0)))
    )
