"""The lock of a results folder, which one process at a time holds. The kernel frees it when that process ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from cnnsearch.errors import DiskError, ResultsError
from cnnsearch.storage.reading import opened
from cnnsearch.words import printable


@contextlib.contextmanager
def held(file: Path, name: str, folder: Path) -> Iterator[None]:
    """Hold the lock of a folder for the time of the block, noting the holder in `file`.

    Args:
        file: of the lock.
        name: what is locked, for people.
        folder: has to be there, and is made.

    Raises:
        ResultsError: another process holds it, or the folder cannot be written.
        DiskError: the disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        if not stat.S_ISREG(os.fstat(lock).st_mode):
            os.close(lock)
            raise ResultsError(f"{file} is not a regular file: remove it")
    except OSError as error:
        raise ResultsError(f"{name} cannot be written: {error.strerror}. Choose another with --out") from None
    try:
        try:
            _take(lock)
        except OSError:
            holder = _holder(lock)
            raise ResultsError(f"{name} is in use by {holder}; wait for it, or choose another with --out") from None
        try:
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        except OSError as error:
            raise DiskError(f"{file.parent} cannot be written: {error.strerror}") from None
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                os.ftruncate(lock, 0)
    finally:
        os.close(lock)


def held_since(file: Path) -> float | None:
    """When the process that holds the lock took it, in seconds since the epoch; None if no process holds it.

    Only reads. The kernel says whether the lock is held, so a note that a killed process left does not count.
    """
    try:
        with opened(file) as lock:
            since = os.fstat(lock.fileno())
            if since.st_size == 0:  # its holder has let go
                return None
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return since.st_mtime
    except OSError:
        return None
    return None


def holder(file: Path) -> str:
    """What the process that holds the lock has noted about itself, such as `process 123 on host`; empty if nothing."""
    try:
        with opened(file) as lock:
            return _noted(lock.fileno())
    except OSError:
        return ""


def _noted(lock: int) -> str:
    return printable(os.pread(lock, 1000, 0).decode(errors="replace").strip().partition("\n")[0][:200])


def _take(lock: int) -> None:
    """Take the lock for this process alone; try again for a moment, since `held_since` may be holding it to look.

    Raises BlockingIOError if another process holds it.
    """
    tries = 5
    for left in reversed(range(tries)):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if not left:
                raise
            time.sleep(0.02)


def _holder(lock: int) -> str:
    """What the holder noted about itself just after it took the lock."""
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return "a process that is no run of a sweep, and holds a shared lock of its file .lock"
    deadline = time.monotonic() + 2
    while not (name := _noted(lock)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return name or "another process"
