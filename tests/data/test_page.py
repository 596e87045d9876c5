"""The commands and tables on docs/check.md are right."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest

from cnnsearch.checking import COLUMNS
from cnnsearch.data import alike, inspection
from cnnsearch.report.labels import COLUMNS as DOUBTED
from tests import pages
from tests.asking import ask
from tests.data.making import fill_folder

PAGE = pages.text("check.md")
COMMANDS = pages.take("check.md", "check")


def test_the_page_shows_several_commands() -> None:
    assert len(COMMANDS) == 3


@pytest.mark.parametrize("arguments", COMMANDS)
def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str) -> None:
    fill_folder(tmp_path / "photos", {"a": 10, "b": 10})
    monkeypatch.chdir(tmp_path)
    done = ask(*shlex.split(arguments), command="check")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "found.csv").is_file() == ("found.csv" in arguments)
    if "found.csv" in arguments:
        assert tuple(pd.read_csv("found.csv")) == COLUMNS


def test_columns() -> None:
    tables = [part.split("\n\n")[0] for part in PAGE.split("| column | |")[1:]]
    found, doubted = (tuple(re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", table, flags=re.MULTILINE)) for table in tables)
    assert tuple(re.findall(r"\w+", " ".join(found))) == COLUMNS
    assert tuple(re.findall(r"\w+", " ".join(doubted))) == DOUBTED


def test_numbers() -> None:
    assert f"at most {alike.NEAR_BITS} of 64 bits" in PAGE
    assert f"at most {alike.SAME:.0%} of".replace("%", " %") in PAGE
    assert f"{alike.SAME_PHOTO:.0%} is enough".replace("%", " %") in PAGE
    assert f"more than {inspection.TIMES_SIZE} times" in PAGE
    assert f"more than {inspection.MOST:,} images" in PAGE
    assert f"fewer than {inspection.RARE:.0%} are".replace("%", " %") in PAGE
