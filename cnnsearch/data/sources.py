"""Every kind of source by the name a user gives: the embedded images, torchvision's data sets, and folders."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Literal

from PIL import Image

from cnnsearch.data import fashion_mini
from cnnsearch.data.examples import Example, Listing, PixelContent
from cnnsearch.data.folders import list_folder
from cnnsearch.data.torchvision_sets import OFFICIAL, PREFIX, list_torchvision

FASHION_MINI = "fashion-mini"


def list_source(
    source: str, cache: Path, *, layout: Literal["auto", "classes"] = "auto", follow_links: bool = False
) -> Listing:
    """List the images of a source.

    Args:
        source: fashion-mini, torchvision:NAME, or the path of a folder (`./fashion-mini` is a path).
        cache: folder for downloads.
        layout: see `list_folder`.
        follow_links: see `list_folder`.

    Raises:
        DataError: there is no such source, or no usable images in it.
    """
    if source == FASHION_MINI:
        return list_fashion_mini()
    if source.startswith(PREFIX):
        return list_torchvision(source, cache / "torchvision")
    known = (FASHION_MINI, *(PREFIX + name for name in OFFICIAL))
    return list_folder(source, known, layout=layout, follow_links=follow_links)


def identity(source: str) -> str:
    """Return what identifies a source in the cache: for a folder its real path, however it was written."""
    if source == FASHION_MINI or source.startswith(PREFIX):
        return source
    return os.path.realpath(os.path.expanduser(source))


def list_fashion_mini() -> Listing:
    """List the embedded images: of each class, 70 of the official training set, then 100 of the official test set."""
    images = fashion_mini.images()
    examples = tuple(
        Example(
            f"{name}/{row:03}.png", label, None, PixelContent(functools.partial(Image.fromarray, images[label, row]))
        )
        for label, name in enumerate(fashion_mini.CLASSES)
        for row in range(images.shape[1])
    )
    return Listing(FASHION_MINI, fashion_mini.CLASSES, examples)
