"""Sweeps that take seconds, and what two runs of one must have in common."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from tests.faults.running import call
from tests.recorded import VARYING, numbers

TWO_STAGES = """
name: tiny
data: {image_size: 8, split: {method: fill, train_per_class: 6, val_per_class: 4}}
train: {model: residual, width: 0.05, epochs: 2, precision: fp32}
run: {checkpoint_epochs: 1}
stages:
  - name: grid
    space: {lr: {grid: [0.001, 0.002]}, batch_size: {grid: [16, 32]}}
  - name: dropout
    start_from: {stage: grid}
    space: {dropout: {grid: [0.1, 0.2]}}
"""
LONG = """
name: tiny
data: {image_size: 16, split: {method: fill, train_per_class: 20, val_per_class: 10}}
train: {model: residual, width: 0.1, epochs: 20, precision: fp32}
run: {checkpoint_epochs: 4}
stages:
  - name: grid
    space: {lr: {grid: [0.001, 0.002, 0.004]}}
"""
LONG_STAGES = """
name: tiny
data: {image_size: 16, split: {method: fill, train_per_class: 20, val_per_class: 10}}
train: {model: residual, width: 0.1, epochs: 40, precision: fp32}
stages:
  - name: grid
    space: {lr: {grid: [0.001, 0.002]}}
  - name: dropout
    start_from: {stage: grid}
    space: {dropout: 0.1}
"""
"""Each trial takes longer than a worker takes to start: else the first worker has done all before others have begun."""
KEYS = {
    "trials": ["trial_id"],
    "epochs": ["trial_id", "epoch"],
    "predictions": ["trial_id", "split", "moment", "example"],
}
"""Table -> what tells its rows apart."""


def sweep_file(folder: Path, text: str, name: str = "tiny") -> str:
    """A sweep file in a folder; its name."""
    (folder / f"{name}.yaml").write_text(text.replace("name: tiny", f"name: {name}"), encoding="utf-8")
    return f"{name}.yaml"


def run_here(folder: Path, text: str, name: str = "tiny") -> Path:
    """The results of a sweep that ran on this machine, in one process."""
    file = sweep_file(folder, text, name)
    ended = call(folder / file, "--out", folder / "here", "--serial")
    assert ended.returncode == 0, ended.stderr
    return folder / "here" / name


def assert_same(one: Path, other: Path) -> None:
    """Two results folders hold the same, but for times and places."""
    assert numbers(one) == numbers(other) != {}
    for name in KEYS:
        pd.testing.assert_frame_equal(table(one, name), table(other, name), check_exact=True)


def table(results: Path, name: str) -> pd.DataFrame:
    """One of a results folder's tables, sorted, without times and places."""
    found = pd.read_parquet(results / f"{name}.parquet").drop(columns=[*VARYING], errors="ignore")
    return found.sort_values(KEYS[name]).reset_index(drop=True)


def hosts(results: Path) -> set[str]:
    """Names of the machines that trials ended on."""
    return set(pd.read_parquet(results / "trials.parquet")["host"])


def told(file: Path) -> list[dict[str, Any]]:
    """Lines that `listening.py` wrote, as far as they are whole."""
    lines = file.read_text(encoding="utf-8").split("\n")[:-1] if file.exists() else []
    return [json.loads(line) for line in lines]
