"""Files that appear whole or not at all, survive a crash once written, and whose damage is found.

A file is written beside its place, under a name that identifies the writing process, synced, and renamed. Readers see
the old file or the new one. Files that another file vouches for are synced together, before that one is written. What a
killed process left behind is recognised by its name and removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cnnsearch.errors import DiskError
from cnnsearch.storage.checksums import checksum, is_whole
from cnnsearch.storage.reading import MOST_BYTES, read_json
from cnnsearch.systems import files, locks, processes

_TEMPORARY = ".tmp-"
_FOREIGN_SECONDS = 7 * 24 * 3600
"""Age from which a temporary file counts as abandoned if its process cannot be checked, as on another machine."""


@contextlib.contextmanager
def replacing(path: Path, *, synced: bool = True) -> Iterator[Path]:
    """Yield a temporary file beside `path` that takes its place when the block ends without an exception.

    With `synced` off the file is not durable yet: see `write_whole`. Raises DiskError; `path` is then as it was.
    """
    try:
        temporary = temporary_file(path.parent)
        try:
            yield temporary
            put_in_place(temporary, path, synced=synced)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise DiskError(f"{path} cannot be written: {error.strerror or error}") from None


def write_whole(path: Path, content: bytes, *, synced: bool = True) -> None:
    """Write a file so that after a crash it is either complete or as it was before. Raises DiskError.

    With `synced` off, this holds if the process crashes; if the machine does, only after a call of `sync`.
    """
    with replacing(path, synced=synced) as temporary:
        temporary.write_bytes(content)


def sync(path: Path) -> None:
    """Make a file's content durable. Raises DiskError.

    Its name becomes durable once another file of its folder is replaced.
    """
    try:
        with os.fdopen(files.open_file(path, os.O_RDWR), "rb") as file:  # Windows syncs only what may be written
            os.fsync(file.fileno())
    except OSError as error:
        raise DiskError(f"{path} cannot be written: {error.strerror or error}") from None


def appending(path: Path) -> io.BufferedWriter:
    """Open a regular file for adding to its end, made where there is none; a link is not followed. Raises OSError."""
    return os.fdopen(files.open_file(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab")


def append_synced(path: Path, content: bytes) -> None:
    """Add to the end of a file, made with its folder where there is none, and have it on disk. Raises DiskError."""
    try:
        made = [one for one in (path.parent, path) if not one.exists()]
        path.parent.mkdir(exist_ok=True)
        with appending(path) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        for one in made:
            files.sync_folder(one.parent)
    except OSError as error:
        raise DiskError(f"{path} cannot be written: {error.strerror}") from None


def write_json(path: Path, value: Any, *, synced: bool = True) -> None:
    """Write a JSON file, whole or not at all; see `write_whole`. Raises DiskError."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(path, text.encode(), synced=synced)


def write_checked(path: Path, facts: dict[str, Any], *, synced: bool = True) -> None:
    """Write a JSON object that carries its own checksum, whole or not at all; see `write_whole`. Raises DiskError."""
    write_json(path, {"checksum": checksum(facts), **facts}, synced=synced)


def read_checked(path: Path, most: int = MOST_BYTES, *, names: bool = False) -> dict[str, Any] | None:
    """Read what `write_checked` wrote, checksum included; None where that cannot be done. See `parsed` for `names`."""
    try:
        stored = read_json(path, most, names=names)
    except (OSError, ValueError):
        return None
    return stored if isinstance(stored, dict) and is_whole(stored) else None


def temporary_file(folder: Path) -> Path:
    """Make an empty file in `folder`, to be filled and then `put_in_place`. Raises OSError."""
    handle, name = tempfile.mkstemp(prefix=f"{_TEMPORARY}{this_process()}-", dir=folder)
    os.close(handle)
    return Path(name)


def temporary_folder(folder: Path) -> Path:
    """Make an empty folder in `folder` that counts as abandoned once this process has ended. Raises OSError."""
    return Path(tempfile.mkdtemp(prefix=f"{_TEMPORARY}{this_process()}-", dir=folder))


def common_folder(folder: Path, name: str) -> Path:
    """Return a folder in `folder` that any process may add to; abandoned a week after it was last asked for.

    Raises OSError.
    """
    path = folder / f"{_TEMPORARY}{name}"
    path.mkdir(exist_ok=True)
    os.utime(path)
    return path


def put_in_place(temporary: Path, path: Path, *, synced: bool = True) -> None:
    """Make a finished temporary file durable, unless `synced` is off, and give it its name. Raises OSError."""
    with temporary.open("rb+") as file:  # Windows syncs only what may be written
        if synced:
            os.fsync(file.fileno())
        files.give_usual_mode(file.fileno())
    files.replace(temporary, path)
    if synced:
        files.sync_folder(path.parent)


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a folder of derived files, created if missing, against the other processes of this machine.

    What processes that have ended left unfinished in it is removed. Raises OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        locks.lock(lock.fileno())
        remove_abandoned(folder)
        yield


def remove_abandoned(folder: Path) -> None:
    """Delete temporary files and folders in `folder` whose process has ended; those of this process count as in use."""
    for path in folder.glob(f"{_TEMPORARY}*"):
        with contextlib.suppress(OSError):  # another process was faster
            if not _is_abandoned(path):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _is_abandoned(path: Path) -> bool:
    gone = is_gone(path.name.removeprefix(_TEMPORARY))
    return time.time() - path.stat().st_mtime > _FOREIGN_SECONDS if gone is None else gone


def this_process() -> str:
    """Return a name for this process that no other process on any machine has; see `is_gone`."""
    return f"{_machine()}-{_boot()}-{os.getpid()}"


def is_gone(process: str) -> bool | None:
    """Say whether the process with such a name, or a longer one that begins with it, has ended; None for another
    machine's.
    """
    machine, _, rest = process.partition("-")
    boot, _, rest = rest.partition("-")
    number = rest.partition("-")[0]
    if machine != _machine() or not number.isdigit():
        return None
    return boot != _boot() or not processes.is_running(int(number))


def _machine() -> str:
    """A name for each machine or container, that is, for each place with process numbers of its own."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return hashlib.sha256(f"{socket.gethostname()} {space}".encode()).hexdigest()[:8]


def _boot() -> str:
    """Return a name for the time since this machine started, which differs after its next start."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
    except OSError:
        return "unknown"
