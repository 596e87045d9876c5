"""The lock of a results folder, which one process at a time holds. The kernel frees it when that process ends."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from cnnsearch.errors import DiskError, ResultsError
from cnnsearch.storage.reading import opened
from cnnsearch.systems import files, locks
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
        lock = files.open_file(file, os.O_RDWR | os.O_CREAT)
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
            os.write(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
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
            locks.lock(lock.fileno(), shared=True, waits=False)
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
    os.lseek(lock, 0, os.SEEK_SET)
    return printable(os.read(lock, 1000).decode(errors="replace").strip().partition("\n")[0][:200])


def _take(lock: int) -> None:
    """Take the lock for this process alone; try again for a moment, since `held_since` may be holding it to look.

    Raises BlockingIOError if another process holds it.
    """
    tries = 5
    for left in reversed(range(tries)):
        try:
            locks.lock(lock, waits=False)
            break
        except BlockingIOError:
            if not left:
                raise
            time.sleep(0.02)


def _holder(lock: int) -> str:
    """What the holder noted about itself just after it took the lock."""
    with contextlib.suppress(BlockingIOError):
        locks.lock(lock, shared=True, waits=False)
        return "a process that is no run of a sweep, and holds a shared lock of its file .lock"
    deadline = time.monotonic() + 2
    while not (name := _noted(lock)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return name or "another process"
