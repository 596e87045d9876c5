"""A sweep over networks of a user's own, from the command line to the use of what was trained."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cnnsearch.cli import app
from cnnsearch.results.folder import Results
from cnnsearch.results.tables import load
from cnnsearch.spec import own_code
from tests.own_code import NETS, write_nets, write_sweep

Invoke = Callable[..., Result]


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Run a command in a folder with the files, as if in a process that knows of none of them."""
    write_nets(tmp_path)
    write_sweep(tmp_path)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(own_code, "_TRUSTED", {})
        monkeypatch.setattr("sys.argv", ["cnnsearch", *arguments])
        return CliRunner().invoke(app, list(arguments))

    return run


@pytest.fixture
def untried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the process that tries networks before the first trial: it imports torch."""
    monkeypatch.setattr("cnnsearch.training.models.checked_code.answer", lambda request: {})


SWEEP = ("sweep", "mine.yaml", "--code", "nets.py", "--serial")


def records(folder: str = "results/mine") -> dict[str, Any]:
    return Results(Path(folder)).records()


def test_a_sweep_trains_them(invoke: Invoke) -> None:
    result = invoke(*SWEEP)
    assert result.exit_code == 0, result.output
    assert {record.settings.model_args["depth"] for record in records().values()} == {1, 2}
    trials = load(Path("results/mine")).trials
    assert set(trials["model_args"]) == {'{"depth": 1}', '{"depth": 2}'}
    assert re.search(r"best +depth \d", result.output)


@pytest.mark.usefixtures("untried")
def test_a_changed_network_is_new_trials_and_an_unchanged_one_none(invoke: Invoke) -> None:
    assert invoke(*SWEEP).exit_code == 0
    before = set(records())
    assert "0 trials" in invoke(*SWEEP).output or set(records()) == before
    Path("nets.py").write_text(NETS.replace("MaxPool2d", "AvgPool2d"))
    assert invoke(*SWEEP).exit_code == 0
    assert len(set(records()) - before) == 2
    assert len(load(Path("results/mine")).trials) == 2


@pytest.mark.usefixtures("untried")
def test_a_sweep_file_alone_runs_no_code(invoke: Invoke) -> None:
    assert invoke(*SWEEP).exit_code == 0
    result = invoke("sweep", "results/mine/sweep.yaml", "--serial", "--out", "other")
    assert result.exit_code == 2
    assert "SmallNet is from the file nets.py, and a sweep file alone runs no code" in result.output
    assert "--code nets.py" in result.output
    assert not Path("other").exists()


def test_what_is_wrong_with_a_network_is_said_before_anything_starts(invoke: Invoke) -> None:
    Path("nets.py").write_text(NETS.replace("return self.head(self.drop(x", "return (self.drop(x"))
    result = invoke(*SWEEP)
    assert result.exit_code == 2
    assert "nets.py, line 17: SmallNet gives float32 of the shape [4, 16] for 4 images, not logits" in result.output
    assert records() == {}
