from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import cnnsearch
from cnnsearch.execution.events import Event
from cnnsearch.notebook import is_notebook
from cnnsearch.spec.sweep import Sweep

SMALL = ("stages.grid.space={model: plain}", "stages.dropout.space.dropout=0.1", "train.epochs=1")


class Outputs:
    """In the place of IPython: keeps what is shown below a cell."""

    def __init__(self) -> None:
        self.shown: list[Any] = []
        self.cells = 0

    def display(self, what: Any, display_id: bool) -> Outputs:
        assert display_id
        self.cells += 1
        self.shown.append(what)
        return self

    def update(self, what: Any) -> None:
        self.shown.append(what)


@pytest.fixture
def outputs(monkeypatch: pytest.MonkeyPatch) -> Outputs:
    """What a kernel would show."""
    found = Outputs()
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=found.display))
    return found


def test_a_run_shows_its_plan_first_and_then_how_far_it_is(
    small_sweep: Callable[..., Sweep], tmp_path: Path, outputs: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cnnsearch.notebook.REDRAW_SECONDS", 0.01)
    heard: list[Event] = []
    tables = cnnsearch.run(small_sweep(*SMALL), tmp_path, serial=True, listen=heard.append)
    assert set(tables.trials["status"]) == {"done"}
    assert heard
    assert outputs.cells == 1  # all in one place
    texts = [repr(one) for one in outputs.shown]
    assert texts[0].startswith("reading the images")
    (first, *others) = [text for text in texts if text.startswith("part1 · ")]
    assert "2 trials (0 already done)" in first
    assert "grid 0/1 · dropout 0/1 · 0:00 elapsed" in first
    assert "2 of 2 trials done in" in others[-1]
    assert outputs.shown[-1]._repr_html_().startswith("<pre")


def test_a_script_is_told_nothing_unless_it_asks(
    small_sweep: Callable[..., Sweep], tmp_path: Path, outputs: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_notebook()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))  # imported, but no kernel
    assert not is_notebook()
    sweep = small_sweep(*SMALL)
    cnnsearch.run(sweep, tmp_path, serial=True)
    assert not outputs.shown
    cnnsearch.run(sweep, tmp_path, serial=True, show=True)
    assert "2 trials (2 already done), nothing to run" in repr(outputs.shown[-1])
