"""Groups are dealt whole, near the shares that were asked for."""

from __future__ import annotations

import numpy as np
import pytest

from cnnsearch.data.groups import deal_groups
from cnnsearch.data.splits import assign
from cnnsearch.errors import DataError
from cnnsearch.spec.data import StratifiedSplit


def test_sizes_come_near_what_is_wanted() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 200, 3000)
    labels = rng.integers(0, 3, 3000)
    found = assign((), [None] * 3000, labels, "abc", StratifiedSplit(train=0.6, val=0.2), groups)
    assert sorted(np.concatenate(list(found.values())).tolist()) == list(range(3000))
    for part, share in (("train", 0.6), ("val", 0.2), ("test", 0.2)):
        assert np.all(np.diff(found[part]) > 0)
        counts = np.bincount(labels[found[part]])
        np.testing.assert_allclose(counts / np.bincount(labels), share, atol=0.02)
    parts = [set(groups[rows].tolist()) for rows in found.values()]
    assert sum(map(len, parts)) == len(set.union(*parts))


def test_the_seed_alone_decides() -> None:
    labels, groups = np.repeat([0, 1], 20), np.arange(40) // 2
    wanted = {"train": np.array([12, 12]), "val": np.array([4, 4]), "test": np.array([4, 4])}
    one, same, other = (deal_groups(labels, "ab", groups, wanted, seed)["train"].tolist() for seed in (0, 0, 1))
    assert one == same != other


def test_a_test_split_that_is_given_stays() -> None:
    labels, parts = np.repeat([0, 1], 20), ["train", "train", "train", "test"] * 10
    groups = np.arange(40)
    found = assign(("train", "test"), parts, labels, "ab", StratifiedSplit(train=0.8, val=0.2), groups)
    assert found["test"].tolist() == list(range(3, 40, 4))
    assert (len(found["train"]), len(found["val"]), len(found["unused"])) == (24, 6, 0)


@pytest.mark.parametrize("seed", range(5))
def test_as_many_groups_as_splits_are_enough(seed: int) -> None:
    labels, groups = np.repeat([0, 1], 6), np.arange(12) // 2
    found = assign((), [None] * 12, labels, "ab", StratifiedSplit(train=0.5, val=0.25, seed=seed), groups)
    assert {part: rows.size for part, rows in found.items()} == {"train": 4, "val": 4, "test": 4}


def test_a_class_in_too_few_groups_is_refused() -> None:
    labels, groups = np.repeat([0, 1], 10), np.r_[np.arange(10), np.repeat([10, 11], 5)]
    said = 'class "b" would have no (val|test) images: its images are in 2 groups, which stay together'
    with pytest.raises(DataError, match=said):
        assign((), [None] * 20, labels, "ab", StratifiedSplit(), groups)
    with pytest.raises(DataError, match='class "b" has 2 images; the split needs 3'):
        assign((), [None] * 12, labels[:12], "ab", StratifiedSplit(), groups[:12])
