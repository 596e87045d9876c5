"""Ten thousand finished trials, and the same command again: it ends within seconds and in little memory."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from cnnsearch.spec.load import load_sweep
from tests.faults.many import finish_all

pytestmark = [pytest.mark.row(24), pytest.mark.after]

SWEEP = """\
name: many
data: {{source: fashion-mini, image_size: 32, split: {{method: fill, train_per_class: 50, val_per_class: 20}}}}
train: {{epochs: 20, width: 0.25}}
seeds: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
stages:
  - name: grid
    space:
      model: {{grid: [plain, residual]}}
      lr: {{grid: {lr}}}
      batch_size: {{grid: [8, 16, 32, 64, 128]}}
  - name: dropout
    start_from: {{stage: grid, best: val_accuracy, per: model}}
    space: {{dropout: {{grid: [0.01, 0.1, 0.25, 0.5]}}}}
"""
MOST_BYTES = 1_000_000_000


def make(root: Path, rates: int) -> Path:
    """A folder of 100 trials a learning rate and 80 that go on from the best; the sweep's file."""
    file = root / "many.yaml"
    file.write_text(SWEEP.format(lr=[round(1e-4 * 1.03**step, 9) for step in range(rates)]))
    assert finish_all(load_sweep(str(file)), root) == 100 * rates + 80
    return file


def run(file: Path) -> tuple[str, float, int]:
    """Run the command: what it said, its wall-clock seconds, and the peak memory of all its processes in bytes."""
    command = [sys.executable, "-m", "cnnsearch.sweep", str(file), "--out", str(file.parent), "--serial"]
    began, peak = time.monotonic(), 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                peak = max(peak, sum(p.memory_info().rss for p in [watched, *watched.children(recursive=True)]))
            except psutil.NoSuchProcess:
                continue
            time.sleep(0.05)
        assert process.stdout is not None
        said = process.stdout.read()
    assert process.returncode == 0, said
    return said, time.monotonic() - began, peak


def _written(folder: Path) -> dict[str, int]:
    return {
        file.name: file.stat().st_mtime_ns for pattern in ("report.*", "*.parquet") for file in folder.glob(pattern)
    }


@pytest.mark.slow
def test_a_report_is_made_again_only_where_it_would_differ(tmp_path: Path) -> None:
    file = make(tmp_path, 1)
    folder = tmp_path / "many"
    first, _, _ = run(file)
    assert "180 trials (180 already done), nothing to run" in first
    before = _written(folder)
    again, _, _ = run(file)
    assert again.splitlines()[-4:] == first.splitlines()[-4:]
    assert _written(folder) == before
    (folder / "report.html").unlink()
    run(file)
    assert (folder / "report.html").is_file()
    text = (folder / "report.md").read_text()
    (folder / "report.md").write_text("changed")
    run(file)
    assert (folder / "report.md").read_text() == text


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_thousand_finished_trials(tmp_path: Path) -> None:
    file = make(tmp_path, 100)
    run(file)  # tables and report are made
    said, seconds, peak = run(file)
    assert "10080 trials (10080 already done), nothing to run" in said
    assert "best " in said
    assert seconds < 10
    assert peak < MOST_BYTES
