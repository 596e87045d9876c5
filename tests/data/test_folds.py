"""Folds: every image validates once, groups stay together, and one more repeat changes nothing that was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from cnnsearch.data.dataset import Dataset
from cnnsearch.data.folds import Folds, Rows, deal, keep_apart
from cnnsearch.data.loading import load
from cnnsearch.data.splits import in_words
from cnnsearch.errors import DataError, SpecError
from cnnsearch.spec.data import DataSpec, FoldsSplit
from cnnsearch.spec.load import load_sweep
from tests.data.making import fill_folder, write_table

CLASSES = ("cat", "dog", "owl")


@st.composite
def labelled(draw: st.DrawFn, least: int) -> Rows:
    counts = draw(st.lists(st.integers(least, 40), min_size=3, max_size=3))
    return np.array(draw(st.permutations(np.repeat(range(3), counts).tolist())), np.int64)


@given(labelled(12), st.integers(3, 6), st.integers(0, 3), st.integers(0, 1000))
def test_each_image_validates_once_and_folds_are_alike(labels: Rows, k: int, repeat: int, seed: int) -> None:
    folds = deal(labels, CLASSES, FoldsSplit(k=k, repeats=4, seed=seed), repeat)
    assert set(folds.tolist()) == set(range(k))
    for rows in (slice(None), *(labels == label for label in range(3))):
        sizes = np.bincount(folds[rows], minlength=k)
        assert sizes.max() - sizes.min() <= 1


@given(labelled(12), st.integers(0, 100))
def test_test_images_are_in_no_fold(labels: Rows, seed: int) -> None:
    split = keep_apart(labels, CLASSES, FoldsSplit(test=0.25, seed=seed))
    assert sorted([*split["train"], *split["test"]]) == list(range(len(labels)))
    wanted = [max(1, int(0.25 * size + 0.5)) for size in np.bincount(labels)]
    assert np.bincount(labels[split["test"]], minlength=3).tolist() == wanted


@given(st.data(), st.integers(3, 5), st.integers(0, 1000))
def test_no_group_crosses_a_fold_or_the_test_set(data: st.DataObject, k: int, seed: int) -> None:
    # Groups of one to four images of one class, and some with images of two.
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=8 * k, max_size=12 * k))
    groups = np.repeat(np.arange(len(sizes)), sizes)
    labels = groups % 3
    labels[::7] = (labels[::7] + 1) % 3
    split = FoldsSplit(k=k, repeats=2, test=0.2, seed=seed)
    apart = keep_apart(labels, CLASSES, split, groups)
    assert not set(groups[apart["train"]]) & set(groups[apart["test"]])
    rest = apart["train"]
    for repeat in range(2):
        folds = deal(labels[rest], CLASSES, split, repeat, groups[rest])
        assert set(folds.tolist()) == set(range(k))
        for group in set(groups[rest].tolist()):
            assert len(set(folds[groups[rest] == group].tolist())) == 1


def test_repeats_differ_and_each_is_what_it_was_with_fewer_of_them() -> None:
    labels = np.repeat([0, 1, 2], 20)
    few, many = (Folds(FoldsSplit(repeats=n), CLASSES, np.arange(60), labels, whole="x") for n in (1, 3))
    assert few.fingerprints == many.fingerprints[:5]
    assert len(set(many.fingerprints)) == 15
    train, val = many.parts(7)
    assert sorted([*train, *val]) == list(range(60))
    assert (many.dealt(1)[val] == 2).all()


def test_a_fold_is_known_by_its_images_whatever_it_is_called() -> None:
    labels = np.repeat([0, 1, 2], 20)
    five, other = (Folds(FoldsSplit(seed=seed), CLASSES, np.arange(60), labels, whole="x") for seed in (0, 1))
    assert not set(five.fingerprints) & set(other.fingerprints)
    elsewhere = Folds(FoldsSplit(), CLASSES, np.arange(60), labels, whole="y")
    assert not set(five.fingerprints) & set(elsewhere.fingerprints)


@pytest.mark.parametrize(
    ("labels", "split", "message"),
    [
        ([0] * 20 + [1] * 20 + [2] * 5, FoldsSplit(), r'class "owl" has 5 images; the split needs 6 \(5 folds \+ 1'),
        ([0] * 20 + [1] * 20 + [2] * 20, FoldsSplit(test=1.5), r"data.split.test is 1.5; give a fraction below 1"),
    ],
)
def test_too_few_images_are_refused_by_class(labels: list[int], split: FoldsSplit, message: str) -> None:
    with pytest.raises(DataError, match=message):
        keep_apart(np.array(labels), CLASSES, split)


def test_a_class_with_fewer_groups_than_folds_is_refused() -> None:
    labels = np.repeat([0, 1], 20)
    groups = np.concatenate([np.arange(20), np.repeat([20, 21], 10)])
    with pytest.raises(DataError, match=r'class "dog" would have no fold . images: its images are in 2 groups'):
        deal(labels, CLASSES[:2], FoldsSplit(), 0, groups)


def folded(source: Path, **split: object) -> Dataset:
    spec = DataSpec.model_validate({"source": str(source), "split": {"method": "folds", "k": 3, **split}})
    return load(spec, [8])[8]


def test_data_sets_of_folds_share_their_images_and_nothing_else(tmp_path: Path) -> None:
    whole = folded(fill_folder(tmp_path / "photos", {"cat": 10, "dog": 10}), repeats=2)
    folds = [whole.of(fingerprint) for fingerprint in whole.fold_fingerprints]
    assert len(folds) == 6
    assert {fold.images_path for fold in folds} == {whole.images_path}
    assert {fold.contents for fold in folds} == {whole.fingerprint}
    for first in (0, 3):
        val = np.concatenate([fold.indices["val"] for fold in folds[first : first + 3]])
        assert sorted([*val, *whole.indices["test"]]) == list(range(20))
    for fold in folds:
        parts = [fold.indices[part].tolist() for part in ("train", "val", "test")]
        assert sorted([row for part in parts for row in part]) == list(range(20))
    with pytest.raises(KeyError):
        whole.of("another")


def test_groups_are_found_in_names_or_in_a_column(tmp_path: Path) -> None:
    photos = fill_folder(tmp_path / "photos", {"cat": 12, "dog": 12})
    by_name = folded(photos, group="([0-9])[.]png$", test=2)  # the last digit
    rows = [(name, name.split("/")[0], name[-5]) for name in by_name.names]
    table = write_table(photos / "all.csv", rows, "path", "label", "patient")
    by_column = folded(table, group="patient", test=2)
    assert by_column.fold_fingerprints == by_name.fold_fingerprints
    for fingerprint in by_name.fold_fingerprints:
        fold = by_name.of(fingerprint)
        digits = [{fold.names[row][-5] for row in fold.indices[part]} for part in ("train", "val", "test")]
        assert not digits[0] & digits[1]
        assert not (digits[0] | digits[1]) & digits[2]


def test_a_pattern_that_is_in_no_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data.split.group: 'patient' is found in the names of none of 24 images"):
        folded(fill_folder(tmp_path / "photos", {"cat": 12, "dog": 12}), group="patient")


def test_of_a_source_with_its_own_test_set_all_else_is_dealt(tmp_path: Path) -> None:
    for part, count in (("train", 9), ("test", 4)):
        fill_folder(tmp_path / "photos" / part, {"cat": count, "dog": count})
    found = folded(tmp_path / "photos")
    assert len(found.indices["test"]) == 8
    assert found.folds is not None
    assert len(found.folds.rows) == 18
    assert in_words(found.split, found.parts).startswith("test as the source has it; 3 folds of the others")


def test_copies_in_two_folds_are_pointed_out(tmp_path: Path) -> None:
    photos = fill_folder(tmp_path / "photos", {"cat": 12, "dog": 12})
    for number in range(6):
        (photos / "cat" / f"copy{number}.png").write_bytes((photos / "cat" / "000.png").read_bytes())
    assert any("also in another fold or in test, byte for byte" in warning for warning in folded(photos).warnings)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["data.split={k: 2}"], r"given k: 2, repeats: 1; allowed: k x repeats from 3 on"),
        (["data.split={k: 5, group: '['}"], r"given '\[', no regular expression"),
        (["data.split={k: 5}", "seeds=[0, 1]"], r"given \[0, 1\]; with data.split.method folds every fold has a seed"),
        (["data.split={k: 5}", "stages.grid.space.seed.grid=[0, 1]"], r"seed is no axis here: with data.split.method"),
        (["data.split={k: 5}", "confirm=3"], r"confirm does not go with data.split.method folds"),
        (["data.split={k: 5}", "train.seed=2147483646"], r"given 2147483646; allowed: to 2147483643"),
    ],
)
def test_what_does_not_go_with_folds_is_refused(values: list[str], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load_sweep("part1", values=values)
