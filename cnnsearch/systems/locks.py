"""Locks of files that the kernel frees when the process that holds them ends, however it ends."""

from __future__ import annotations

import errno
import os
import time
from typing import Any

from cnnsearch import systems

_FAR = 2**30
"""Byte that is locked on Windows, where nobody can read what is locked: far behind what lock files hold."""
_AGAIN_SECONDS = 0.02
"""Seconds between two attempts where the system cannot wait for a lock."""


def lock(file: int, *, shared: bool = False, waits: bool = True) -> None:
    """Lock an open file until it is closed.

    Args:
        file: its descriptor, open for writing if the lock is not shared.
        shared: whether others may hold shared locks of it meanwhile. Windows has no such locks through Python: there
            nobody else holds the file then.
        waits: whether to wait while others hold it.

    Raises:
        BlockingIOError: another process holds it, and `waits` is False.
        OSError: the file system has no locks.
    """
    fcntl: Any = systems.module("fcntl")
    if fcntl is not None:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if waits else fcntl.LOCK_NB))
        return
    while True:
        try:
            _lock_byte(file)
            return
        except BlockingIOError:
            if not waits:
                raise
            time.sleep(_AGAIN_SECONDS)


def _lock_byte(file: int) -> None:
    """Lock one byte of a file, as Windows does. Raises OSError as `lock` does."""
    msvcrt: Any = systems.module("msvcrt")
    if msvcrt is None:
        raise OSError(errno.ENOLCK, "this system has no locks of files")
    before = os.lseek(file, 0, os.SEEK_CUR)
    try:
        os.lseek(file, _FAR, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EDEADLK, errno.EAGAIN):
            raise BlockingIOError(error.errno, "another process holds the lock") from None
        raise
    finally:
        os.lseek(file, before, os.SEEK_SET)
