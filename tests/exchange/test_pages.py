"""The commands on the pages about other tools work."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from tests import pages
from tests.asking import ask
from tests.exchange.made import table
from tests.exchange.test_from import WANDB, run_studies

SHARED = pages.take("share.md", "share")
REPORTED = pages.take("foreign.md", "report")


@pytest.mark.usefixtures("tools")
def test_commands_on_the_page_of_share(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(results, "results/part1")
    assert len(SHARED) == 5
    for line in SHARED:
        answer = ask(*shlex.split(line), command="share")
        assert answer.returncode == 0, answer.stderr
    made = {path.name for path in tmp_path.iterdir()}
    assert made >= {"journal.log", "study.db", "runs", "mlflow.db", "table"}


@pytest.mark.usefixtures("tools", "figures_left_blank")
def test_commands_on_the_page_of_trials_of_others(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_studies("sqlite:///study.db")
    run_studies(JournalStorage(JournalFileBackend("journal.log")))
    trial = tmp_path / "ray_results" / "mine" / "train_1"
    trial.mkdir(parents=True)
    (trial / "params.json").write_text('{"lr": 0.1}')
    (trial / "result.json").write_text('{"loss": 1.5, "training_iteration": 1}\n')
    # MLflow keeps a store open under its address: a relative one would be that of another test.
    assert ask(results, "--to", f"mlflow:sqlite:///{tmp_path}/mlflow.db", command="share").returncode == 0
    (tmp_path / "wandb_export.csv").write_text(WANDB)
    table().rename(columns={"val_accuracy": "quality", "seed": "draw"}).to_parquet("trials.parquet")
    assert len(REPORTED) == 6
    for line in REPORTED:
        answer = ask(*shlex.split(line), command="report")
        assert answer.returncode == 0, answer.stderr
        assert (Path(line.rpartition(" ")[2]) / "report.html").is_file()
