"""Splits and classes told apart: by names, by what is in the folders, and by what the sweep says."""

from __future__ import annotations

from pathlib import Path

import pytest

from cnnsearch.data.folders import list_folder
from cnnsearch.errors import DataError
from tests.data.making import fill_folder


def fill(root: Path, folders: tuple[str, ...], names: tuple[str, ...] = ("cat", "dog")) -> Path:
    return fill_folder(root, {f"{folder}/{name}": 1 for folder in folders for name in names})


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("Training", "Validation", "Testing"),
        ("training_set", "dev_set", "test_set"),
        ("trainset", "valset", "testset"),
        ("flowers_train", "flowers_eval", "flowers_test"),
        ("train-images", "val images", "test.images"),
        ("img2012_train", "img2012_val", "img2012_test"),
        ("Training", "val", "test"),
    ],
)
def test_relatives_of_the_usual_names_are_splits(train: str, val: str, test: str, tmp_path: Path) -> None:
    listing = list_folder(str(fill(tmp_path, (train, val, test))))
    assert listing.classes == ("cat", "dog")
    assert listing.parts == ("train", "val", "test")
    assert [example.name for example in listing.examples] == [
        f"{folder}/{name}/000.png" for folder in (train, val, test) for name in ("cat", "dog")
    ]


def test_training_and_testing_are_a_split_without_validation(tmp_path: Path) -> None:
    listing = list_folder(str(fill(tmp_path, ("Training", "Testing"), ("glioma", "none"))))
    assert listing.classes == ("glioma", "none")
    assert [example.part for example in listing.examples] == ["train", "train", "test", "test"]


def test_a_split_may_lie_in_a_folder_of_its_own_name(tmp_path: Path) -> None:
    listing = list_folder(str(fill(tmp_path, ("seg_train/seg_train", "seg_test/seg_test"))))
    assert listing.parts == ("train", "test")
    assert listing.classes == ("cat", "dog")
    assert listing.examples[0].name == "seg_train/seg_train/cat/000.png"


def test_classes_with_names_of_splits_are_classes_where_they_hold_images(tmp_path: Path) -> None:
    fill_folder(tmp_path, {"training": 1, "testing": 1, "dev": 1})
    assert list_folder(str(tmp_path)).classes == ("dev", "testing", "training")


@pytest.mark.parametrize(
    "folders", [("A", "B"), ("fold1", "fold2", "fold3"), ("old/in", "new/in"), ("train", "flowers_test")]
)
def test_folders_that_all_hold_the_same_folders_are_refused(folders: tuple[str, ...], tmp_path: Path) -> None:
    fill(tmp_path, folders)
    with pytest.raises(DataError) as caught:
        list_folder(str(tmp_path))
    shown = ", ".join(f"{name}/" for name in sorted(name.partition("/")[0] for name in folders))
    assert str(caught.value).splitlines() == [
        f"{tmp_path} has {shown}, and each of them holds the same folders, cat/, dog/.",
        "These look like splits, not like classes. If they are splits, call them train/, val/ and test/, or train/ "
        "and test/. If they are classes, say so: --set data.layout=classes",
    ]


@pytest.mark.parametrize("folders", [("A", "B"), ("train", "test"), ("Training", "Testing")])
def test_they_are_classes_if_the_sweep_says_so(folders: tuple[str, ...], tmp_path: Path) -> None:
    listing = list_folder(str(fill(tmp_path, folders)), layout="classes")
    assert listing.classes == tuple(sorted(folders))
    assert listing.parts == ()
    assert listing.warnings == (f"4 images lie in sub-folders of their class, for example {min(folders)}/cat/000.png.",)


def test_classes_with_different_folders_or_images_beside_them_stay_classes(tmp_path: Path) -> None:
    fill_folder(tmp_path / "one", {"cat/a": 1, "cat/b": 1, "dog/a": 1, "dog/c": 1})
    assert list_folder(str(tmp_path / "one")).classes == ("cat", "dog")
    fill_folder(tmp_path / "other", {"cat": 1, "cat/a": 1, "cat/b": 1, "dog": 1, "dog/a": 1, "dog/b": 1})
    assert list_folder(str(tmp_path / "other")).classes == ("cat", "dog")
    fill_folder(tmp_path / "single", {"cat/a": 1, "dog/a": 1})
    assert list_folder(str(tmp_path / "single")).classes == ("cat", "dog")


def test_a_folder_beside_relatives_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, ("seg_train", "seg_test", "seg_pred"))
    with pytest.raises(DataError, match=r"has seg_train/, seg_test/ and also seg_pred/\.\n.*data\.layout=classes"):
        list_folder(str(tmp_path))
