"""Which GPUs a machine has, told by what stands in for its driver and for its torch."""

from __future__ import annotations

import importlib.util
import json
import platform
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cnnsearch.errors import RunError
from cnnsearch.execution.machine import gpus, hardware
from cnnsearch.execution.machine.hardware import detect
from cnnsearch.training.compute import device_kinds
from cnnsearch.training.compute.device_kinds import DEVICES


@pytest.fixture
def version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """File in which torch says what it was built for."""
    found = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    return tmp_path / "version.py"


@pytest.mark.parametrize(
    ("text", "may"),
    [
        ("__version__ = '2.9.0+cu130'\nxpu: Optional[str] = None\n", False),
        ("__version__ = '2.9.0'\nxpu: Optional[str] = '20250201'\n", True),
        ("__version__ = '2.6.0+xpu'\n", True),
        ("__version__ = '2.6.0'\ncuda = '12'\n", False),
    ],
)
def test_only_a_torch_built_for_others_is_asked(version: Path, text: str, may: bool) -> None:
    version.write_text(text, encoding="utf-8")
    assert gpus.torch_may_have_others() is may


def test_the_torch_of_an_apple_computer_is_asked(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not gpus.torch_may_have_others(), "there is no such file"
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    for machine, may in (("arm64", True), ("x86_64", False)):
        monkeypatch.setattr(platform, "machine", lambda machine=machine: machine)
        assert gpus.torch_may_have_others() is may


def test_this_torch_is_not_asked() -> None:
    assert not gpus.torch_may_have_others()


@pytest.mark.parametrize(
    ("kind", "listed"), [("mps", [("Apple M4", 12 * 10**9)]), ("xpu", [("Arc B580", 12 * 10**9)] * 2), ("cpu", [])]
)
def test_what_torch_finds_is_what_the_machine_has(
    kind: str, listed: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(type(DEVICES[kind]), "is_available", lambda self: True)
    monkeypatch.setattr(type(DEVICES[kind]), "gpus", lambda self: listed)
    assert device_kinds.available()[0].name == kind

    def ask(module: str, request: Any, failed: str) -> Any:
        gpus.main()
        return json.loads(capsys.readouterr().out)

    monkeypatch.setattr(gpus, "ask", ask)
    monkeypatch.setattr(hardware, "nvidia_gpus", list)
    monkeypatch.setattr(hardware, "torch_may_have_others", lambda: True)
    found = detect.__wrapped__()
    assert found.gpus == tuple(name for name, _ in listed)
    assert found.device == kind
    assert found.gpu_memory_bytes == (12 * 10**9 if listed else 0)


def test_a_torch_that_does_not_answer_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*given: Any) -> Any:
        raise RunError("it cannot be imported")

    monkeypatch.setattr(gpus, "ask", ask)
    assert gpus.other_gpus()[0] == []
