"""Only weights that something needs are kept; the plan says how much disk a run takes; nothing needed is lost."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cnnsearch.results.folder import Results
from tests.asking import ask
from tests.faults.running import Ended, call
from tests.recorded import numbers

pytestmark = pytest.mark.after

SWEEP = """
name: tiny
data: {image_size: 8, split: {method: fill, train_per_class: 6, val_per_class: 4}}
train: {model: residual, width: 0.1, epochs: 3, precision: fp32}
stages:
  - name: grid
    space:
      model: {grid: [plain, residual]}
      lr: {grid: [0.0001, 0.001, 0.01]}
      batch_size: {grid: [8, 16]}
  - name: dropout
    start_from: {stage: grid, best: val_accuracy, per: model}
    space: {dropout: {grid: [0.1, 0.2]}}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[object], Ended, dict[str, Any]]:
    """A finished run: its folder, its arguments, the plan made before, and its numbers."""
    folder = tmp_path_factory.mktemp("disk")
    (folder / "tiny.yaml").write_text(SWEEP, encoding="utf-8")
    arguments: list[object] = [folder / "tiny.yaml", "--out", folder, "--serial"]
    planned = call(*arguments, "--dry-run", "--json", module="cnnsearch.sweep")
    assert ask(*arguments).returncode == 0
    return folder / "tiny", arguments, planned, numbers(folder / "tiny")


def kept(results: Path) -> set[str]:
    return {file.parent.name for file in results.glob("trials/*/best.safetensors")}


def trials(results: Path) -> pd.DataFrame:
    return pd.read_parquet(results / "trials.parquet")


@pytest.mark.row(25)
def test_weights_are_kept_of_parents_and_of_the_best_of_each_model(
    finished: tuple[Path, list[object], Ended, dict[str, Any]],
) -> None:
    results, _, _, _ = finished
    table = trials(results)
    needed = set(table["parent_id"].dropna())
    for _, group in table.groupby(["stage", "model"]):
        needed |= {group.sort_values("val_accuracy", ascending=False, kind="stable")["trial_id"].iloc[0]}
        needed |= {group.sort_values("val_loss", kind="stable")["trial_id"].iloc[0]}
    assert kept(results) == needed
    assert len(needed) < len(table)
    assert not list(results.rglob("checkpoint.pt"))


@pytest.mark.row(25)
def test_the_plan_foretells_the_disk(finished: tuple[Path, list[object], Ended, dict[str, Any]]) -> None:
    """The prediction is of the peak: what is there in the end is less, and not by an order of magnitude."""
    results, _, planned, _ = finished
    used = sum(file.stat().st_size for file in results.glob("trials/*/*"))
    assert used <= planned.told["disk_bytes"] <= 8 * used
    assert " disk" in planned.stderr


@pytest.mark.row(25)
def test_a_later_stage_that_needs_dropped_weights_gets_them_trained_again(
    finished: tuple[Path, list[object], Ended, dict[str, Any]],
) -> None:
    """For every batch size the best, where only the best of each model was kept; the numbers are the same ones."""
    results, arguments, _, before = finished
    value = "stages.dropout.start_from={stage: grid, best: val_accuracy, per: [model, batch_size]}"
    planned = ask(*arguments, "--set", value, "--dry-run")
    assert "run again: others start from weights of theirs that are gone or damaged" in planned.stdout
    ended = ask(*arguments, "--set", value, "--json")
    assert ended.returncode == 0, ended.stderr
    assert ended.told["counts"]["done"] == 12 + 8
    after = numbers(results)
    assert {trial_id: after[trial_id] for trial_id in before} == before


@pytest.mark.row(25)
@pytest.mark.row(10)
def test_a_damaged_parent_is_trained_again(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(SWEEP.replace("[plain, residual]", "[plain]"), encoding="utf-8")
    arguments: list[object] = [tmp_path / "tiny.yaml", "--out", tmp_path, "--serial"]
    assert ask(*arguments).returncode == 0
    results = tmp_path / "tiny"
    before = numbers(results)
    (parent,) = set(trials(results)["parent_id"].dropna())
    weights = results / "trials" / parent / "best.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 16
    weights.write_bytes(content)
    child = next(record for record in Results(results).records().values() if record.parent_id)
    (results / "trials" / child.trial_id / "record.json").unlink()
    ended = ask(*arguments)
    assert ended.returncode == 0, ended.stderr
    assert "1 finished trial run again" in ended.stdout
    assert numbers(results) == before


@pytest.mark.row(25)
def test_all_weights_can_be_kept(tmp_path: Path) -> None:
    text = SWEEP.replace("[plain, residual]", "[plain]") + "run: {keep: all}\n"
    (tmp_path / "tiny.yaml").write_text(text, encoding="utf-8")
    ended = ask(tmp_path / "tiny.yaml", "--out", tmp_path, "--serial", "--json")
    assert ended.returncode == 0, ended.stderr
    assert len(kept(tmp_path / "tiny")) == ended.told["planned"] == 8
    again = ask(tmp_path / "tiny.yaml", "--out", tmp_path, "--serial", "--set", "run.keep=best")
    assert again.returncode == 0
    assert os.path.exists(tmp_path / "tiny" / "report.html")
