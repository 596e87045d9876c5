"""What every source of images gives: a list of labelled examples, none of them decoded yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cnnsearch.data.images import Interpolation
from cnnsearch.data.wording import printable


class Content(Protocol):
    """The pixels of one example, wherever they are."""

    def digest(self, of_file: Callable[[str], str]) -> str:
        """SHA-256 of the contents, 64 hex digits; `of_file` hashes a path.

        Raises:
            BadImageError: the contents cannot be read.
        """

    def squares(self, sizes: Sequence[int], digest: str, interpolation: Interpolation) -> list[NDArray[np.uint8]]:
        """Decoded and resized: uint8 [S, S, 3] for each size.

        Raises:
            BadImageError: it cannot be decoded, or its contents no longer match `digest`.
        """


@dataclass(frozen=True)
class Example:
    """One labelled image."""

    name: str
    """Its path inside the source, or its index; Unicode that can be encoded."""
    label: int
    part: str | None
    """Which of its source's parts it is in; None where there are none."""
    content: Content


@dataclass(frozen=True)
class Listing:
    """All examples of a source, in the order that decides the split."""

    source: str
    """What the user asked for."""
    classes: tuple[str, ...]
    examples: tuple[Example, ...]
    parts: tuple[str, ...] = ()
    """The splits that the source brings: all of them, "train" and "test", or none."""
    problems: tuple[tuple[str, str], ...] = ()
    """(name, reason) of what should be images and cannot be used, known without opening them."""
    warnings: tuple[str, ...] = ()

    def labels(self) -> NDArray[np.int64]:
        """[N] label of each example."""
        return np.array([example.label for example in self.examples], np.int64)

    def shown(self, name: str) -> str:
        """The name of an example as a message shows it: so that a person finds it from where they are."""
        return printable(f"{self.source.rstrip('/')}/{name}")
