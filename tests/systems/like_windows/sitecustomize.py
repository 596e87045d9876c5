"""Hides from this package what Windows does not have, in every Python that has this folder in PYTHONPATH.

The libraries around the package still see everything: they are the ones of this system.
"""

from __future__ import annotations

import builtins
import errno
import fcntl
import importlib
import os
import signal
from pathlib import Path
from types import ModuleType
from typing import Any

WARDEN = str(Path(__file__).parents[3] / "cnnsearch" / "execution" / "warden.py")
"""A module that runs as a program."""
hidden: Any = importlib.import_module("hidden")  # from beside this file


def _without(module: ModuleType, names: str) -> ModuleType:
    found = ModuleType(module.__name__)
    found.__dict__.update({name: value for name, value in vars(module).items() if name not in names.split()})
    return found


def _locking(file: int, mode: int, size: int) -> None:
    """As Windows's: locks a byte from where the file stands, and does not wait."""
    assert (mode, size) == (2, 1)
    assert os.lseek(file, 0, os.SEEK_CUR) > 2**29, "nobody could read what is noted in the file"
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise PermissionError(errno.EACCES, "Permission denied") from None


def _import_module(name: str, package: str | None = None) -> Any:
    if name in hidden.MODULES:
        raise ModuleNotFoundError(f"no module named {name!r}")
    return _MSVCRT if name == "msvcrt" else importlib.import_module(name, package)


def _importing(name: str, namespace: Any = None, *rest: Any, **more: Any) -> Any:
    importer = namespace or {}
    if str(importer.get("__name__")).partition(".")[0] != "cnnsearch" and importer.get("__file__") != WARDEN:
        return _import(name, namespace, *rest, **more)
    if name in hidden.MODULES:
        raise ModuleNotFoundError(f"no module named {name!r}")
    return _SEEN.get(name) or _import(name, namespace, *rest, **more)


_MSVCRT = ModuleType("msvcrt")
_MSVCRT.__dict__.update({"LK_NBLCK": 2, "locking": _locking})
_SEEN = {
    "os": _without(os, hidden.NAMES["os"]),
    "signal": _without(signal, hidden.NAMES["signal"]),
    "importlib": _without(importlib, ""),
}
"""Modules as this package sees them."""
_SEEN["importlib"].__dict__["import_module"] = _import_module
_import = builtins.__import__
builtins.__dict__["__import__"] = _importing
