"""What `--help` says of each command, and the completion of commands in a shell."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from cnnsearch.asking import EXAMPLES
from cnnsearch.cli import app
from cnnsearch.spec.load import load_sweep
from tests.asking import ask

GROUP: Any = typer.main.get_command(app)
VERBS = {
    "Check", "Run", "Make", "Open", "Show", "Classify", "Write", "Explain", "Train", "Compare",
}  # fmt: skip
FILES = {
    "bash": ".bash_completions/cnnsearch.sh",
    "zsh": ".zfunc/_cnnsearch",
    "fish": ".config/fish/completions/cnnsearch.fish",
}
"""Shell -> where its completion is installed, below the home folder."""


@pytest.mark.parametrize("command", list(GROUP.commands))
def test_help_says_first_what_it_does_and_ends_with_an_example(command: str) -> None:
    answer = ask("--help", command=command)
    assert (answer.returncode, answer.stderr) == (0, "")
    usage, said = [line.strip() for line in answer.stdout.splitlines() if line][:2]
    assert usage.startswith(f"Usage: cnnsearch {command} ")
    assert said.split()[0] in VERBS
    assert " ".join(answer.stdout.split()).endswith(f"Example: cnnsearch {command} {EXAMPLES[command]}")


def test_every_command_has_its_own_example() -> None:
    assert set(EXAMPLES) == set(GROUP.commands)


@pytest.mark.parametrize("command", list(EXAMPLES))
def test_examples_are_understood(command: str) -> None:
    parsed = GROUP.commands[command].make_context(command, shlex.split(EXAMPLES[command])).params
    if command == "sweep":
        assert load_sweep(parsed["sweep"], profile=parsed["profile"])


def test_the_first_words_fit_into_the_list_of_commands() -> None:
    lines = ask(command="--help").stdout.partition("Commands:\n")[2].splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines}
    assert set(rows) == set(EXAMPLES)
    assert all(len(words) > 2 and words[0] in VERBS for words in rows.values())


@pytest.fixture(params=list(FILES))
def shell(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A shell that people may have, and an empty home folder."""
    name = str(request.param)
    monkeypatch.setattr("shellingham.detect_shell", lambda *_: (name, f"/bin/{name}"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return name


def test_completion_can_be_shown_and_installed(shell: str, tmp_path: Path) -> None:
    shown = ask(command="--show-completion")
    assert shown.returncode == 0
    assert f"complete_{shell}" in shown.stdout
    assert list(tmp_path.iterdir()) == []
    assert ask(command="--install-completion").returncode == 0
    assert f"complete_{shell}" in (tmp_path / FILES[shell]).read_text()


def test_a_shell_gets_the_commands_that_begin_so(shell: str) -> None:
    asked = {
        "_CNNSEARCH_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": "cnnsearch rep",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "_TYPER_COMPLETE_WORD_TO_COMPLETE": "rep",
        "COMP_WORDS": "cnnsearch rep",
        "COMP_CWORD": "1",
    }
    answer = ask(command="", env=asked)
    found = {name for name in EXAMPLES if name in answer.stdout.replace("\t", " ").replace('"', " ").split()}
    assert {"report", "reproduce"} <= found
    assert "diff" not in found
