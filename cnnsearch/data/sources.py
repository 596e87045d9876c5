"""Every kind of source by the name a user gives: the embedded images, torchvision's data sets, folders, and tables."""

from __future__ import annotations

import difflib
import functools
import os
from collections.abc import Sequence
from dataclasses import replace
from glob import glob, has_magic
from pathlib import Path
from typing import Literal

from PIL import Image

from cnnsearch.data import fashion_mini
from cnnsearch.data.archives import archive_rows
from cnnsearch.data.examples import Example, Listing, PixelContent
from cnnsearch.data.folders import list_folder
from cnnsearch.data.parts import inside
from cnnsearch.data.rows import DELIMITED, Rows, grouped_by_name
from cnnsearch.data.torchvision_sets import OFFICIAL, PREFIX, list_torchvision
from cnnsearch.errors import DataError
from cnnsearch.storage.paths import typed_path
from cnnsearch.words import decoded, listed, printable

FASHION_MINI = "fashion-mini"


def list_source(
    source: str,
    cache: Path,
    *,
    layout: Literal["auto", "classes"] = "auto",
    follow_links: bool = False,
    group: str | None = None,
) -> Listing:
    """List the images of a source.

    Args:
        source: fashion-mini, torchvision:NAME, or a path (`./fashion-mini` is one): see `list_path`.
        cache: folder for downloads.
        layout: see `list_folder`.
        follow_links: whether links, and paths in a table, may lead out of the folder.
        group: what images of one group have in common: a column of a table, or a pattern in their names. By default
            the column `group`, where there is one.

    Raises:
        DataError: there is no such source, or no usable images in it; or images have no group by this pattern.
    """
    if source == FASHION_MINI:
        listing = list_fashion_mini()
    elif source.startswith(PREFIX):
        listing = list_torchvision(source, cache / "torchvision")
    else:
        listing = list_path(source, layout=layout, follow_links=follow_links, group=group)
    return listing if group is None or listing.has_groups else grouped_by_name(listing, group)


def list_path(
    source: str,
    *,
    layout: Literal["auto", "classes"] = "auto",
    follow_links: bool = False,
    group: str | None = None,
) -> Listing:
    """List the images of a folder with a sub-folder per class, of tables, or of Parquet or .tar files that hold them.

    Args:
        source: a folder (of class folders, or of shards) or a file; or a pattern such as `photos/*.parquet`.
        layout: see `list_folder`.
        follow_links: see `list_source`.
        group: the column of groups of a table; without it, `group`.

    Raises:
        DataError: there is nothing of that name, or no usable images in it.
    """
    files, base = _files(source)
    if not files:
        known = (FASHION_MINI, *(PREFIX + name for name in OFFICIAL))
        return list_folder(source, known, layout=layout, follow_links=follow_links)
    return _rows(source, files, base, follow_links=follow_links, labelled=True, group=group).listing()


def rows_to_classify(file: str, *, follow_links: bool = False) -> Rows | None:
    """Read a file that names or holds many images, with labels or without; None for a file of another kind.

    Raises:
        DataError: it cannot be read, or lacks a column.
    """
    path = typed_path(file)
    if path.suffix.lower() not in _ENDINGS:
        return None
    return _rows(file, [path], os.path.dirname(file), follow_links=follow_links, labelled=False)


def _rows(
    source: str,
    files: Sequence[Path],
    base: str,
    *,
    follow_links: bool,
    labelled: bool,
    group: str | None = None,
) -> Rows:
    endings = sorted({file.suffix.lower() for file in files})
    if len(endings) > 1:
        raise DataError(f"{printable(decoded(source))} has files of several kinds: {listed(endings)}. Give one kind.")
    if endings == [".tar"]:
        found = archive_rows(source, files, base=decoded(base), labelled=labelled)
        return found if group in (None, "group") else replace(found, groups=None)
    from cnnsearch.data.shards import has_images, shard_rows  # Arrow takes a while to import
    from cnnsearch.data.tables import table_rows

    if any(has_images(file) for file in files if file.suffix.lower() == ".parquet"):
        return shard_rows(source, files, base=decoded(base), labelled=labelled, group=group)
    return table_rows(source, files, base=decoded(base), follow_links=follow_links, labelled=labelled, group=group)


_SHARDS = (".parquet", ".tar")
"""Extensions of the files that may hold a data set as a folder of them."""
_ENDINGS = (*DELIMITED, *_SHARDS)
"""Extensions of the files that hold a data set."""


def _files(source: str) -> tuple[Sequence[Path], str]:
    """Return the files that a source means, by name, and their folder; no file if it is a folder of class folders.

    Raises DataError where they are not there.
    """
    path, shown, folder = typed_path(source), printable(decoded(source)), os.path.dirname(source)
    if "\0" in source:
        return (), ""
    if path.is_dir():
        return _shards_in(path, source.rstrip("/") or "/")
    is_pattern = has_magic(source) and not path.exists()
    if path.suffix.lower() in _ENDINGS and not is_pattern:
        if not path.exists():
            raise DataError(f"no file {shown}.{_near(path, source)}")
        return (path,), folder
    if not is_pattern:
        return (), ""
    found = sorted(map(Path, glob(str(path))))
    if not found:
        raise DataError(f"no file is called like {shown}.")
    if odd := [file for file in found if file.suffix.lower() not in _ENDINGS]:
        allowed = ", ".join(f"*{ending}" for ending in _ENDINGS)
        raise DataError(
            f"{shown}: {printable(decoded(odd[0].name))} is no file of images and labels; allowed: {allowed}."
        )
    return found, folder


def _near(path: Path, source: str) -> str:
    """` Did you mean ...?`, if a file is called like one that is not there."""
    try:
        siblings = [entry.name for entry in path.parent.iterdir() if entry.suffix.lower() in _ENDINGS]
    except OSError:
        return ""
    near = difflib.get_close_matches(path.name, siblings, 1)
    return f" Did you mean {printable(decoded(str(Path(source).parent / near[0])))}?" if near else ""


def _shards_in(path: Path, folder: str) -> tuple[Sequence[Path], str]:
    """Return the shards in a folder without sub-folders, or in data/ if that is its only one, and where they are."""
    inner, files = inside(path)
    if inner == ["data"] and inside(path / "data")[0] == []:
        path, folder = path / "data", f"{folder.rstrip('/')}/data"
        inner, files = inside(path)
    return () if inner else tuple(path / name for name in files if Path(name).suffix.lower() in _SHARDS), folder


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
