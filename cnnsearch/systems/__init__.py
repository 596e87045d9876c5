"""What operating systems do differently: locks, files and processes. No other module asks which system it runs on.

The code asks for what a system has, never for its name. Where something is missing, the plain way that works
everywhere is taken; the docstrings say what it promises less.
"""

from __future__ import annotations

import importlib
from types import ModuleType


def module(name: str) -> ModuleType | None:
    """Import a module of Python's own that only some systems have; None elsewhere."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
