"""Images of every mode to 8-bit RGB."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def to_rgb(image: Image.Image) -> Image.Image:
    """The image as mode RGB, same size.

    - Transparency of any kind is laid over white.
    - 16-bit greys are divided by 257 and rounded: 65535 becomes 255.
    - 32-bit integer and floating-point greys carry no range, so it is taken from the image: values in 0–1 (floating
      point only), 0–255 and 0–65535 are scaled as such; anything else is stretched from its minimum to its maximum.
      Values that are not finite become the minimum.
    - CMYK, YCbCr, LAB, palettes and 1-bit images are converted by Pillow. Embedded colour profiles are not applied.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):  # older Pillow: 16-bit PNG is I
        grey = (np.asarray(image).astype(np.uint32) + 128) // 257
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        return Image.fromarray(_to_8_bits(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        return _over_white(image)
    return image.convert("RGB")


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
