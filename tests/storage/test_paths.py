"""A home folder in a path that no shell has expanded."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

import cnnsearch
from cnnsearch.cli import app
from cnnsearch.results.place import open_results
from cnnsearch.storage.paths import typed_path
from cnnsearch.training.models.pretrained import find_weights
from tests.training.models.making import save_weights

EXAMPLE = Path(__file__).parents[2] / "results" / "example"


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


def test_only_a_known_home_at_the_start_is_replaced(tmp_path: Path) -> None:
    assert typed_path("~/a") == tmp_path / "a"
    assert typed_path(Path("~/a")) == tmp_path / "a"
    assert [str(typed_path(kept)) for kept in ("a/~", "~nobody-at-all/x", "/~")] == ["a/~", "~nobody-at-all/x", "/~"]


def test_results_go_to_the_home_folder(tmp_path: Path) -> None:
    assert str(open_results("~/out", "tiny")) == f"{tmp_path}/out/tiny"


def test_results_are_read_from_the_home_folder(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "example")
    assert cnnsearch.load("~/example").folder == tmp_path / "example"


@pytest.mark.usefixtures("figures_left_blank")
def test_reports_are_read_from_and_written_to_the_home_folder(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "example")
    ended = CliRunner().invoke(app, ["report", "~/example", "--out", "~/page"])
    assert ended.exit_code == 0, ended.output
    assert (tmp_path / "page" / "report.html").is_file()


def test_folders_to_watch_are_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Path] = []
    monkeypatch.setattr("signal.signal", lambda number, handler: None)  # it would outlast the test
    monkeypatch.setattr("cnnsearch.report.watch.serve", lambda folders, port, say: served.extend(folders))
    assert CliRunner().invoke(app, ["watch", "~/example"]).exit_code == 0
    assert served == [tmp_path / "example"]


def test_weights_are_found_in_the_home_folder(tmp_path: Path) -> None:
    file = save_weights(tmp_path)
    found = find_weights({("resnet18", f"~/{file.name}")})
    assert found["resnet18", f"~/{file.name}"].file == file
