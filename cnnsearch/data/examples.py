"""What every source of images gives: a list of labelled examples, none of them decoded yet."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnnsearch.data.images import FORMATS, Interpolation, decode, resized, to_rgb
from cnnsearch.data.index import read_unchanged
from cnnsearch.words import printable


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


@dataclass(frozen=True)
class FileContent:
    """An image file, known by the hash of its bytes."""

    path: str
    """As the system gave it: undecodable bytes are surrogates."""
    formats: tuple[str, ...] = FORMATS
    """Formats it may have."""

    def digest(self, of_file: Callable[[str], str]) -> str:
        """SHA-256 of the file's bytes."""
        return of_file(self.path)

    def squares(
        self, sizes: Sequence[int], digest: str, interpolation: Interpolation = "bilinear"
    ) -> list[NDArray[np.uint8]]:
        """Decoded and resized: uint8 [S, S, 3] for each size."""
        data = read_unchanged(self.path, digest)
        return decode(data, sizes, formats=self.formats, interpolation=interpolation)


@dataclass(frozen=True)
class PixelContent:
    """An image that is already pixels, known by the hash of its mode, size and pixels."""

    image: Callable[[], Image.Image]
    """Gives the image; called more than once."""

    def digest(self, of_file: Callable[[str], str]) -> str:
        """SHA-256 of the pixels."""
        image = self._plain()
        facts = f"{image.mode} {image.width}x{image.height}\n".encode()
        return hashlib.sha256(facts + image.tobytes()).hexdigest()

    def squares(
        self, sizes: Sequence[int], digest: str, interpolation: Interpolation = "bilinear"
    ) -> list[NDArray[np.uint8]]:
        """Resized: uint8 [S, S, 3] for each size."""
        return resized(to_rgb(self._plain()), sizes, interpolation)

    def _plain(self) -> Image.Image:
        """The image without anything beside its pixels, such as a palette."""
        image = self.image()
        return image if image.mode in ("L", "RGB") else to_rgb(image)
