"""The same images train the same trials, with the same ids and numbers, however they are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cnnsearch import run
from cnnsearch.results.folder import Results
from cnnsearch.spec.load import load_sweep
from tests.conftest import SMALL
from tests.data.making import as_members, as_rows, fill_folder, named, write_shard, write_table, write_tar
from tests.recorded import numbers

SPLIT = "data.split={method: stratified, train: 0.5, val: 0.25}"


def trained(source: Path, out: Path) -> dict[str, Any]:
    """The numbers of a tiny sweep over these images."""
    stages = "stages=[{name: grid, space: {model: plain, lr: {grid: [0.01, 0.001]}}}]"
    sweep = load_sweep("part1", data=str(source), values=[*SMALL, SPLIT, stages])
    run(sweep, out, serial=True)
    return numbers(out / sweep.name)


def test_folder_table_parquet_and_archive_train_the_same_trials(tmp_path: Path) -> None:
    photos = fill_folder(tmp_path / "photos", {"cat": 12, "dog": 12})
    sources = {
        "csv": write_table(photos / "all.csv", named(photos)[::-1]),
        "parquet": write_shard(tmp_path / "all.parquet", as_rows(photos), ["cat", "dog"]),
        "tar": write_tar(tmp_path / "all.tar", as_members(photos)),
    }
    wanted = trained(photos, tmp_path / "results")
    assert len(wanted) == 2
    assert all("val_accuracy" in row for *_, epochs in wanted.values() for row in epochs)
    for kind, source in sources.items():
        assert trained(source, tmp_path / f"results-{kind}") == wanted
    folder = tmp_path / "results" / "part1"
    before = Results(folder).records()
    assert trained(sources["tar"], tmp_path / "results") == wanted  # there is nothing left to train
    assert Results(folder).records() == before


def test_splits_that_the_source_brings_are_the_same_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos, shards = tmp_path / "photos", tmp_path / "shards"
    shards.mkdir()
    rows = []
    for at, part in enumerate(("train", "val", "test")):
        fill_folder(photos / part, {"cat": 6, "dog": 6}, first=100 * at)
        write_shard(shards / f"{part}-00000-of-00001.parquet", as_rows(photos / part), ["cat", "dog"])
        write_tar(tmp_path / f"pets-{part}.tar", as_members(photos / part))
        rows += [(f"{part}/{path}", label, part) for path, label in named(photos / part)]
    wanted = trained(photos, tmp_path / "results")
    table = write_table(photos / "all.csv", rows, "path", "label", "split")
    monkeypatch.chdir(tmp_path)
    for name, source in (("csv", table), ("parquet", shards), ("tar", Path("pets-*.tar"))):
        assert trained(source, tmp_path / name) == wanted
