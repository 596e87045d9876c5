"""Where what Linux alone has is not there, as on macOS, a sweep runs all the same and gives the same numbers."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

import pytest

from cnnsearch import run
from cnnsearch.execution.machine import hardware
from cnnsearch.spec.load import load_sweep
from cnnsearch.storage import durable
from cnnsearch.training.compute import allocator
from tests.conftest import SMALL
from tests.recorded import numbers

GRID = "stages.grid.space={model: plain, lr: {grid: [0.01]}}"
OF_LINUX = ("/proc/", "/sys/")


def without_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the files of /proc and /sys, glibc's own functions and the set of cores of a process unavailable."""
    read_text, readlink = Path.read_text, os.readlink

    def read(path: Path, *args: Any, **options: Any) -> str:
        if str(path).startswith(OF_LINUX):
            raise FileNotFoundError(str(path))
        return read_text(path, *args, **options)

    def link(path: Any, **options: Any) -> Any:
        if str(path).startswith(OF_LINUX):
            raise FileNotFoundError(str(path))
        return readlink(path, **options)

    monkeypatch.setattr(Path, "read_text", read)
    monkeypatch.setattr(os, "readlink", link)
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(allocator, "_LIBC", type("Other", (), {})())


def test_a_sweep_runs_and_gives_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = load_sweep("part1", values=[*SMALL, GRID])
    run(sweep, tmp_path / "linux", serial=True)
    wanted = numbers(tmp_path / "linux" / "part1")
    assert hasattr(ctypes.CDLL(None), "mallopt"), "this test takes Linux away"
    with monkeypatch.context() as taken:
        without_linux(taken)
        assert hardware.detect().cores >= 1
        assert hardware.oom_kills() == 0
        assert durable._boot() == "unknown"
        run(sweep, tmp_path / "other", serial=True)
    assert numbers(tmp_path / "other" / "part1") == wanted
