"""Losses that stop being numbers."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.asking import ask
from tests.faults.running import TWO_TRIALS, sweep_file


def with_rates(rates: str) -> str:
    return TWO_TRIALS.replace("[0.01, 0.1]", rates).replace("epochs: 2", "epochs: 20")


@pytest.mark.row(13)
@pytest.mark.usefixtures("reports_in_words")
def test_a_diverged_trial_is_stopped_and_never_best(tmp_path: Path) -> None:
    text = with_rates("[100, 0.01]") + (
        "  - name: more\n    start_from: {stage: grid, best: val_loss}\n    space: {dropout: {grid: [0.1]}}\n"
    )
    ended = ask(sweep_file(tmp_path, text), "--serial", "--out", tmp_path)
    assert ended.returncode == 1
    assert ended.stderr == ""
    assert "2 of 3 trials done" in ended.stdout
    assert "; 1 diverged" in ended.stdout
    trials = pd.read_parquet(tmp_path / "tiny" / "trials.parquet").set_index("lr")
    lost = trials.loc[100.0]
    assert lost["status"] == "diverged"
    assert "no longer a number in epoch" in lost["error"]
    assert lost[["val_accuracy", "test_accuracy", "best_epoch"]].isna().all()
    epochs = pd.read_parquet(tmp_path / "tiny" / "epochs.parquet")
    assert (epochs["trial_id"] == lost["trial_id"]).sum() < 20  # it did not go on to the end
    assert list(trials[trials["stage"] == "more"].index) == [0.01]  # nothing starts from it
    (best,) = [line for line in ended.stdout.splitlines() if line.startswith("best ")]
    assert "lr 0.01" in best or "dropout" in best
    report = (tmp_path / "tiny" / "report.md").read_text(encoding="utf-8")
    assert "1 trial of 3 diverged" in report


@pytest.mark.row(13)
@pytest.mark.usefixtures("reports_in_words")
def test_where_all_diverge_the_report_says_so(tmp_path: Path) -> None:
    ended = ask(sweep_file(tmp_path, with_rates("[90, 100]")), "--serial", "--out", tmp_path)
    assert ended.returncode == 1
    assert ended.stderr == ""
    assert "0 of 2 trials done" in ended.stdout
    assert "; 2 diverged" in ended.stdout
    assert "all 2 trials diverged: the loss was no longer a number" in ended.stdout
    folder = tmp_path / "tiny"
    for name in ("report.md", "report.html"):
        report = (folder / name).read_text(encoding="utf-8")
        assert "No answer: all 2 trials diverged: the loss was no longer a number." in report
        assert "optimistic" not in report
        assert "Take smaller steps" in report
    trials = pd.read_parquet(folder / "trials.parquet")
    assert trials["val_accuracy"].isna().all()
    again = ask(folder, command="report")
    assert (again.returncode, again.stderr) == (0, "")
