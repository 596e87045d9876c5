"""Every kind of source by the name a user gives: the embedded images, torchvision's data sets, folders, and tables."""

from __future__ import annotations

import functools
import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from PIL import Image

from cnnsearch.data import fashion_mini
from cnnsearch.data.examples import Example, Listing, PixelContent
from cnnsearch.data.folders import list_folder
from cnnsearch.data.tables import DELIMITED, list_tables
from cnnsearch.data.torchvision_sets import OFFICIAL, PREFIX, list_torchvision
from cnnsearch.errors import DataError
from cnnsearch.storage.paths import typed_path
from cnnsearch.words import decoded, listed, printable

FASHION_MINI = "fashion-mini"


def list_source(
    source: str, cache: Path, *, layout: Literal["auto", "classes"] = "auto", follow_links: bool = False
) -> Listing:
    """List the images of a source.

    Args:
        source: fashion-mini, torchvision:NAME, or a path (`./fashion-mini` is one): see `list_path`.
        cache: folder for downloads.
        layout: see `list_folder`.
        follow_links: whether links, and paths in a table, may lead out of the folder.

    Raises:
        DataError: there is no such source, or no usable images in it.
    """
    if source == FASHION_MINI:
        return list_fashion_mini()
    if source.startswith(PREFIX):
        return list_torchvision(source, cache / "torchvision")
    return list_path(source, layout=layout, follow_links=follow_links)


def list_path(source: str, *, layout: Literal["auto", "classes"] = "auto", follow_links: bool = False) -> Listing:
    """List the images of a folder with a sub-folder per class, or of tables.

    Args:
        source: a folder or a file; or several files, as a pattern such as `photos/*.parquet`.
        layout: see `list_folder`.
        follow_links: see `list_source`.

    Raises:
        DataError: there is nothing of that name, or no usable images in it.
    """
    files = _files(source)
    if not files:
        known = (FASHION_MINI, *(PREFIX + name for name in OFFICIAL))
        return list_folder(source, known, layout=layout, follow_links=follow_links)
    endings = sorted({file.suffix.lower() for file in files})
    if len(endings) > 1:
        raise DataError(f"{printable(decoded(source))} has files of several kinds: {listed(endings)}. Give one kind.")
    base = os.path.dirname(source.rstrip("/"))
    return list_tables(source, files, follow_links=follow_links, base=decoded(base))


_ENDINGS = (*DELIMITED, ".parquet")
"""Extensions of the files that hold a data set."""


def _files(source: str) -> Sequence[Path]:
    """Return the files that a source means, by name; none if it is a folder with a sub-folder per class.

    Raises DataError where they are not there.
    """
    path, shown = typed_path(source), printable(decoded(source))
    if "\0" in source or path.is_dir():
        return ()
    if path.suffix.lower() in _ENDINGS and not path.exists() and not glob.has_magic(source):
        raise DataError(f"no file {shown}.")
    if path.suffix.lower() in _ENDINGS and path.exists():
        return (path,)
    if not path.exists() and glob.has_magic(source):
        found = sorted(Path(name) for name in glob.glob(str(path)))
        if not found:
            raise DataError(f"no file is called like {shown}.")
        if odd := [file for file in found if file.suffix.lower() not in _ENDINGS]:
            raise DataError(
                f"{shown}: {printable(decoded(odd[0].name))} is no file of images and labels; allowed: "
                f"{', '.join(f'*{ending}' for ending in _ENDINGS)}."
            )
        return found
    return ()


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
