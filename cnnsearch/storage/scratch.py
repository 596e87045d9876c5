"""Temporary folders of a run, and the removal of those that dead runs have left."""

from __future__ import annotations

import contextlib
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cnnsearch.storage.durable import is_gone, this_process
from cnnsearch.systems import files

_OWNER = "owner"
"""A file in the folder that names the process it belongs to. The folder's own name has to be short: see `scratch`."""


@contextlib.contextmanager
def scratch(prefix: str, parent: Path) -> Iterator[Path]:
    """Make a folder for the time of the block, readable by this user alone.

    Folders of this kind whose process has ended, and the warden with it, are removed first.

    Args:
        prefix: of the folder's name. Ray's sockets are in such folders, and a socket's path has at most 107 bytes.
        parent: where folders of this kind are.
    """
    _remove_left(prefix, parent)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        (folder / _OWNER).write_text(this_process(), encoding="ascii")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_left(prefix: str, parent: Path) -> None:
    for folder in parent.glob(f"{prefix}*"):
        with contextlib.suppress(OSError, ValueError):  # not one of ours, or another process was faster
            facts = folder.lstat()
            is_ours = stat.S_ISDIR(facts.st_mode) and files.is_ours(facts)
            if is_ours and is_gone((folder / _OWNER).read_text(encoding="ascii")):
                shutil.rmtree(folder, ignore_errors=True)
