"""Where what Linux has is not there, as on macOS and Windows, a sweep runs all the same and gives the same numbers."""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from PIL import Image

from cnnsearch import run, session
from cnnsearch.errors import RequestError
from cnnsearch.execution.machine import hardware
from cnnsearch.spec.load import load_sweep
from cnnsearch.storage import durable
from cnnsearch.training.compute import allocator
from tests.conftest import SMALL
from tests.recorded import numbers

GRID = "stages.grid.space={model: plain, lr: {grid: [0.01]}}"
OF_LINUX = ("/proc/", "/sys/")
LIKE_WINDOWS = str(Path(__file__).parent / "systems" / "like_windows")


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
    monkeypatch.delattr(psutil.Process, "cpu_affinity")
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


@pytest.mark.parametrize("address", [None, "auto"])
def test_without_ray_one_sentence_says_what_runs_without_it(
    address: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name == "ray" or name.startswith("cnnsearch.execution.on_ray")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    ready: Any = SimpleNamespace(cluster=None)
    needs_ray: Callable[[], object] = functools.partial(session._executor, False, ready)
    if address:
        needs_ray = session.attached(address).__enter__
    with pytest.raises(RequestError, match=r"^Ray cannot be imported here .*; with --serial, trials run without it"):
        needs_ray()
    assert session._executor(True, ready)


def like_windows(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Start a Python from which is hidden what Windows does not have; also from those that it starts."""
    environment = {**os.environ, "PYTHONPATH": LIKE_WINDOWS}
    return subprocess.Popen([sys.executable, *arguments], env=environment, text=True, **options)


def test_what_windows_does_not_have_is_hidden() -> None:
    code = """
from cnnsearch import systems
from cnnsearch.systems import files, locks, processes
assert systems.module("fcntl") is systems.module("resource") is None
assert systems.module("msvcrt")
assert not any(hasattr(files.os, name) for name in ("O_DIRECTORY", "O_NOFOLLOW", "fchmod", "getuid", "statvfs"))
assert not any(hasattr(processes.signal, name) for name in ("SIGALRM", "SIGKILL", "pthread_kill"))
try:
    from cnnsearch.execution import warden
    exec("import fcntl", vars(warden))
except ModuleNotFoundError:
    print("hidden")
"""
    output, _ = like_windows("-c", code, stdout=subprocess.PIPE).communicate(timeout=60)
    assert output == "hidden\n"


@pytest.mark.after
def test_a_sweep_as_on_windows_goes_on_after_a_kill_and_gives_the_same_numbers(tmp_path: Path) -> None:
    """Its locks, files and processes are as there; then the report is made again, and the best network classifies."""
    values = [*SMALL, GRID, "train.epochs=40", "run.checkpoint_epochs=5"]
    run(load_sweep("part1", values=values), tmp_path / "linux", serial=True)
    out = tmp_path / "windows" / "part1"
    sweep = ["-m", "cnnsearch", "sweep", "part1", "--serial", "--out", str(out.parent)]
    sweep += [part for value in values for part in ("--set", value)]
    first = like_windows(*sweep, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 100
    while not list(out.glob("trials/*/record.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    first.kill()
    assert first.wait() == -signal.SIGKILL, "it was to be killed in the middle"
    done = len(list(out.glob("trials/*/record.json")))
    assert done

    def run_to_its_end(*arguments: str) -> str:
        process = like_windows("-m", "cnnsearch", *arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said, _ = process.communicate(timeout=100)
        assert process.returncode == 0, said
        return said

    assert f"({done} already done)" in run_to_its_end(*sweep[2:])
    assert numbers(out) == numbers(tmp_path / "linux" / "part1")
    assert "report.html" in run_to_its_end("report", str(out))
    (tmp_path / "photos").mkdir()
    Image.new("L", (28, 28), 99).save(tmp_path / "photos" / "grey.png")
    run_to_its_end("predict", str(out), str(tmp_path / "photos"), "--out", str(tmp_path / "answers.csv"))
    assert "grey.png" in (tmp_path / "answers.csv").read_text(encoding="utf-8")
