"""The commands on the pages about other tools work."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.asking import ask

DOCS = Path(__file__).parents[2] / "docs"


def commands_of(page: str, command: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^    cnnsearch {command} (.+)$", text, flags=re.MULTILINE)


@pytest.mark.usefixtures("tools")
def test_commands_on_the_page_of_share(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(results, "results/part1")
    commands = commands_of("share.md", "share")
    assert len(commands) == 5
    for line in commands:
        answer = ask(*shlex.split(line), command="share")
        assert answer.returncode == 0, answer.stderr
    made = {path.name for path in tmp_path.iterdir()}
    assert made >= {"journal.log", "study.db", "runs", "mlflow.db", "table"}
