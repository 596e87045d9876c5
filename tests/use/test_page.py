"""The commands and the code on docs/predict.md, docs/export.md, docs/reproduce.md and docs/diff.md work."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import cnnsearch
from cnnsearch.use.predict import COLUMNS
from tests import pages
from tests.asking import ask

PAGE = pages.text("predict.md")
EXPORT = pages.text("export.md")
REPRODUCE = pages.text("reproduce.md")
COMMANDS = pages.take("predict.md", "predict")
REPRODUCED = pages.take("reproduce.md", "reproduce")
DIFFS = pages.take("diff.md", "diff")
EXPORTS = pages.take("export.md", "export")


@pytest.fixture
def place(results: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all that the page names."""
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "part1").symlink_to(results)
    (tmp_path / "labelled").symlink_to(images)
    (tmp_path / "photos").mkdir()
    shutil.copy(images / "dark" / "00.jpg", tmp_path / "photos" / "a.jpg")
    shutil.copy(images / "light" / "01.png", tmp_path / "photos" / "b.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_pages_show_several_commands() -> None:
    assert len(COMMANDS) >= 5
    assert len(EXPORTS) == 2
    assert len(REPRODUCED) == 3
    assert len(DIFFS) == 3


@pytest.mark.parametrize("arguments", COMMANDS)
def test_commands(place: Path, arguments: str) -> None:
    trial = cnnsearch.load("results/part1").best().id
    done = ask(*shlex.split(arguments.replace("TRIAL", trial[:10])), command="predict")
    assert done.returncode == 0, done.stderr
    made = {file.name for file in place.glob("answers*")}
    named = set(re.findall(r"answers\.\w+", arguments))
    assert made == (named | {"answers-confusion.csv"} if "labelled" in arguments else named)


def test_columns(place: Path) -> None:
    ask("results/part1", "photos", "--out", "answers.csv", "--top", 2, command="predict")
    table = PAGE.split("| column | |")[1].split("\n\n")[0]
    told = re.findall(r"`(\w+)`", "\n".join(line.split("|")[1] for line in table.splitlines()[2:]))
    assert told[: len(COLUMNS)] == list(COLUMNS)
    assert told == list(pd.read_csv("answers.csv"))[: len(told)]


def test_code(place: Path) -> None:
    code = PAGE.split("## In Python")[1].split("\n\n")[1]
    scope: dict[str, Any] = {}
    exec("\n".join(line.strip() for line in code.splitlines()), scope)
    assert list(scope["answers"]["path"]) == ["photos/a.jpg", "photos/b.png"]
    model = scope["model"]
    assert model(torch.stack([model.preprocess("photos/a.jpg")])).shape == (1, len(model.classes))


@pytest.mark.parametrize("arguments", EXPORTS)
def test_exports(place: Path, arguments: str) -> None:
    trial = cnnsearch.load("results/part1").best().id
    words = shlex.split(arguments.replace("TRIAL", trial[:10]))
    done = ask(*words, command="export")
    assert done.returncode == 0, done.stderr
    told = set(re.findall(r"^\| `([\w.]+)` \|", EXPORT, flags=re.MULTILINE))
    assert len(told) == 6
    assert {file.name for file in (place / words[1]).iterdir()} == told - (
        {"model.onnx"} if "--format" in words else set()
    )


@pytest.mark.parametrize("arguments", REPRODUCED)
def test_reproductions(place: Path, images: Path, arguments: str) -> None:
    # The page's results are a link here: what is beside them by default is beside what it leads to.
    trial = cnnsearch.load("results/part1").best().id
    shutil.rmtree(place / "photos")
    (place / "photos").symlink_to(images)
    words = shlex.split(arguments.replace("TRIAL", trial[:10]))
    out = place / "made" if "--out" not in words else place / words[words.index("--out") + 1]
    done = ask(*words, *(() if "--out" in words else ("--out", out)), command="reproduce")
    assert done.returncode == 0, done.stderr
    assert re.search("^identical +every epoch's numbers", done.stdout, flags=re.MULTILINE)
    for part in ("reproduction.json", "trials"):
        assert f"`{part}" in REPRODUCE
        assert (out / part).exists()


@pytest.mark.parametrize("arguments", DIFFS)
def test_comparisons(place: Path, results: Path, arguments: str) -> None:
    shutil.copytree(results, place / "new" / "part1")
    done = ask(*shlex.split(arguments), command="diff")
    assert done.returncode == 0, done.stderr
    assert "No difference: both are right on the same images." in done.stdout + done.stderr
