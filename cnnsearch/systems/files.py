"""Files, where systems differ: what may be opened, what is durable, what can be replaced, and whose it is."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import shutil
import stat
import time
from pathlib import Path

_BUSY_SECONDS = 5.0
"""Seconds for which Windows is asked again to replace a file that another process has open."""
_AGAIN_SECONDS = 0.05

_UMASK = os.umask(0o022)
os.umask(_UMASK)


def _flag(name: str) -> int:
    return int(getattr(os, name, 0))


_ALWAYS = _flag("O_NONBLOCK") | _flag("O_BINARY")
_NO_LINK = _flag("O_NOFOLLOW")


def open_file(path: Path, flags: int, *, follow: bool = False) -> int:
    """Open a file without waiting for a FIFO; returns its descriptor, which processes started later do not inherit.

    Args:
        path: of the file.
        flags: as for `os.open`: how it is opened, and whether it is made.
        follow: whether it may be a link. Where the kernel cannot refuse links, as on Windows, they are looked for
            first, so one that is put there in between is followed.

    Raises:
        OSError: it cannot be opened; with ELOOP where it is a link.
    """
    if not follow and not _NO_LINK and path.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return os.open(path, flags | _ALWAYS | (0 if follow else _NO_LINK), 0o666)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable. Raises OSError.

    Windows cannot sync folders, and keeps their names itself.
    """
    if not hasattr(os, "O_DIRECTORY"):
        return
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def give_usual_mode(file: int) -> None:
    """Let those read an open file who may read new files; temporary ones are their owner's alone. Raises OSError."""
    if hasattr(os, "fchmod"):
        os.fchmod(file, 0o666 & ~_UMASK)


def replace(source: Path, target: Path) -> None:
    """Give a file another name, also where that is taken. Raises OSError.

    Windows refuses while another process has the old one open; then it is tried again for some seconds.
    """
    deadline = time.monotonic() + (0 if hasattr(os, "O_DIRECTORY") else _BUSY_SECONDS)
    while True:
        try:
            source.replace(target)
            return
        except PermissionError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_AGAIN_SECONDS)


def is_ours(facts: os.stat_result) -> bool:
    """Whether a file belongs to this user. Windows does not say; there the folders asked about are this user's own."""
    getuid = getattr(os, "getuid", None)
    return getuid is None or facts.st_uid == getuid()


def user_number() -> int:
    """Return a number for this user; 0 where users have none."""
    getuid = getattr(os, "getuid", None)
    return 0 if getuid is None else int(getuid())


def mode_open_to_others(facts: os.stat_result) -> int | None:
    """Return the mode of a file that other users may read or write; None where only its owner may.

    None as well where modes do not say that, as on Windows, where a file in a user's folder is that user's alone.
    """
    mode = stat.S_IMODE(facts.st_mode)
    return mode if hasattr(os, "getuid") and mode & (stat.S_IRWXG | stat.S_IRWXO) else None


def free_bytes(folder: Path) -> int:
    """Return how many bytes this user may still write to a folder's disk. Raises OSError."""
    return shutil.disk_usage(folder).free


def free_files(folder: Path) -> int | None:
    """Return how many more files fit on a folder's disk; None where that is not limited, or not known."""
    with contextlib.suppress(OSError, AttributeError):
        room = os.statvfs(folder)  # type: ignore[attr-defined,unused-ignore]
        return int(room.f_favail) if room.f_files else None
    return None


def can_read_ahead() -> bool:
    """Whether a system says what is in memory of a file, and can be asked to read more of it. Only Linux does."""
    return hasattr(os, "posix_fadvise") and hasattr(os, "RWF_NOWAIT")


def is_in_memory(file: int, start: int) -> bool:
    """Whether the byte at `start` of an open file is in memory; also where its file system cannot tell."""
    try:
        return bool(os.preadv(file, [bytearray(1)], start, os.RWF_NOWAIT) == 1)  # type: ignore[attr-defined,unused-ignore]
    except BlockingIOError:
        return False
    except OSError:
        return True


def read_soon(file: int, start: int, length: int) -> None:
    """Have the system read a part of an open file, without waiting for it. Raises OSError."""
    os.posix_fadvise(file, start, length, os.POSIX_FADV_WILLNEED)  # type: ignore[attr-defined,unused-ignore]


def read_no_more_than_asked(mapped: mmap.mmap) -> None:
    """Have the system not read what lies around the places that are used, where it can be told so."""
    if hasattr(mmap, "MADV_RANDOM"):
        mapped.madvise(mmap.MADV_RANDOM)  # type: ignore[attr-defined,unused-ignore]
