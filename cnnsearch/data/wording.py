"""How messages of this package show names and counts."""

from __future__ import annotations

import os
from collections.abc import Sequence

LISTED = 5
"""Items one message names before "and N more"."""


def printable(text: str) -> str:
    """Text that cannot move a terminal's cursor: what is not printable becomes a backslash escape."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode() for char in text
    )


def decoded(name: str) -> str:
    """A file name as the system gave it, as text that can be encoded: undecodable bytes become `\\xff` and the like."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def plural(count: int, noun: str) -> str:
    """`no images`, `1 image`, `1,200 images`."""
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{f'{count:,}' if count else 'no'} {noun}{ending}"


def shortened(lines: Sequence[str], noun: str) -> list[str]:
    """The first lines, and one that counts the others."""
    if len(lines) <= LISTED:
        return list(lines)
    return [*lines[:LISTED], f"and {plural(len(lines) - LISTED, f'more {noun}')}."]
