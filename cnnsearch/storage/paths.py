"""Paths as people type them."""

from __future__ import annotations

import os
from pathlib import Path


def typed_path(text: Path | str) -> Path:
    """Return a path with `~` or `~user` at its start replaced by that home folder, wherever a shell has not done so.

    The home of a user who is not known stays as it is.
    """
    return Path(os.path.expanduser(text))
