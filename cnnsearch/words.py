"""Numbers, names and lists as people read them."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Sequence
from typing import IO


def duration(seconds: float) -> str:
    """Seconds as `0.4 s`, `9 s`, `2 min 40 s`, `3 h 5 min`, `2 d 4 h`."""
    if seconds < 1:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, part, part_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit}" + (f" {rest} {part_unit}" if rest else "")
    return f"{whole} s"


def clock(seconds: float) -> str:
    """Seconds as `1:02`, `2:03:04`."""
    whole = int(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def size(count: float) -> str:
    """Bytes as `340 MB`, `1.1 GB`."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(1, round(count / 1e6))} MB"


def listed(items: Sequence[str], conjunction: str = "and") -> str:
    """Join words as "a", "a and b", "a, b and c"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {conjunction} {items[-1]}" if items else ""


def counted(count: int, singular: str, plural: str | None = None) -> str:
    """Format a count with its noun: "1 setting", "1,000 settings"."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"


_SMALL_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def number_word(count: int) -> str:
    """A number, up to ten in letters: "two"."""
    return _SMALL_NUMBERS[count] if count < len(_SMALL_NUMBERS) else f"{count:,}"


def capitalised(text: str) -> str:
    """The text with its first letter capitalised and the rest unchanged."""
    return text[:1].upper() + text[1:]


def signed(points: float, decimals: int = 1) -> str:
    """Points with a real minus sign, and never "−0.0"."""
    text = f"{points:.{decimals}f}"
    return text.replace("-", "−") if float(text) != 0 else text.lstrip("-")


def share(fraction: float) -> str:
    """Format a fraction that is not an estimate, such as chance: "10 %", "12.5 %"."""
    return f"{100 * fraction:.3g} %"


def percent(accuracy: float) -> str:
    """A fraction as `78.9 %`."""
    return f"{100 * accuracy:.1f} %"


def accuracy(fraction: float, n: int) -> str:
    """An accuracy over n examples with its 95 % Wilson interval: `78.9 % (76.3–81.3)`."""
    from cnnsearch.stats import wilson  # it imports scipy, which takes seconds; few who need words need it

    low, high = wilson(round(fraction * n), n)
    return f"{percent(fraction)} ({100 * low:.1f}–{100 * high:.1f})"


def labelled(rows: Sequence[tuple[str, str | None]]) -> str:
    """Write (label, text) rows as lines, the texts below each other."""
    width = max((len(label) for label, _ in rows), default=0)
    return "\n".join(f"{label:<{width}}  {text}" for label, text in rows)


LISTED = 5
"""Most items that a message names before it says "and N more"."""


_ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Controls, which move a terminal's cursor, and overrides of direction, which reverse the text after them."""


def printable(text: str, *, on_page: bool = False) -> str:
    """Replace characters that affect the text around them with backslash escapes.

    For a terminal these are all that Python calls not printable, including line breaks. For a page, which has fonts for
    all other characters and line breaks of its own, they are only controls and overrides of direction.
    """
    if on_page:
        return _ACTING.sub(lambda found: _escape(found[0]), text)
    return text if text.isprintable() else "".join(char if char.isprintable() else _escape(char) for char in text)


def say(text: object, file: IO[str] | None = None) -> None:
    """Print lines with what `printable` replaces made visible: text from files moves no cursor and hides nothing."""
    print(printable(str(text), on_page=True), file=file or sys.stdout, flush=True)


class VisibleLines(logging.Formatter):
    """Formats warnings as `say` prints lines."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        return printable(super().format(record), on_page=True)


def _escape(char: str) -> str:
    return char.encode("unicode_escape", "backslashreplace").decode("ascii")


def decoded(name: str) -> str:
    """A file name from the system as text that can be encoded: undecodable bytes become `\\xff` and the like."""
    return name if name.isascii() else os.fsencode(name).decode("utf-8", "backslashreplace")


def plural(count: int, noun: str) -> str:
    """A count with its noun, such as `no images`, `1 image` or `1,200 images`."""
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{f'{count:,}' if count else 'no'} {noun}{ending}"


def shortened(lines: Sequence[str], noun: str) -> list[str]:
    """The first `LISTED` lines, and one that counts the others, such as `and 3 more images.`"""
    if len(lines) <= LISTED:
        return list(lines)
    return [*lines[:LISTED], f"and {plural(len(lines) - LISTED, f'more {noun}')}."]
