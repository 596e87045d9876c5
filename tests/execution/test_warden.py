from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cnnsearch.execution import warden

SLEEP = "import time; time.sleep(600)"
CHILD = f"""
import subprocess, sys
print(subprocess.Popen([sys.executable, "-c", {SLEEP!r}], env={{}}).pid, flush=True)
{SLEEP}
"""
DRIVER = f"""
import subprocess, sys
from pathlib import Path
from cnnsearch.execution import warden
with warden.watching() as there:
    there.remove(Path(sys.argv[1]))
    child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdout=subprocess.PIPE, text=True)
    print(child.pid, child.stdout.readline(), flush=True)
    {SLEEP}
"""
STRANGER = f"import sys; file = open(sys.argv[1]); print(flush=True); {SLEEP}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A temporary folder of the run, with a log."""
    path = tmp_path / "run"
    path.mkdir()
    (path / "log").touch()
    return path


@contextlib.contextmanager
def driver(folder: Path) -> Iterator[tuple[psutil.Process, list[psutil.Process]]]:
    """A run, its child, and what that has started without the run's mark."""
    process = subprocess.Popen([sys.executable, "-c", DRIVER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    started = [psutil.Process(int(number)) for number in process.stdout.readline().split()]
    try:
        yield psutil.Process(process.pid), started
    finally:
        for one in started:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.kill()
        process.communicate()


def test_a_pipe_that_breaks_is_the_end_of_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    parts = iter([b"first\nsec", b"ond\n"])

    def read(file: int, size: int) -> bytes:
        for part in parts:
            return part
        raise OSError("the pipe is broken")

    monkeypatch.setattr(os, "read", read)
    with (tmp_path / "pipe").open("wb+") as pipe:
        lines = warden._lines(pipe, lambda: None, warden._Patience(os.getpid()))
        assert list(lines) == [b"first", b"second"]


def test_what_a_killed_run_started_is_ended_and_no_stranger(folder: Path) -> None:
    """Also what has lost the run's mark; but not one who reads its log, even from its folder."""
    command = [sys.executable, "-c", STRANGER, str(folder / "log")]
    stranger = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE)
    try:
        assert stranger.stdout is not None
        stranger.stdout.readline()
        with driver(folder) as (process, started):
            process.kill()
            assert psutil.wait_procs(started, timeout=30)[1] == []
            deadline = time.monotonic() + 30
            while folder.exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            assert not folder.exists()
            assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.communicate()
