"""The notebook in docs runs from its first cell to its last, and each shows what it is there to show."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

PAGE = Path(__file__).parent.parent / "docs" / "notebook.ipynb"
pytestmark = pytest.mark.after


@pytest.mark.timeout(400)
def test_from_a_folder_to_predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    notebook = nbformat.read(PAGE, as_version=4)
    assert len(notebook.cells) == 15
    assert not any(cell.get("outputs") for cell in notebook.cells), "it is kept without outputs"
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = {cell.id: "\n".join(map(_text, cell.get("outputs", ()))) for cell in notebook.cells}
    assert "'trouser'" in shown["cell-02"]
    assert "copies" in shown["cell-04"]
    assert "grid" in shown["cell-06"]
    assert "validation" in shown["cell-08"]
    assert "best" in shown["cell-08"]
    assert "val_accuracy" in shown["cell-09"]
    assert "val_accuracy" in shown["cell-10"]
    assert "image/png" in shown["cell-11"]
    assert "report.html" in shown["cell-12"]
    assert (tmp_path / "results" / "first" / "report.html").exists()
    assert "predicted" in shown["cell-13"]
    assert any(f"'{name}'" in shown["cell-14"] for name in ("t-shirt", "trouser", "pullover"))


def _text(output: Any) -> str:
    """What an output shows as text, and the names of its other forms."""
    data = output.get("data", {})
    shown = [output.get("text", ""), data.get("text/plain", ""), data.get("text/html", "")]
    return "\n".join([*map(str, shown), *data])
