"""Damage as disks and interrupted copies do it."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, settings

MANY = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
FEW = settings(MANY, max_examples=4)
"""For what takes a second each."""


def flip(file: Path, place: int) -> None:
    """Flip one bit: `place` counts bits, and wraps around. The file gets a new inode; hard links keep the old one."""
    content = bytearray(file.read_bytes())
    byte, bit = divmod(place % (8 * len(content)), 8)
    content[byte] ^= 1 << bit
    file.unlink()
    file.write_bytes(content)


def truncate(file: Path) -> None:
    """Lose the second half."""
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[: len(content) // 2])
