"""What stands out in the images of a data set, by their rows; `data.inspection` finds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["same file", "alike", "mirrored"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Oddity = Literal["one colour", "size", "mode"]
ODDITIES: tuple[Oddity, ...] = get_args(Oddity)


@dataclass(frozen=True)
class Pair:
    """Two rows with the same picture, the first before the second."""

    first: int
    second: int
    kind: Kind


@dataclass(frozen=True)
class Odd:
    """A row that stands out, and how."""

    row: int
    what: Oddity
    text: str
    """In words, to follow its name."""


@dataclass(frozen=True)
class Looks:
    """What was found."""

    pairs: tuple[Pair, ...] = ()
    odd: tuple[Odd, ...] = ()
