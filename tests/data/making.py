"""Makes real image files for the tests."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def picture(number: int, side: int = 12) -> Image.Image:
    """A small RGB image that no other number gives."""
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (side, side, 3)).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def fill_folder(root: Path, counts: Mapping[str, int], first: int = 0) -> Path:
    """`counts` PNGs in each sub-folder (which may be nested: "train/cat"), all different."""
    number = first
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for row in range(count):
            picture(number).save(root / name / f"{row:03}.png")
            number += 1
    return root


def settle() -> None:
    """Wait until files are old enough to be remembered by an index."""
    time.sleep(0.05)
