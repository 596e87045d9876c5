"""The file, the sweep, the commands and the code on docs/own-models.md work."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

import cnnsearch
from cnnsearch.cli import app
from cnnsearch.results.tables import load
from cnnsearch.spec import own_code
from tests import pages
from tests.conftest import SMALL
from tests.data.making import picture

pytestmark = pytest.mark.after

PAGE = pages.text("own-models.md")
NETS, NOTEBOOK = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
(SWEEP,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
NAMES = ("sweep", "predict", "reproduce", "export")
COMMANDS = [f"{name} {line}" for name in NAMES for line in pages.take("own-models.md", name)]
QUICK = [value for one in (*SMALL, "train.epochs=1", "run.keep=all") if "width" not in one for value in ("--set", one)]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all that the page names."""
    monkeypatch.setattr(own_code, "_TRUSTED", {})
    monkeypatch.setattr(own_code, "_REGISTERED", {})
    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text(NETS)
    sweep = yaml.safe_load(SWEEP)
    sweep["stages"][0]["space"]["width"] = 0.1  # as in all tests: residual would take long
    Path("mine.yaml").write_text(yaml.safe_dump(sweep, sort_keys=False))
    Path("photos").mkdir()
    picture(1).save("photos/a.png")
    return tmp_path


def test_the_commands_on_the_page(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [command.partition(" ")[0] for command in COMMANDS] == ["sweep", "sweep", "predict", "reproduce", "export"]
    for command in COMMANDS:
        monkeypatch.setattr(own_code, "_TRUSTED", {})
        more = [*QUICK, "--serial"] if command.startswith("sweep") else []
        done = CliRunner().invoke(app, [*shlex.split(command), *more])
        assert done.exit_code == 0, (command, done.output)
    trials = load(Path("results/mine")).trials
    assert set(trials["model"]) == {"SmallNet", "residual"}
    assert len(trials) == 2 * (2 * 2 + 1)  # lr x (depth x kernel of SmallNet, and residual)
    assert (place / "classifier" / "code" / "nets.py").read_text() == NETS


def test_the_code_for_notebooks(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.setattr("cnnsearch.training.models.checked_code.answer", lambda request: {})
    from nets import SmallNet  # type: ignore[import-not-found]

    changes = dict(value.split("=", 1) for value in QUICK[1::2])
    values: dict[str, Any] = {key: yaml.safe_load(value) for key, value in changes.items()}
    code = NOTEBOOK.replace('load_sweep("mine.yaml")', 'load_sweep("mine.yaml").with_values(values), serial=True')
    lines = code.strip().splitlines()
    scope = {"SmallNet": SmallNet, "values": values}
    exec("\n".join(lines[:-1]), scope)
    assert isinstance(eval(lines[-1], scope), pd.DataFrame)
    monkeypatch.setattr(own_code, "_TRUSTED", {})
    assert cnnsearch.load_model("results/mine", code=["nets.py"]).classes
