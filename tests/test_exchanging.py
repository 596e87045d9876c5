"""The commands between this and other tools, as they are typed: `schema`, and what shells complete."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from jsonschema import Draft7Validator

from cnnsearch.spec.schema import FILE, sweep_schema
from tests import pages
from tests.asking import ask
from tests.test_telling import valid

COMMANDS = pages.take("editors.md", "schema")


def test_schema_says_the_line_for_an_editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    answer = ask(command="schema")
    assert (answer.returncode, answer.stdout) == (0, f"# yaml-language-server: $schema={FILE.as_uri()}\n")
    found = valid(ask("--json", command="schema"))
    assert found["sweep_schema"] == sweep_schema()
    assert (found["kind"], found["file"]) == ("schema", str(FILE))
    assert list(tmp_path.iterdir()) == []


def test_schema_is_written_beside_a_sweep_file(tmp_path: Path) -> None:
    file = tmp_path / "new" / "my sweeps.json"
    answer = ask("--out", file, command="schema")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines()[1] == "line     # yaml-language-server: $schema=my%20sweeps.json"
    written = json.loads(file.read_text(encoding="utf-8"))
    assert written == sweep_schema()
    Draft7Validator.check_schema(written)


def test_schema_goes_into_json_alone(tmp_path: Path) -> None:
    answer = ask("--out", tmp_path / "schema.yaml", command="schema")
    assert answer.returncode == 2
    assert answer.stderr.splitlines() == [f"error: --out {tmp_path}/schema.yaml: allowed is a file that ends in .json"]


def test_commands_on_the_page_of_editors_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = pages.text("editors.md")
    assert len(COMMANDS) == 2
    lines = [ask(*shlex.split(line), command="schema").stdout for line in COMMANDS]
    assert "# yaml-language-server: $schema=sweep.schema.json" in lines[1]
    assert "`# yaml-language-server: $schema=sweep.schema.json`" in page
    assert lines[0].startswith("# yaml-language-server: $schema=file:///")


@pytest.mark.parametrize(
    ("words", "found"),
    [("share results --to o", "optuna:"), ("report --from m", "mlflow:"), ("share results --to t", "tensorboard:")],
)
def test_a_shell_completes_the_names_of_tools(words: str, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shellingham.detect_shell", lambda *_: ("bash", "/bin/bash"))
    asked = {
        "_CNNSEARCH_COMPLETE": "complete_bash",
        "COMP_WORDS": f"cnnsearch {words}",
        "COMP_CWORD": str(len(words.split())),
    }
    assert ask(command="", env=asked).stdout.split() == [found]
