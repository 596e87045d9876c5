"""What a run finds before its first trial."""

from __future__ import annotations

from pathlib import Path

from cnnsearch.describe import write_description
from cnnsearch.prepare import prepared
from cnnsearch.spec.data import FillSplit, StratifiedSplit
from cnnsearch.spec.load import load_sweep
from tests.data.making import fill_folder


def test_a_split_that_is_left_open_is_settled_once_for_a_results_folder(tmp_path: Path) -> None:
    photos = fill_folder(tmp_path / "photos", {"cat": 12, "dog": 12})
    sweep = load_sweep("part1", profile="quick", data=str(photos), values={"data.image_size": 8})
    with prepared(sweep, tmp_path) as ready:
        assert ready.sweep.data.split == StratifiedSplit(train=0.6, val=0.2)
        write_description(ready)
    fill_folder(tmp_path / "more", {"cat": 120, "dog": 120})
    for new in (tmp_path / "more").rglob("*.png"):
        target = photos / new.parent.name / f"new-{new.name}"
        new.rename(target)
    with prepared(sweep, tmp_path) as ready:
        assert ready.sweep.data.split == StratifiedSplit(train=0.6, val=0.2)
    with prepared(sweep, tmp_path / "elsewhere") as ready:
        assert ready.sweep.data.split == FillSplit(train_per_class=50, val_per_class=20)
    asked = load_sweep("part1", profile="quick", data=str(photos), values={"data.split.train": 0.5})
    with prepared(asked.with_values({"data.image_size": 8}), tmp_path) as ready:
        assert ready.sweep.data.split == StratifiedSplit(train=0.5, val=0.2)
