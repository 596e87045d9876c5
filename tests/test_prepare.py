"""What a run finds before its first trial."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cnnsearch import prepare
from cnnsearch.data import inspection
from cnnsearch.describe import write_description
from cnnsearch.execution.machine import hardware
from cnnsearch.plan_text import total_seconds
from cnnsearch.prepare import prepared
from cnnsearch.spec.data import FillSplit, StratifiedSplit
from cnnsearch.spec.load import load_sweep
from cnnsearch.spec.sweep import Sweep
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


def test_a_results_folder_keeps_how_jpeg_files_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = fill_folder(tmp_path / "photos", {"cat": 13, "dog": 12})
    sweep = load_sweep("part1", profile="quick", data=str(photos))

    def decoded_as(folder: str) -> str:
        with prepared(sweep, tmp_path / folder) as ready:
            write_description(ready)
            return ready.sweep.data.jpeg

    assert decoded_as("older") == "exact"
    text = (tmp_path / "older" / "part1" / "sweep.yaml").read_text()
    assert "  jpeg: exact\n" in text
    (tmp_path / "older" / "part1" / "sweep.yaml").write_text(text.replace("  jpeg: exact\n", ""))
    monkeypatch.setattr(inspection, "MOST", 20)
    assert decoded_as("older") == "exact"  # as all were before there was a choice
    assert decoded_as("newer") == "scaled"
    monkeypatch.undo()
    assert decoded_as("newer") == "scaled"


def test_trials_of_this_process_are_planned_one_after_another(
    small_sweep: Callable[..., Sweep], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "detect", lambda: replace(hardware.detect(), cores=2))
    seconds = []
    for serial in (False, True):
        with prepared(small_sweep(), tmp_path, dry_run=True, serial=serial) as ready:
            assert ready.layout.trials_at_once == 2 - serial
            seconds.append(sum(cost.seconds for cost in ready.costs.values()))
            without_ray = ready.calibration.around_seconds(ready.plan.total, serial=True)
            assert (total_seconds(ready) == pytest.approx(seconds[-1] + without_ray)) is serial
    assert seconds[1] == pytest.approx(2 * seconds[0])
