"""What every source of images gives: a list of labelled examples, none of them decoded yet."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnnsearch.data.images import FORMATS, Interpolation, Reading, decode, greys, resized, shape, to_rgb
from cnnsearch.data.index import inner_key, read_regular, read_unchanged, refuse_changed
from cnnsearch.words import printable


class Content(Protocol):
    """The pixels of one example, wherever they are."""

    @property
    def place(self) -> tuple[str, int]:
        """Where they are stored: many contents are read fastest in this order. The same for all where it is all one."""

    def digest(self, of_file: Callable[..., str]) -> str:
        """Hash the contents.

        Args:
            of_file: path -> SHA-256 of the file there; see `Index.digest` for a part of a file.

        Returns:
            SHA-256, 64 hex digits.

        Raises:
            BadImageError: the contents cannot be read.
        """

    def squares(
        self,
        sizes: Sequence[int],
        digest: str,
        interpolation: Interpolation,
        reading: Reading,
        data: bytes | None = None,
    ) -> list[NDArray[np.uint8]]:
        """Decode the image and resize it to squares.

        Args:
            sizes: sides of the squares, pixels.
            digest: what `digest` gave before.
            interpolation: how to resize.
            reading: how the contents of a file become pixels.
            data: the contents, if `digest` has just read them.

        Returns:
            For each size S, uint8 [S, S, 3], RGB.

        Raises:
            BadImageError: the image cannot be decoded, or its contents no longer match `digest`.
        """

    def shape(self) -> tuple[int, int, str]:
        """Width, height and mode of the image as it is stored; nothing is decoded. Raises BadImageError."""


@dataclass(frozen=True)
class Example:
    """One labelled image."""

    name: str
    """Its path inside the source, or its index; text that can be encoded as UTF-8."""
    label: int
    part: str | None
    """The split its source puts it in; None if the source has no splits of its own."""
    content: Content
    group: str | None = None
    """What it has in common with images that must be in the same split; None if nothing."""


@dataclass(frozen=True)
class Listing:
    """All examples of a source, in the order that decides how they are split."""

    source: str
    """What the user asked for."""
    classes: tuple[str, ...]
    examples: tuple[Example, ...]
    parts: tuple[str, ...] = ()
    """The splits that the source brings: all three, "train" and "test", or none."""
    problems: tuple[tuple[str, str], ...] = ()
    """(name, reason) of each file that should be an image but cannot be used, as far as is known without opening it."""
    warnings: tuple[str, ...] = ()
    base: str | None = None
    """The folder that names are relative to, as messages show it; None: the source itself."""

    def labels(self) -> NDArray[np.int64]:
        """[N] label of each example."""
        return np.array([example.label for example in self.examples], np.int64)

    @property
    def has_groups(self) -> bool:
        """Whether any example has a group."""
        return any(example.group is not None for example in self.examples)

    def groups(self, rows: Iterable[int]) -> NDArray[np.int64] | None:
        """Number the groups of some examples, [n]; one without a group has its own. None if there are no groups."""
        if not self.has_groups:
            return None
        numbers: dict[object, int] = {}
        keys = ((row,) if (group := self.examples[row].group) is None else group for row in rows)
        return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)

    def shown(self, name: str) -> str:
        """Return the name of an example as messages show it: as a path that includes the source."""
        base = self.source if self.base is None else self.base
        return printable(f"{base.rstrip('/')}/{name}" if base else name)


@dataclass(frozen=True)
class FileContent:
    """An image file, known by the hash of its bytes."""

    path: str
    """As the system gave it: bytes that cannot be decoded are surrogates."""
    formats: tuple[str, ...] = FORMATS
    """Pillow's names of the formats it may have."""

    @property
    def place(self) -> tuple[str, int]:
        """See `Content.place`."""
        return "", 0

    @property
    def key(self) -> str:
        """What an index knows it by."""
        return self.path

    def read(self) -> bytes:
        """Return the bytes of the file. Raises BadImageError."""
        return read_regular(self.path)

    def length(self) -> int | None:
        """Bytes of the file; None where that is not known."""
        try:
            return os.stat(self.path).st_size
        except OSError:
            return None

    def greys(self) -> tuple[int, int] | None:
        """See `images.greys`."""
        return greys(self.path)

    def digest(self, of_file: Callable[..., str]) -> str:
        """See `Content.digest`: hash the file's bytes."""
        return of_file(self.path)

    def squares(
        self,
        sizes: Sequence[int],
        digest: str,
        interpolation: Interpolation,
        reading: Reading,
        data: bytes | None = None,
    ) -> list[NDArray[np.uint8]]:
        """See `Content.squares`."""
        data = read_unchanged(self.path, digest) if data is None else data
        return decode(data, sizes, formats=self.formats, interpolation=interpolation, reading=reading)

    def shape(self) -> tuple[int, int, str]:
        """See `Content.shape`."""
        return shape(self.path, self.formats)


