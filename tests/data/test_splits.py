"""Splits: exact counts, nothing twice, nothing lost, the same for the same seed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, strategies as st

from cnnsearch.data.dataset import SPLITS
from cnnsearch.data.splits import Rest, Rows, assign, fill, in_words, rows_of_classes, stratified, suited
from cnnsearch.errors import DataError
from cnnsearch.spec.data import AutoSplit, ChosenSplit, DataSpec, FillSplit, StratifiedSplit

CLASSES = ("cat", "dog", "owl")
TRAIN_TEST = ("train", "test")


@st.composite
def labels_of(draw: st.DrawFn, least: int, most: int = 30) -> Rows:
    """Labels of three classes, at least `least` rows each, in any order."""
    counts = draw(st.lists(st.integers(least, most), min_size=3, max_size=3))
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    return np.array(draw(st.permutations(labels)), np.int64)


def assert_partition(split: dict[str, Rows], size: int) -> None:
    rows = list(itertools.chain(*(part.tolist() for part in split.values())))
    assert sorted(rows) == list(range(size))
    for part in split.values():
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()


@given(labels_of(8), st.integers(1, 5), st.integers(1, 2))
def test_fill_takes_the_first_of_each_class_in_order(labels: Rows, train: int, val: int) -> None:
    split = fill(labels, CLASSES, train, val)
    assert list(split) == ["train", "val", "test"]
    assert_partition(split, len(labels))
    for label in range(3):
        rows = np.flatnonzero(labels == label)
        mine = {part: part_rows[labels[part_rows] == label] for part, part_rows in split.items()}
        assert mine["train"].tolist() == rows[:train].tolist()
        assert mine["val"].tolist() == rows[train : train + val].tolist()
        assert mine["test"].tolist() == rows[train + val :].tolist()


@given(labels_of(7), st.integers(1, 5), st.integers(1, 2), st.integers(0, 2**32))
def test_stratified_counts_are_exact_and_repeatable(labels: Rows, train: int, val: int, seed: int) -> None:
    split = stratified(labels, CLASSES, train, val, seed, rest="unused")
    assert_partition(split, len(labels))
    assert np.bincount(labels[split["train"]]).tolist() == [train] * 3
    assert np.bincount(labels[split["val"]]).tolist() == [val] * 3
    again = stratified(labels, CLASSES, train, val, seed, rest="unused")
    assert all(np.array_equal(split[part], again[part]) for part in split)


@given(labels_of(6), st.floats(0.1, 0.5), st.floats(0.1, 0.3), st.integers(0, 100))
def test_stratified_fractions_leave_every_part_of_every_class_something(
    labels: Rows, train: float, val: float, seed: int
) -> None:
    split = stratified(labels, CLASSES, train, val, seed)
    assert_partition(split, len(labels))
    sizes = np.bincount(labels)
    for part, amount in (("train", train), ("val", val)):
        counts = np.bincount(labels[split[part]], minlength=3)
        assert (abs(counts - amount * sizes) <= np.maximum(0.5, 1 - amount * sizes)).all()
    assert all((np.bincount(labels[rows], minlength=3) >= 1).all() for rows in split.values())


def test_fractions_round_half_up_with_at_least_one() -> None:
    split = stratified(np.zeros(10, np.int64), ("cat",), 0.25, 0.01, 0)
    assert [len(rows) for rows in split.values()] == [3, 1, 6]


def test_the_seed_matters_and_one_class_does_not_move_another() -> None:
    cats = np.zeros(40, np.int64)
    alone = stratified(cats, ("cat",), 0.5, 0.2, 7)
    other = stratified(cats, ("cat",), 0.5, 0.2, 8)
    with_dogs = stratified(np.concatenate([cats, np.ones(30, np.int64)]), ("cat", "dog"), 0.5, 0.2, 7)
    assert not np.array_equal(alone["train"], other["train"])
    assert np.array_equal(alone["train"], with_dogs["train"][with_dogs["train"] < 40])


def test_golden_stratified_split() -> None:
    split = stratified(np.array([0, 1] * 5), ("cat", "dog"), 2, 1, 0)
    assert {part: rows.tolist() for part, rows in split.items()} == {
        "train": [3, 4, 8, 9],
        "val": [6, 7],
        "test": [0, 1, 2, 5],
    }


def test_short_class_is_named_with_what_it_has_and_needs() -> None:
    labels = np.repeat([0, 1, 2], [80, 61, 71])
    with pytest.raises(DataError) as caught:
        fill(labels, CLASSES, 50, 20)
    assert str(caught.value) == (
        'class "dog" has 61 images; the split needs 71 (50 train + 20 validation + at least 1 test).'
    )


def test_an_official_test_part_needs_no_rest() -> None:
    labels = np.repeat([0, 1], [70, 69])
    with pytest.raises(DataError) as caught:
        fill(labels, ("cat", "dog"), 50, 20, rest="unused")
    assert str(caught.value) == ('class "dog" has 69 training images; the split needs 70 (50 train + 20 validation).')


def test_five_short_classes_are_listed_and_the_others_counted() -> None:
    with pytest.raises(DataError) as caught:
        fill(np.arange(9), [f"c{label}" for label in range(9)], 5, 2)
    lines = str(caught.value).splitlines()
    assert len(lines) == 6
    assert lines[4].startswith('class "c4" has 1 image;')
    assert lines[5] == "and 4 more classes."


def test_a_class_without_images_is_short() -> None:
    with pytest.raises(DataError, match='class "owl" has no images; the split needs 3'):
        fill(np.repeat([0, 1], 5), CLASSES, 1, 1)


@pytest.mark.parametrize("amount", [1.5, 20.25, -1, 0, float("nan"), float("inf")])
def test_amounts_that_are_neither_fractions_nor_counts_are_refused(amount: float) -> None:
    with pytest.raises(DataError, match=r"data\.split\.val is .*; give a fraction below 1, or a whole number"):
        stratified(np.zeros(100, np.int64), ("cat",), 0.5, amount, 0)


@pytest.mark.parametrize(("train", "val", "rest"), [(0.8, 0.2, "test"), (0.9, 0.2, "test"), (0.9, 0.2, "unused")])
def test_fractions_that_leave_nothing_are_refused(train: float, val: float, rest: Rest) -> None:
    with pytest.raises(DataError, match="nothing would be left"):
        stratified(np.zeros(100, np.int64), ("cat",), train, val, 0, rest=rest)


def test_with_an_official_test_part_fractions_may_use_everything() -> None:
    split = stratified(np.zeros(10, np.int64), ("cat",), 0.8, 0.2, 0, rest="unused")
    assert [len(rows) for rows in split.values()] == [8, 2, 0]


def test_a_whole_float_is_a_count() -> None:
    assert len(stratified(np.zeros(10, np.int64), ("cat",), 3.0, 1, 0)["train"]) == 3


def test_rows_of_classes_keeps_order_and_empty_classes() -> None:
    rows = rows_of_classes(np.array([2, 0, 2, 0]), 4)
    assert [part.tolist() for part in rows] == [[1, 3], [], [0, 2], []]


def test_assign_keeps_what_the_source_gives() -> None:
    parts = ["train", "train", "val", "val", "test", "test"]
    split = assign(SPLITS, parts, np.array([0, 1] * 3), ("cat", "dog"), FillSplit())
    assert {part: rows.tolist() for part, rows in split.items()} == {"train": [0, 1], "val": [2, 3], "test": [4, 5]}


def test_assign_takes_validation_from_an_official_training_part() -> None:
    parts = ["test"] * 2 + ["train"] * 8
    split = assign(
        TRAIN_TEST, parts, np.array([0, 1] * 5), ("cat", "dog"), FillSplit(train_per_class=2, val_per_class=1)
    )
    assert {part: rows.tolist() for part, rows in split.items()} == {
        "train": [2, 3, 4, 5],
        "val": [6, 7],
        "unused": [8, 9],
        "test": [0, 1],
    }


def test_assign_divides_what_is_not_given_by_the_spec() -> None:
    labels = np.repeat([0, 1], 10)
    split = StratifiedSplit(train=0.5, val=0.2, seed=3)
    mine = assign((), [None] * 20, labels, ("cat", "dog"), split)
    direct = stratified(labels, ("cat", "dog"), 0.5, 0.2, 3)
    assert all(np.array_equal(mine[part], direct[part]) for part in ("train", "val", "test"))


@pytest.mark.parametrize(
    ("given_parts", "parts", "said"),
    [
        (SPLITS, ["train", "train", "val", "val", "test"], 'class "dog" has no test images.'),
        (SPLITS, ["train", "train", "test", "test"], 'class "cat" has no val images.\nclass "dog" has no val images.'),
        (SPLITS, ["train", "train", "val", "val"], 'class "cat" has no test images.\nclass "dog" has no test images.'),
        (TRAIN_TEST, ["train"] * 4 + ["test"], 'class "dog" has no test images.'),
        (TRAIN_TEST, ["test"] * 2, 'class "cat" has no training images; the split needs 2 (1 train + 1 validation).'),
    ],
)
def test_assign_refuses_a_given_part_without_some_class(
    given_parts: tuple[str, ...], parts: list[str], said: str
) -> None:
    labels = np.array([0, 1, 0, 1, 0])[: len(parts)]
    with pytest.raises(DataError) as caught:
        assign(given_parts, parts, labels, ("cat", "dog"), FillSplit(train_per_class=1, val_per_class=1))
    assert str(caught.value).startswith(said)


FRACTIONS = StratifiedSplit(train=0.6, val=0.2)


@pytest.mark.parametrize(
    ("given", "sizes", "chosen"),
    [
        ((), [170] * 10, FillSplit()),
        ((), [71] * 3, FillSplit()),
        ((), [71, 70, 71], FRACTIONS),  # one class has no image left to test on
        ((), [14, 13, 13], FRACTIONS),
        ((), [200] * 4, FillSplit()),
        ((), [201] * 4, FRACTIONS),  # less than a quarter would train
        ((), [100_000], FRACTIONS),
        (TRAIN_TEST, [70] * 3, FillSplit()),
        (TRAIN_TEST, [69] * 3, StratifiedSplit(train=0.8, val=0.2)),
        (TRAIN_TEST, [5000] * 10, StratifiedSplit(train=0.8, val=0.2)),
        (SPLITS, [3] * 3, FillSplit()),
    ],
)
def test_images_are_split_as_suits_them(given: tuple[str, ...], sizes: list[int], chosen: ChosenSplit) -> None:
    assert suited(AutoSplit(), given, sizes) == chosen
    asked = StratifiedSplit(train=3, val=2)
    assert suited(asked, given, sizes) == asked


def test_a_folder_keeps_the_split_it_began_with_while_it_has_the_images() -> None:
    before = FillSplit(train_per_class=20, val_per_class=5)
    assert suited(AutoSplit(), (), [5000] * 3, before) == before
    assert suited(AutoSplit(), (), [26] * 3, before) == before
    assert suited(AutoSplit(), (), [26, 25, 26], before) == FRACTIONS


@given(labels_of(4, 400))
def test_what_is_chosen_can_be_dealt(labels: Rows) -> None:
    sizes = np.bincount(labels, minlength=3).tolist()
    split = assign((), [None] * len(labels), labels, CLASSES, suited(AutoSplit(), (), sizes))
    assert_partition(split, len(labels))
    assert all(np.bincount(labels[rows], minlength=3).min() > 0 for rows in split.values())


@pytest.mark.parametrize(
    ("keys", "method"),
    [
        ({}, "auto"),
        ({"train": 0.7}, "stratified"),
        ({"seed": 3}, "stratified"),
        ({"val_per_class": 5}, "fill"),
    ],
)
def test_a_key_says_which_kind_of_split_is_meant(keys: dict[str, float], method: str) -> None:
    split = DataSpec.model_validate({"split": keys} if keys else {}).split
    assert split.method == method
    assert split.model_dump() == {**split.model_dump(), **keys}


def test_a_split_is_told_in_words() -> None:
    assert in_words(FRACTIONS, ()) == (
        "at random within each class (seed 0): 60 % training, 20 % validation; the rest is test"
    )
    assert in_words(StratifiedSplit(train=0.8, val=0.2), TRAIN_TEST) == (
        "test as the source has it; of its training images at random within each class (seed 0): 80 % training, "
        "20 % validation"
    )
    assert in_words(StratifiedSplit(train=5, val=2, seed=1), ()) == (
        "at random within each class (seed 1): 5 training, 2 validation; the rest is test"
    )
