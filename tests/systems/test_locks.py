"""Locks of files, by the kernel of this system and as on Windows."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cnnsearch import systems
from cnnsearch.systems import locks

HOLD = """
import os, sys, time
from cnnsearch.systems.locks import lock
lock(os.open(sys.argv[1], os.O_RDWR))
print(flush=True)
time.sleep(600)
"""
LIKE_WINDOWS = str(Path(__file__).parent / "like_windows")


@pytest.fixture(params=["here", "windows"])
def environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Of a process that holds a lock; this one locks in the same way."""
    if request.param == "here":
        return dict(os.environ)
    import fcntl

    def locking(file: int, mode: int, size: int) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PermissionError(errno.EACCES, "Permission denied") from None

    windows: dict[str, Any] = {"msvcrt": SimpleNamespace(LK_NBLCK=2, locking=locking)}
    monkeypatch.setattr(systems, "module", windows.get)
    return {**os.environ, "PYTHONPATH": LIKE_WINDOWS}


@pytest.fixture
def held(environment: dict[str, str], tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """A file that another process has locked, and that process."""
    file = tmp_path / "lock"
    file.write_text("process 1\n", encoding="ascii")
    command = [sys.executable, "-c", HOLD, str(file)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline()
    yield file, process
    process.kill()
    process.communicate()


def test_a_lock_ends_with_its_process(held: tuple[Path, subprocess.Popen[str]]) -> None:
    path, process = held
    with path.open("rb+") as file:
        for shared in (False, True):
            with pytest.raises(BlockingIOError):
                locks.lock(file.fileno(), shared=shared, waits=False)
        assert file.read() == b"process 1\n", "who holds it is noted in the file, for others to read"
        process.kill()
        locks.lock(file.fileno())
        with path.open("rb+") as other, pytest.raises(BlockingIOError):
            locks.lock(other.fileno(), waits=False)
    with path.open("rb") as again:
        locks.lock(again.fileno(), shared=True, waits=False)


def test_waiting_for_a_lock_ends_when_it_is_free(environment: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "lock"
    file.touch()
    with file.open("rb+") as opened:
        locks.lock(opened.fileno())
        code = HOLD.replace("time.sleep(600)", "")
        process = subprocess.Popen([sys.executable, "-c", code, str(file)], stdout=subprocess.DEVNULL, env=environment)
        time.sleep(0.5)
        assert process.poll() is None
    assert process.wait(60) == 0


def test_a_system_without_locks_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(systems, "module", lambda name: None)
    with (tmp_path / "lock").open("wb") as file, pytest.raises(OSError, match="no locks of files"):
        locks.lock(file.fileno())
