"""What the report says of settings is as often wrong as it says: small versions of `benchmarks.calibration`.

The bounds leave room for the error of so few simulated sweeps; the full tables are in benchmarks/README.md.
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.calibration import EFFECT, World, counted, simulate
from cnnsearch.evidence.verdicts import CLEAR

SWEEPS = 100
EQUAL = 0.11  # of 100 sweeps that err in 5 %, more than 11 do so once in 200 times


@pytest.mark.parametrize(("seeds", "sd"), [(1, 0.015), (3, 0.03), (5, 0.0), (5, 0.03)])
def test_of_equal_settings_hardly_any_report_calls_one_better(seeds: int, sd: float) -> None:
    found = counted(World(seeds=seeds, images=200, sd=sd), SWEEPS, seed=1)

    assert found.clear <= EQUAL
    assert found.apart <= EQUAL
    if seeds == 1:
        assert found.apart == 0  # one network of each says nothing about settings
    else:
        # 16 settings a sweep share their images, so that they do not count as 16.
        assert 0.91 <= found.covers <= 0.985


def test_settings_that_vary_much_are_not_vouched_for_by_those_that_do_not() -> None:
    assert counted(World(seeds=3, images=200, sd=0.005, unstable=0.04), SWEEPS, seed=2).apart <= EQUAL


def test_the_best_setting_stays_in_the_set_that_may_be_best() -> None:
    assert counted(World(seeds=5, images=200, sd=0.015, effect=EFFECT), SWEEPS, seed=3).kept >= 0.935


def test_seeds_find_a_difference_that_one_seed_cannot() -> None:
    world = World(images=1000, sd=0.0, effect=2 * EFFECT)

    assert counted(world._replace(seeds=5), 20, seed=4).apart > 0.9
    assert counted(world._replace(seeds=1), 20, seed=4).apart == 0


@pytest.mark.parametrize("settings", [4, 16, 64])
def test_the_winners_interval_covers_its_setting_after_it_was_confirmed(settings: int) -> None:
    found = counted(World(settings=settings, seeds=5, images=200, sd=0.03), SWEEPS, seed=5, confirm=True)

    assert 0.89 <= found.winner <= 0.995
    assert found.apart <= EQUAL


UNEVEN = np.repeat(np.arange(5), (110, 50, 20, 12, 8))
"""Classes of 200 images."""


@pytest.mark.parametrize("metric", ["macro_f1", "balanced_accuracy"])
@pytest.mark.parametrize("seeds", [1, 3])
def test_by_a_metric_made_of_classes_equal_settings_are_hardly_ever_told_apart(metric: str, seeds: int) -> None:
    rng, sweeps = np.random.default_rng(6), 40
    clear = 0
    for _ in range(sweeps):
        evidence = simulate(World(settings=8, seeds=seeds, images=len(UNEVEN), sd=0.02), rng)[0].by(metric, UNEVEN)
        assert evidence.statements
        told = evidence.told_apart
        assert not (told and seeds == 1)
        clear += bool(told) or any(evidence.verdict(key) == CLEAR for key in evidence.statements)
    assert clear / sweeps <= 0.15  # of 40 sweeps that err in 5 %, more than 6 do so once in 300 times


def test_by_a_metric_made_of_classes_a_large_difference_is_found() -> None:
    labels = np.repeat(np.arange(5), (400, 200, 180, 120, 100))
    world = World(settings=4, seeds=5, images=len(labels), sd=0.0, effect=3 * EFFECT)
    rng = np.random.default_rng(7)
    found = [simulate(world, rng)[0].by("macro_f1", labels) for _ in range(5)]
    assert [evidence.best is evidence.configurations[0] for evidence in found] == [True] * 5
    assert sum(len(evidence.told_apart) == 3 for evidence in found) >= 4
    assert simulate(world._replace(seeds=1), rng)[0].by("macro_f1", labels).told_apart == []


def test_with_too_few_images_of_a_class_nothing_is_said() -> None:
    labels = np.repeat(np.arange(5), (100, 50, 26, 20, 4))
    evidence = simulate(World(settings=8, images=len(labels), effect=0.15), np.random.default_rng(8))[0]
    by_class = evidence.by("macro_f1", labels)
    assert by_class.statements == {}
    assert by_class.told_apart == []
    assert by_class.score(by_class.configurations[0]) is None
