"""The two kinds of contents an example can have: a file, or an image in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnnsearch.data import images
from cnnsearch.data.colour import to_rgb
from cnnsearch.data.index import read_unchanged


@dataclass(frozen=True)
class FileContent:
    """An image file, known by the hash of its bytes."""

    path: str
    """As the system gave it: undecodable bytes are surrogates."""
    formats: tuple[str, ...] = images.FORMATS
    """Formats it may have."""

    def digest(self, of_file: Callable[[str], str]) -> str:
        """SHA-256 of the file's bytes."""
        return of_file(self.path)

    def squares(
        self, sizes: Sequence[int], digest: str, interpolation: images.Interpolation = "bilinear"
    ) -> list[NDArray[np.uint8]]:
        """Decoded and resized: uint8 [S, S, 3] for each size."""
        data = read_unchanged(self.path, digest)
        return images.decode(data, sizes, formats=self.formats, interpolation=interpolation)


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
        self, sizes: Sequence[int], digest: str, interpolation: images.Interpolation = "bilinear"
    ) -> list[NDArray[np.uint8]]:
        """Resized: uint8 [S, S, 3] for each size."""
        return images.squares(to_rgb(self._plain()), sizes, interpolation)

    def _plain(self) -> Image.Image:
        """The image without anything beside its pixels, such as a palette."""
        image = self.image()
        return image if image.mode in ("L", "RGB") else to_rgb(image)
