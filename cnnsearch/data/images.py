"""Decode image files to small squares of RGB pixels, and say in words why a file is refused.

Every image becomes a square by resampling with antialiasing, whatever its shape: the aspect ratio is not kept and
nothing is cropped, as in the assignment this tool comes from. The filter is bilinear unless pretrained weights expect
another.
"""

from __future__ import annotations

import importlib
import io
import logging
import re
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import PIL
from numpy.typing import NDArray

# Imported so that the formats are registered before threads open images: Pillow's own lazy registration is not locked.
from PIL import (
    AvifImagePlugin,  # noqa: F401
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    Image,
    Jpeg2KImagePlugin,  # noqa: F401
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    PpmImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from cnnsearch.data.reasons import damaged, not_an_image, one_line
from cnnsearch.errors import DataError


def _heif_version() -> str | None:
    """Have Pillow open HEIC images, if the extra for it is installed; return its version."""
    try:
        heif = importlib.import_module("pillow_heif")
    except ImportError:
        return None
    heif.register_heif_opener()
    return str(heif.__version__)


_HEIF = _heif_version()

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP", *(["HEIF"] if _HEIF else []))
"""Formats that are decoded by default, whatever a file's extension says."""

MAX_PIXELS = 100_000_000
"""Width times height above which an image is refused before it is decoded."""

Interpolation = Literal["bilinear", "bicubic"]
"""Filters of resampling."""

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

GreyRange = tuple[int, int]
"""Values of 16-bit greys that become black and white."""
FULL: GreyRange = (0, 65535)


@dataclass(frozen=True)
class Reading:
    """How the contents of an image file become pixels, where a data set may choose."""

    grey_range: GreyRange = FULL
    """Of 16-bit greys, the values that become black and white."""
    scales_jpeg: bool = False
    """Whether JPEG files are decoded at 1/2, 1/4 or 1/8 of their size where both sides stay as long as is wanted.

    libjpeg leaves out what such an image does not show: about half the time, and slightly other pixels.
    """

    @property
    def mark(self) -> str:
        """What tells these pixels from those that are read as usual; "" for those."""
        greys = "" if self.grey_range == FULL else f"greys {self.grey_range}"
        return ", ".join(filter(None, [greys, "scaled jpeg" if self.scales_jpeg else ""]))


USUAL = Reading()
"""How images are read unless a data set says otherwise."""
_JPEG = b"\xff\xd8"
"""The first bytes of a JPEG file."""

RECIPE = f"1, Pillow {PIL.__version__}" + (f", pillow-heif {_HEIF}" if _HEIF else "")
"""Identifies how pixels are made from bytes; decoded pixels are cached under it. Raise the number when that changes."""

DECODER = f"{RECIPE}, {' '.join(FORMATS)}"
"""Identifies which bytes are refused; what was refused is remembered under it."""

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
"""EXIF orientation -> the operation that turns the stored pixels upright (EXIF 2.32, section 4.6.4, tag 274)."""

logging.getLogger("PIL").addHandler(logging.NullHandler())  # without a handler, its warnings reach the terminal


class BadImageError(DataError):
    """Content that cannot be used. The message is worded to follow a file name: "is truncated (…)"."""


def decode(
    source: Path | str | bytes,
    sizes: Sequence[int],
    *,
    formats: Sequence[str] = FORMATS,
    interpolation: Interpolation = "bilinear",
    reading: Reading = USUAL,
) -> list[NDArray[np.uint8]]:
    """Decode the first frame of an image, turn it upright, and resize it to each of several sizes.

    Args:
        source: a path, or the contents of a file.
        sizes: sides of the wanted squares, pixels.
        formats: Pillow's names of the formats that may be decoded.
        interpolation: filter to resize with.
        reading: how its contents become pixels.

    Returns:
        For each size S, uint8 [S, S, 3], RGB. It does not depend on the other sizes. The image is decoded once for all
        of them, but for a JPEG that is scaled.

    Raises:
        BadImageError: the content is not an image in one of the formats, has more than MAX_PIXELS pixels, or is
            truncated or damaged.
        OSError: the path cannot be read.
    """
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    with QUIET:
        if reading.scales_jpeg and data.startswith(_JPEG):
            images = [_upright(data, formats, reading, size) for size in sizes]
            return [resized(image, [size], interpolation)[0] for image, size in zip(images, sizes, strict=True)]
        return resized(_upright(data, formats, reading), sizes, interpolation)


def resized(
    image: Image.Image, sizes: Sequence[int], interpolation: Interpolation = "bilinear"
) -> list[NDArray[np.uint8]]:
    """Resize an RGB image to each size S: uint8 [S, S, 3]."""
    return [np.array(image.resize((size, size), _FILTERS[interpolation])) for size in sizes]


def _upright(data: bytes, formats: Sequence[str], reading: Reading, side: int | None = None) -> Image.Image:
    """Decode the first frame as an RGB image, turned as its EXIF orientation says.

    A JPEG is decoded at the smallest scale at which both its sides have `side` pixels, if that is given.
    """
    try:
        with Image.open(io.BytesIO(data), formats=tuple(formats)) as image:
            _check_pixels(image.width * image.height)
            if side is not None:
                image.draft(None, (side, side))
            image.load()
            return upright(image, reading.grey_range)
    except BadImageError:
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit is checked before ours
        _check_pixels(int(re.sub(r"\D", "", str(error).partition("pixels")[0]) or MAX_PIXELS + 1))
        raise
    except UnidentifiedImageError:
        raise BadImageError(not_an_image(data)) from None
    except MemoryError:
        raise BadImageError("needs more memory to decode than there is") from None
    except Exception as error:  # decoders raise a dozen types on damaged bytes; here they all mean the same
        raise BadImageError(damaged(data, str(error))) from None


def upright(image: Image.Image, grey_range: GreyRange = FULL) -> Image.Image:
    """Convert an image to RGB, as `to_rgb` does, and turn it as its EXIF orientation says."""
    rgb, turn = to_rgb(image, grey_range), _UPRIGHT.get(_orientation(image))
    return rgb if turn is None else rgb.transpose(turn)


def _check_pixels(count: int) -> None:
    if count > MAX_PIXELS:
        raise BadImageError(f"has {count:,} pixels; the limit is {MAX_PIXELS:,}")


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1–8; 1 (already upright) if there is none or it cannot be read."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a broken EXIF block does not make the pixels unreadable
        return 1


class _Quiet:
    """A context that silences Pillow's Python warnings while any thread decodes.

    `warnings.catch_warnings` alone is not safe between threads: overlapping exits restore the wrong filters. Here the
    first thread to enter silences warnings, and the last one to leave restores the filters.
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


QUIET = _Quiet()
"""Enter it around the decoding of many images, too: entering it again within is cheap."""


def to_rgb(image: Image.Image, grey_range: GreyRange = FULL) -> Image.Image:
    """Convert an image of any mode to 8-bit RGB of the same size.

    - Transparency of any kind is blended with white.
    - 16-bit greys are scaled from `grey_range`, by default all of it: divided by 257 and rounded.
    - 32-bit integer and floating-point greys do not say what range they use, so it is guessed from the values: all
      within 0–1 (floating point only), 0–255 or 0–65535 are scaled from that range; anything else is stretched from
      its minimum to its maximum. Values that are not finite become the minimum.
    - CMYK, YCbCr, LAB, palettes and 1-bit images are converted by Pillow. Embedded colour profiles are not applied.
    """
    if _is_16_bit(image):
        return Image.fromarray(_scaled(np.asarray(image), grey_range)).convert("RGB")
    if image.mode in ("I", "F"):
        return Image.fromarray(_to_8_bits(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        return _over_white(image)
    return image.convert("RGB")


def _is_16_bit(image: Image.Image) -> bool:
    # Pillow opens 16-bit PGMs, and its older versions 16-bit PNGs, as I.
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))


def _scaled(grey: NDArray[Any], grey_range: GreyRange) -> NDArray[np.uint8]:
    if grey_range == FULL:
        return ((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)
    low, high = grey_range
    return np.rint(np.clip((grey.astype(np.float64) - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def greys(source: Path | str | bytes) -> tuple[int, int] | None:
    """The lowest and highest value of a 16-bit grey image; None for any other, and for what cannot be read."""
    try:
        with QUIET, Image.open(_opened(source), formats=FORMATS) as image:
            if not _is_16_bit(image):
                return None
            _check_pixels(image.width * image.height)
            values = np.asarray(image)
            return int(values.min()), int(values.max())
    except Exception:  # whatever is wrong with it is told where it is decoded
        return None


def shape(source: Path | str | bytes, formats: Sequence[str] = FORMATS) -> tuple[int, int, str]:
    """Width, height and mode of an image file as it is stored, from its header. Raises BadImageError."""
    try:
        with QUIET, Image.open(_opened(source), formats=tuple(formats)) as image:
            return image.width, image.height, image.mode
    except Exception as error:  # as in `decode`, whatever is wrong with it
        raise BadImageError(f"cannot be read ({one_line(str(error))})") from None


def _opened(source: Path | str | bytes) -> Path | str | io.BytesIO:
    return io.BytesIO(source) if isinstance(source, bytes) else source


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":  # Pillow converts La to LA only
        image = image.convert("LA")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def _to_8_bits(values: NDArray[np.int32] | NDArray[np.float32]) -> NDArray[np.uint8]:
    grey = values.astype(np.float64)
    finite = np.isfinite(grey)
    low, high = (float(grey[finite].min()), float(grey[finite].max())) if finite.any() else (0.0, 0.0)
    grey[~finite] = low
    if low < 0 or high > 65535:
        grey = (grey - low) / ((high - low) or 1.0) * 255
    elif high > 255:
        grey /= 257
    elif high <= 1 and values.dtype.kind == "f":
        grey *= 255
    return np.rint(grey).astype(np.uint8)
