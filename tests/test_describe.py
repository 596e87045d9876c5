"""What a results folder says of its data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from cnnsearch.describe import write_description
from cnnsearch.prepare import prepared
from cnnsearch.spec.sweep import Sweep
from tests.data.making import fill_folder


def test_the_splits_of_the_source_are_recorded(small_sweep: Callable[..., Sweep], tmp_path: Path) -> None:
    images = fill_folder(tmp_path / "d", {f"{part}/{name}": 2 for part in ("train", "val", "test") for name in "ab"})
    with prepared(small_sweep(f"data.source={images}"), tmp_path / "out") as ready:
        write_description(ready)
    assert json.loads((tmp_path / "out" / "part1" / "data.json").read_text())["parts"] == ["train", "val", "test"]
