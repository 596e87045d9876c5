"""Image files to small squares of pixels, refusing by name what cannot be read.

Every image becomes a square by resampling with antialiasing, whatever its shape: the aspect ratio is not kept and
nothing is cropped, as in the assignment this tool comes from. The filter is bilinear unless pretrained weights expect
another.
"""

from __future__ import annotations

import io
import logging
import re
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np
import PIL
from numpy.typing import NDArray

# Imported so that the formats are registered before threads open images: Pillow's own lazy registration is not locked.
from PIL import (
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    Image,
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from cnnsearch.data.colour import to_rgb
from cnnsearch.data.diagnosis import damaged, not_an_image
from cnnsearch.errors import DataError

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""Formats that are decoded by default, whatever a file's extension says."""

MAX_PIXELS = 100_000_000
"""Width times height above which an image is refused before it is decoded."""

Interpolation = Literal["bilinear", "bicubic"]
"""Filters of resampling."""

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

RECIPE = f"1, Pillow {PIL.__version__}"
"""Names how pixels come from bytes. Raise the number when decoding changes; decoded pixels are kept under this name."""

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what turns the stored pixels upright (EXIF 2.32, section 4.6.4, tag 274)."""

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else its warnings reach the terminal


class BadImageError(DataError):
    """Content that cannot be used; the message is a reason to be read after a file name: "is truncated (…)"."""


def decode(
    source: Path | str | bytes,
    sizes: Sequence[int],
    *,
    formats: Sequence[str] = FORMATS,
    interpolation: Interpolation = "bilinear",
) -> list[NDArray[np.uint8]]:
    """The first frame of an image, upright, at each of several sizes.

    Args:
        source: a path, or the contents of a file.
        sizes: sides of the wanted squares, pixels.
        formats: Pillow's names of the formats that may be decoded.
        interpolation: how it is resized.

    Returns:
        For each size S, uint8 [S, S, 3], RGB; decoded once for all.

    Raises:
        BadImageError: not an image in one of the formats, larger than MAX_PIXELS, truncated or damaged.
        OSError: the path cannot be read.
    """
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    with _QUIET:
        return squares(_upright(data, formats), sizes, interpolation)


def squares(
    image: Image.Image, sizes: Sequence[int], interpolation: Interpolation = "bilinear"
) -> list[NDArray[np.uint8]]:
    """An RGB image resized to each size: uint8 [S, S, 3]."""
    return [np.array(image.resize((size, size), _FILTERS[interpolation])) for size in sizes]


def _upright(data: bytes, formats: Sequence[str]) -> Image.Image:
    """The first frame as an RGB image, turned as its EXIF orientation says."""
    try:
        with Image.open(io.BytesIO(data), formats=tuple(formats)) as image:
            _check_pixels(image.width * image.height)
            image.load()
            rgb, turn = to_rgb(image), _UPRIGHT.get(_orientation(image))
    except BadImageError:
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit is checked before ours
        _check_pixels(int(re.sub(r"\D", "", str(error).partition("pixels")[0]) or MAX_PIXELS + 1))
        raise
    except UnidentifiedImageError:
        raise BadImageError(not_an_image(data)) from None
    except MemoryError:
        raise BadImageError("needs more memory to decode than there is") from None
    except Exception as error:  # decoders raise a dozen types on hostile bytes; all of them mean the same here
        raise BadImageError(damaged(data, str(error))) from None
    return rgb if turn is None else rgb.transpose(turn)


def _check_pixels(count: int) -> None:
    if count > MAX_PIXELS:
        raise BadImageError(f"has {count:,} pixels; the limit is {MAX_PIXELS:,}")


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1–8; 1, as it is, where there is none or it cannot be read."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a broken EXIF block does not make the pixels unreadable
        return 1


class _Quiet:
    """Keeps Pillow's Python warnings off the terminal while any thread decodes.

    `warnings.catch_warnings` alone is not safe between threads: overlapping exits restore the wrong filters. Here the
    first thread in silences and the last one out restores.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._saved = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._saved = warnings.catch_warnings()
                self._saved.__enter__()
                warnings.simplefilter("ignore")
            self._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._saved.__exit__(kind, error, trace)


_QUIET = _Quiet()