@dataclass(frozen=True)
class InnerContent:
    """An image file inside a larger file, such as a table or an archive, known by the hash of its own bytes."""

    path: str
    """The larger file."""
    number: int
    """Where the image is in it: its row or its first byte."""
    fetch: Callable[[], bytes]
    """Reads the image's bytes; called more than once. Raises BadImageError."""
    size: int | None = None
    """Bytes of the image; None where that is not known."""

    @property
    def place(self) -> tuple[str, int]:
        """See `Content.place`."""
        return self.path, self.number

    @property
    def key(self) -> str:
        """What an index knows it by."""
        return inner_key(self.path, self.number)

    def read(self) -> bytes:
        """Return the bytes of the image. Raises BadImageError."""
        return self.fetch()

    def length(self) -> int | None:
        """Bytes of the image; None where that is not known."""
        return self.size

    def greys(self) -> tuple[int, int] | None:
        """See `images.greys`."""
        return greys(self.fetch())

    def digest(self, of_file: Callable[..., str]) -> str:
        """See `Content.digest`: hash the image's bytes."""
        return of_file(self.path, self.number, self.fetch)

    def squares(
        self,
        sizes: Sequence[int],
        digest: str,
        interpolation: Interpolation,
        reading: Reading,
        data: bytes | None = None,
    ) -> list[NDArray[np.uint8]]:
        """See `Content.squares`."""
        if data is None:
            data = self.fetch()
            refuse_changed(data, digest)
        return decode(data, sizes, interpolation=interpolation, reading=reading)

    def shape(self) -> tuple[int, int, str]:
        """See `Content.shape`."""
        return shape(self.fetch())


def stored_order(contents: Sequence[Content]) -> list[int]:
    """Return the rows of contents in the order in which they are read fastest."""
    return sorted(range(len(contents)), key=lambda row: contents[row].place)


@dataclass(frozen=True)
class PixelContent:
    """An image in memory, known by the hash of its mode, size and pixels."""

    image: Callable[[], Image.Image]
    """Returns the image; called more than once."""

    @property
    def place(self) -> tuple[str, int]:
        """See `Content.place`."""
        return "", 0

    def digest(self, of_file: Callable[..., str]) -> str:
        """See `Content.digest`: hash mode, size and pixels."""
        image = self._plain()
        facts = f"{image.mode} {image.width}x{image.height}\n".encode()
        return hashlib.sha256(facts + image.tobytes()).hexdigest()

    def squares(
        self,
        sizes: Sequence[int],
        digest: str,
        interpolation: Interpolation,
        reading: Reading,
        data: bytes | None = None,
    ) -> list[NDArray[np.uint8]]:
        """See `Content.squares`; nothing can have changed, so `digest` is not looked at."""
        return resized(to_rgb(self._plain()), sizes, interpolation)

    def shape(self) -> tuple[int, int, str]:
        """See `Content.shape`."""
        image = self.image()
        return image.width, image.height, image.mode

    def _plain(self) -> Image.Image:
        """Return the image with its pixels alone, without a palette or transparency."""
        image = self.image()
        return image if image.mode in ("L", "RGB") else to_rgb(image)
