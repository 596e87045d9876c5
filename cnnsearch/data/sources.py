"""From what the user asked for to a list of images."""

from __future__ import annotations

import functools
import os
from pathlib import Path

from PIL import Image

from cnnsearch.data import fashion_mini
from cnnsearch.data.examples import Example, Listing, PixelContent
from cnnsearch.data.folders import list_folder
from cnnsearch.data.torchvision_sets import OFFICIAL, PREFIX, list_torchvision

FASHION_MINI = "fashion-mini"


def list_source(source: str, cache: Path) -> Listing:
    """The images of a source.

    Args:
        source: fashion-mini, torchvision:NAME, or the path of a folder (`./fashion-mini` is a folder, too).
        cache: folder for what is downloaded.

    Raises:
        DataError: there is no such source, or no usable images in it.
    """
    if source == FASHION_MINI:
        return list_fashion_mini()
    if source.startswith(PREFIX):
        return list_torchvision(source, cache / "torchvision")
    return list_folder(source, known=(FASHION_MINI, *(PREFIX + name for name in OFFICIAL)))


def identity(source: str) -> str:
    """What a source's index is kept under: the same for every way to write the path of a folder."""
    if source == FASHION_MINI or source.startswith(PREFIX):
        return source
    return os.path.realpath(os.path.expanduser(source))


def list_fashion_mini() -> Listing:
    """The embedded images: of each class 70 of the official training images, then 100 of the official test images."""
    images = fashion_mini.images()
    examples = tuple(
        Example(
            f"{name}/{row:03}.png", label, None, PixelContent(functools.partial(Image.fromarray, images[label, row]))
        )
        for label, name in enumerate(fashion_mini.CLASSES)
        for row in range(images.shape[1])
    )
    return Listing(FASHION_MINI, fashion_mini.CLASSES, examples)
