"""What the documents say is true: commands parse, generated parts are current, the notebook cell runs."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
import typer
from matplotlib.figure import Figure

from cnnsearch.cli import app
from cnnsearch.spec.load import load_sweep
from tests.conftest import SMALL

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    \.venv/bin/python -m cnnsearch\.(sweep|report|watch) (.+)$", README, flags=re.MULTILINE)


def make_reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_parts_are_current() -> None:
    module = make_reference()
    assert module.readme_with_help(README) == README, "run python docs/make_reference.py"
    assert module.reference() == (ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("command", "arguments"), COMMANDS)
def test_commands_in_the_readme_are_understood(command: str, arguments: str) -> None:
    group: Any = typer.main.get_command(app)
    parsed = group.commands[command].make_context(command, shlex.split(arguments)).params
    if command == "sweep":
        assert load_sweep(parsed["sweep"], profile=parsed["profile"], values=parsed["set_"] or ())
    else:
        shipped = {file.stem for file in (ROOT / "sweeps").glob("*.yaml")}
        for folder in parsed["results"]:
            assert (ROOT / folder / "sweep.yaml").is_file() or Path(folder).name in shipped


def test_the_readme_shows_several_commands() -> None:
    assert len(COMMANDS) >= 6


def test_make_targets_in_the_readme_exist() -> None:
    targets = set(re.findall(r"^    make ([a-z-]+)", README, flags=re.MULTILINE))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets == {"quickstart", "test"}
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets)


def test_links_in_the_documents_lead_somewhere() -> None:
    for document in [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")]:
        for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_notebook_cell_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cell,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    small = dict(value.split("=", 1) for value in SMALL)
    changes = {
        "train.epochs": 1,
        "train.width": 0.05,
        "data.image_size": 8,
        "data.split": {"method": "fill", "train_per_class": 6, "val_per_class": 4},
    }
    assert changes.keys() <= small.keys()
    assert '{"train.epochs": 3}' in cell
    lines = cell.replace('{"train.epochs": 3}', repr(changes)).strip().splitlines()
    shown = [line for line in lines if line.startswith(("tables.trials", "cnnsearch.plots"))]
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    exec("\n".join(line for line in lines if line not in shown), scope)
    frame, figure = (eval(line, scope) for line in shown)
    assert isinstance(frame, pd.DataFrame)
    assert len(frame) == 16
    assert frame["test_accuracy"].between(0, 1).all()
    assert isinstance(figure, Figure)
    assert (tmp_path / "results" / "part1" / "report.html").is_file()
