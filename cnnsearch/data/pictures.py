"""Single images for people to look at."""

from __future__ import annotations

import io

from PIL import Image

from cnnsearch.data.dataset import Dataset

MAX_SIDE = 64
"""Largest side of a picture, pixels."""


def png(dataset: Dataset, row: int) -> bytes:
    """One image as the network sees it, as a PNG of at most 64×64 pixels.

    Args:
        dataset: the decoded images.
        row: which one, 0 to N − 1.

    Raises:
        IndexError: no such row.
    """
    if not 0 <= row < len(dataset.labels):
        raise IndexError(f"row {row} of {len(dataset.labels)}")
    image = Image.fromarray(dataset.images[row])
    if image.width > MAX_SIDE:
        image = image.resize((MAX_SIDE, MAX_SIDE), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
