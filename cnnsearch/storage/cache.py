"""The folder for files that can be made again at any time, such as decoded images and timings."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from cnnsearch.systems import files


def cache_root() -> Path:
    """Return the folder for derived files, as an absolute path; it exists and can be written.

    It is $CNNSEARCH_CACHE, else $XDG_CACHE_HOME/cnnsearch, else ~/.cache/cnnsearch. Where that cannot be written (a
    read-only home, a full quota), it is a folder of this user's own in the system's temporary folder.
    """
    wanted = _wanted_root()
    if wanted is not None and _writable(wanted):
        return wanted
    return _temporary_root()


def matplotlib_environment() -> dict[str, str]:
    """Return environment variables to set before matplotlib is imported: its folder, if it cannot use its own.

    matplotlib keeps an index of fonts in the home folder. If it cannot, it warns and builds the index again each time.
    """
    if "MPLCONFIGDIR" in os.environ:
        return {}
    try:
        home = Path.home()
        config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
        cache = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
        if _can_be_made(config / "matplotlib") and _can_be_made(cache / "matplotlib"):
            return {}
    except RuntimeError:  # no home at all
        pass
    return {"MPLCONFIGDIR": str(cache_root() / "matplotlib")}


def _can_be_made(folder: Path) -> bool:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return os.access(folder, os.W_OK | os.X_OK)


def _wanted_root() -> Path | None:
    """Return the cache folder that the environment asks for, by default in the home folder; None without a home."""
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
    """Make a temporary folder for this user. Others can guess its name, so its owner is checked."""
    folder = Path(tempfile.gettempdir()).absolute() / f"cnnsearch-{files.user_number()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        facts = folder.lstat()
        if stat.S_ISDIR(facts.st_mode) and files.is_ours(facts) and _writable(folder):
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="cnnsearch-"))
