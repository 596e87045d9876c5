"""What a results folder says of its data."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cnnsearch import describe
from cnnsearch.data.dataset import Dataset, png
from cnnsearch.describe import SHEET_IMAGES, write_description, write_pictures
from cnnsearch.prepare import prepared
from cnnsearch.results.folder import Results
from cnnsearch.spec.sweep import Sweep
from tests.data.making import fill_folder


def test_the_splits_of_the_source_are_recorded(small_sweep: Callable[..., Sweep], tmp_path: Path) -> None:
    images = fill_folder(tmp_path / "d", {f"{part}/{name}": 2 for part in ("train", "val", "test") for name in "ab"})
    with prepared(small_sweep(f"data.source={images}"), tmp_path / "out") as ready:
        write_description(ready)
    assert json.loads((tmp_path / "out" / "part1" / "data.json").read_text())["parts"] == ["train", "val", "test"]


def test_the_contact_sheet_has_the_first_training_images_of_the_first_classes(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sheet = write_pictures(Results(tmp_path), dataset, [])["sheet"]
    light = [row for row in dataset.indices["train"] if dataset.labels[row] == 1][:SHEET_IMAGES]
    assert list(sheet) == ["dark", "light"]
    assert sheet["light"] == [base64.b64encode(png(dataset, int(row))).decode() for row in light]
    monkeypatch.setattr(describe, "SHEET_CLASSES", 1)
    assert list(write_pictures(Results(tmp_path), dataset, [])["sheet"]) == ["dark"]
