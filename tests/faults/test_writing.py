"""Writes that a kill or a full disk cuts off: the previous whole file is used, and the same command goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.asking import ask
from tests.faults.running import call
from tests.faults.test_driver import Started
from tests.recorded import numbers

pytestmark = pytest.mark.after

SWEEP = """
name: tiny
data: {image_size: 8, split: {method: fill, train_per_class: 6, val_per_class: 4}}
train: {model: plain, width: 0.05, epochs: 3, precision: fp32, lr: 0.001}
run: {dashboard: false, checkpoint_epochs: 1}
stages:
  - name: grid
    space: {lr: 0.001}
  - name: dropout
    start_from: {stage: grid}
    space: {dropout: 0.2}
"""


def boundaries(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    """Run `cut.py`, which kills a run at write boundaries; what came of each."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.cut", str(folder), *arguments],
        capture_output=True,
        text=True,
        timeout=3000,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    return told


@pytest.mark.row(4)
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "part", ["some", pytest.param("whole", marks=pytest.mark.slow), pytest.param("all", marks=pytest.mark.slow)]
)
def test_killed_at_write_boundaries(tmp_path: Path, part: str) -> None:
    """Before a file is synced (half of it written), before it is renamed, and before its folder is synced."""
    (tmp_path / "tiny.yaml").write_text(SWEEP, encoding="utf-8")
    told = boundaries(tmp_path, part)
    assert len(told) >= (60 if part == "all" else 10)
    assert [one for one in told if not (one["killed"] and one["same"] and one["whole"] and one["swept"])] == []
    cut = {one["file"] for one in told}
    assert {"checkpoint.pt", "record.json", "best.safetensors", "trials.parquet"} <= cut


def mount(folder: Path, size: str) -> bool:
    folder.mkdir(parents=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True)
    return done.returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    folder = tmp_path / "disk"
    if not mount(folder, "8m"):
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    for _ in range(50):
        if subprocess.run(["umount", str(folder)], capture_output=True).returncode == 0:
            break
        time.sleep(0.1)


FILLED = SWEEP.replace("space: {lr: 0.001}", "space: {lr: {grid: [0.001, 0.002, 0.003]}}").replace(
    "epochs: 3", "epochs: 40"
)


@pytest.mark.row(8)
@pytest.mark.timeout(300)
@pytest.mark.parametrize("executor", ["serial", pytest.param("ray", marks=pytest.mark.slow)])
def test_the_disk_fills_and_is_freed(tmp_path: Path, small_disk: Path, executor: str) -> None:
    (tmp_path / "tiny.yaml").write_text(FILLED, encoding="utf-8")
    serial = ["--serial"] if executor == "serial" else []
    arguments = [tmp_path / "tiny.yaml", "--out", small_disk, *serial]
    started = Started(*arguments)
    results = small_disk / "tiny"
    started.until(lambda: list(results.glob("trials/*/record.json")))
    fill(small_disk / "filler")
    assert started.ended(100) == 1
    assert "No space left on device" in started.stderr
    assert started.stderr.startswith("error: ")
    assert started.stderr.count("error:") == 1
    assert "Free some space, then the same command goes on:" in started.stderr
    assert "Traceback" not in started.stderr
    finished = {file: file.read_bytes() for file in results.glob("trials/*/record.json")}
    assert finished
    # With the disk still full: what is there can be read; and another start says the same again.
    assert set(numbers(results)) == {file.parent.name for file in finished}
    (small_disk / "filler").unlink()
    again = call(*arguments, "--json")
    assert again.returncode == 0, again.stderr
    assert again.told["counts"]["done"] == 4
    assert {file: file.read_bytes() for file in finished} == finished
    quiet = ask(tmp_path / "tiny.yaml", "--out", tmp_path / "quiet", "--serial")
    assert quiet.returncode == 0
    assert numbers(results) == numbers(tmp_path / "quiet" / "tiny")


def fill(file: Path) -> None:
    """Take all the space that is left."""
    with file.open("wb", buffering=0) as opened:
        try:
            while True:
                opened.write(bytes(4096))
        except OSError:
            os.fsync(opened.fileno())


@pytest.mark.row(8)
def test_a_disk_that_is_full_from_the_start(tmp_path: Path, small_disk: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(SWEEP, encoding="utf-8")
    fill(small_disk / "filler")
    ended = call(tmp_path / "tiny.yaml", "--out", small_disk, "--serial")
    assert ended.returncode in (1, 2)
    assert ended.stderr.startswith("error: ")
    assert "No space left on device" in ended.stderr
    assert "Traceback" not in ended.stderr
