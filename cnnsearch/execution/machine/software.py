"""What a trial computes with beside the machine: versions of packages, and the commit of this code."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("cnnsearch", "torch", "torchvision", "ray", "numpy", "pillow")
EXTRAS = ("timm",)
"""Packages that may be missing."""


def versions() -> dict[str, str]:
    """Name -> version of Python and of the packages that numbers may depend on."""
    here = [*PACKAGES, *(name for name in EXTRAS if find_spec(name))]
    return {"python": sys.version.split()[0], **{name: metadata.version(name) for name in here}}


def commit() -> str | None:
    """The commit of the code, if it runs from a checkout."""
    where = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "-C", str(where), "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
