"""What a results folder says of its data."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cnnsearch import describe
from cnnsearch.data.dataset import Dataset, png
from cnnsearch.describe import SHEET_IMAGES, write_description, write_pictures
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.prepare import prepared
from cnnsearch.report.advice import advice
from cnnsearch.results.folder import Results
from cnnsearch.results.tables import load
from cnnsearch.session import execute
from cnnsearch.spec.load import load_sweep
from cnnsearch.spec.sweep import Sweep
from tests.data.making import fill_folder
from tests.faults.running import TWO_TRIALS


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


@pytest.fixture
def two_trials(tmp_path: Path) -> Callable[..., Sweep]:
    file = tmp_path / "tiny.yaml"
    file.write_text(TWO_TRIALS)
    return lambda *values: load_sweep(str(file), values=values)


def test_the_command_that_goes_on_is_that_of_the_last_run_even_if_it_was_killed(
    two_trials: Callable[..., Sweep], tmp_path: Path
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    def run(command: str, *changes: str, **options: Any) -> None:
        with prepared(two_trials(*changes), tmp_path) as ready:
            execute(ready, serial=True, command=command, **options)

    run("first", max_trials=1)
    with pytest.raises(KeyboardInterrupt):
        run("second --confirm 3", "confirm=3", executor=killed)
    tables = load(tmp_path / "tiny")
    first, second = tables.provenance["runs"]
    assert (first["command"], second["command"]) == ("first", "second --confirm 3")
    assert first["seconds"] > 0
    assert "seconds" not in second
    finish = advice(Evidence(tables))[0]
    assert finish.text.startswith("Finish the sweep: ")
    assert finish.command == "second --confirm 3"


def test_a_run_is_recorded_once_and_one_with_nothing_to_do_only_where_it_changes_the_sweep(
    two_trials: Callable[..., Sweep], tmp_path: Path
) -> None:
    def commands(command: str, *changes: str) -> list[str]:
        with prepared(two_trials(*changes), tmp_path) as ready:
            execute(ready, serial=True, command=command)
        runs = Results(tmp_path / "tiny").read("provenance.json")["runs"]
        assert all(run["seconds"] > 0 for run in runs)
        return [run["command"] for run in runs]

    assert commands("wide") == ["wide"]
    assert commands("wide") == ["wide"]
    narrow = "stages.grid.space.lr.grid=[0.01]"
    assert commands("narrow", narrow) == ["wide", "narrow"]
    assert commands("narrow", narrow) == ["wide", "narrow"]
