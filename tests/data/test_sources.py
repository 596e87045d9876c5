"""What a user can ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from cnnsearch.data.sources import identity, list_source
from cnnsearch.errors import DataError
from tests.data.making import fill_folder


def test_the_embedded_name_wins_and_a_path_reaches_a_folder_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fill_folder(tmp_path / "fashion-mini", {"cat": 1, "dog": 1})
    assert len(list_source("fashion-mini", tmp_path).examples) == 1700
    assert list_source("./fashion-mini", tmp_path).classes == ("cat", "dog")


def test_misspelt_names_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for source, meant in (("fashion-mni", "fashion-mini"), ("CIFAR100", "torchvision:CIFAR100")):
        with pytest.raises(DataError, match=f"Did you mean {meant}"):
            list_source(source, tmp_path)


def test_one_folder_has_one_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    assert identity("photos") == identity("./photos/") == identity(str(tmp_path / "photos"))
    assert identity("torchvision:MNIST") == "torchvision:MNIST"
    assert identity("fashion-mini") != identity("./fashion-mini")
