"""Searchers and early stopping on the grid that is recorded with the benchmarks: nothing is trained."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.replay import NEAR, WAYS, Grid, make_sweep, read_grid, regrets, replay
from cnnsearch.stats import mean_interval

SEEDS = 10
SHARE = 0.15
"""Of the grid's cost."""


@pytest.fixture(scope="module")
def grid() -> Grid:
    return read_grid()


def found(grid: Grid, way: str, seed: int) -> list[tuple[float, float]]:
    return replay(make_sweep(WAYS[way], seed), grid, SHARE * grid.cost)


def test_the_recorded_grid_is_whole(grid: Grid) -> None:
    assert len(grid.accuracies) == 144
    assert {len(curve) for curve in grid.accuracies.values()} == {27}
    assert 0.6 < grid.best < 1


@pytest.mark.after
def test_tpe_and_asha_find_a_setting_as_good_as_the_best_for_a_fraction_of_the_grid(grid: Grid) -> None:
    """Within a point of the grid's best on average, at a share of its cost where random search is further away."""
    ours, random = (
        np.array([regrets(grid, found(grid, way, seed), [SHARE])[0] for seed in range(SEEDS)])
        for way in ("tpe, asha", "random")
    )
    assert ours.mean() < NEAR
    assert mean_interval(list(random - ours)).low > 0, (ours, random)


def test_the_same_seed_finds_the_same(grid: Grid) -> None:
    assert found(grid, "tpe, asha", 3) == found(grid, "tpe, asha", 3)
    assert found(grid, "tpe, asha", 3) != found(grid, "tpe, asha", 4)


def test_with_all_the_time_there_is_the_best_is_found_by_whoever_stops_nothing(grid: Grid) -> None:
    last = replay(make_sweep(WAYS["random"], 0), grid, 10 * grid.cost)[-1]
    assert last[1] >= grid.best - 0.02  # draws repeat, so some settings are never drawn
    assert last[0] <= grid.cost
