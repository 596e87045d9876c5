"""Where derived files are kept, and how they appear there: whole or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
import time
from pathlib import Path

_TEMPORARY = ".tmp-"
_ABANDONED_SECONDS = 24 * 3600


def cache_root() -> Path:
    """The folder for derived files, absolute; it exists and can be written.

    CNNSEARCH_CACHE, else $XDG_CACHE_HOME/cnnsearch, else ~/.cache/cnnsearch. Where that cannot be written (a
    read-only home, a full quota on directories), a folder of this user's own in the system's temporary folder.
    """
    wanted = _wanted_root()
    if wanted is not None and _writable(wanted):
        return wanted
    return _temporary_root()


def temporary_file(folder: Path) -> Path:
    """A new empty file beside the one it is going to become."""
    handle, name = tempfile.mkstemp(prefix=_TEMPORARY, dir=folder)
    os.close(handle)
    return Path(name)


def put_in_place(temporary: Path, path: Path) -> None:
    """Make a finished temporary file durable and give it its name; readers see the old file or the new one."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_whole(path: Path, data: bytes) -> None:
    """Write a small file so that it appears whole or not at all; its folder is made where missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_file(path.parent)
    try:
        temporary.write_bytes(data)
        put_in_place(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_abandoned(folder: Path) -> None:
    """Delete temporary files that a killed process left behind more than a day ago."""
    for path in folder.glob(f"{_TEMPORARY}*"):
        try:
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                path.unlink()
        except OSError:  # another process was faster
            continue


def _wanted_root() -> Path | None:
    """The folder asked for; None where there is not even a home folder."""
    try:
        if own := os.environ.get("CNNSEARCH_CACHE"):
            return Path(own).expanduser().absolute()
        if (xdg := os.environ.get("XDG_CACHE_HOME", "")) and os.path.isabs(xdg):  # relative ones are to be ignored
            return Path(xdg) / "cnnsearch"
        return Path.home() / ".cache" / "cnnsearch"
    except RuntimeError:
        return None


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _temporary_root() -> Path:
    """A folder that only this user can have made: the name is guessable, so its owner is checked."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir()).absolute() / f"cnnsearch-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        facts = folder.lstat()
        if stat.S_ISDIR(facts.st_mode) and (not hasattr(os, "getuid") or facts.st_uid == user) and _writable(folder):
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="cnnsearch-"))
