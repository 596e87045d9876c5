"""The images to classify, found in what a person gives: files, folders with everything in them, and tables."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cnnsearch.data.examples import FileContent, InnerContent
from cnnsearch.data.folders import ANYWHERE, EXTENSIONS, Found, walk
from cnnsearch.data.rows import Rows
from cnnsearch.data.sources import rows_to_classify
from cnnsearch.errors import RequestError
from cnnsearch.storage.paths import typed_path
from cnnsearch.words import decoded, printable


class Item(NamedTuple):
    """One image to classify."""

    shown: str
    """Its path as the answer names it: as it was given, or below the folder that was given."""
    path: str
    """As the system has it."""
    label: str | None
    """Its class, where a table says it or a folder that it lies in is called like one."""
    problem: str | None = None
    """Why it cannot be used, where that is known without opening it; worded to follow its name."""
    content: FileContent | InnerContent | None = None
    """What to read, where that is not the file at `path`."""


class Listing(NamedTuple):
    """All that was found."""

    items: list[Item]
    ignored: list[str]
    """Names of entries of folders that are not taken for images."""
    has_labels: bool
    """Whether the class of any image is known."""


def listed(paths: Sequence[str | Path], classes: Sequence[str], *, follow_links: bool = False) -> Listing:
    """List the images in files and folders, in the order given, those of a folder by their paths below it.

    Args:
        paths: an image file is taken whatever its name; of a folder, everything in it that is called like an image. A
            table, or a file that holds images (.csv, .tsv, .parquet, .tar), stands for its images in their order.
        classes: names of the classes. An image's label is the first folder with such a name, of the one that is given
            and those below it, or what a table says; that of a file that is given is not known.
        follow_links: whether links in a folder, and paths in a table, may lead out of it.

    Raises RequestError where a path does not exist, or no image is found.
    """
    items: list[Item] = []
    ignored: list[str] = []
    for given in paths:
        path = str(typed_path(given))
        if not os.path.exists(path):
            raise RequestError(
                f"no file or folder {printable(decoded(str(given)))}; give images, folders of them, tables of their "
                "paths (.csv, .tsv, .parquet) or files that hold them (.parquet, .tar)"
            )
        if (
            rows := None if os.path.isdir(path) else rows_to_classify(str(given), follow_links=follow_links)
        ) is not None:
            items += _rows(rows, classes)
            continue
        if not os.path.isdir(path):
            items.append(Item(decoded(str(given)), path, None))
            continue
        found = Found()
        start = str(given).rstrip("/") or "/"
        walk(path, start, ANYWHERE if follow_links else os.path.realpath(path), found)
        ignored += found.ignored
        length = len(decoded(start)) + 1
        own = decoded(os.path.basename(os.path.abspath(path)))  # also of "."
        items += [Item(name, file, _label(f"{own}/{name[length:]}", classes)) for name, file in found.images]
        items += [Item(name, "", _label(f"{own}/{name[length:]}", classes), why) for name, why in found.problems]
    if not items:
        named = ", ".join(printable(decoded(str(path))) for path in paths)
        wanted = ", ".join(f"*{extension}" for extension in EXTENSIONS)
        raise RequestError(f"no images in {named}: looked for files named {wanted}")
    return Listing(items, ignored, any(item.label is not None for item in items))


def _rows(rows: Rows, classes: Sequence[str]) -> list[Item]:
    known, base = set(classes), f"{rows.base.rstrip('/')}/" if rows.base else ""
    return [
        Item(
            f"{base}{name}",
            "",
            rows.labels[row] if rows.labels[row] in known else None,
            rows.problems.get(row),
            rows.content(row),
        )
        for row, name in enumerate(rows.names)
    ]


def _label(path: str, classes: Sequence[str]) -> str | None:
    known = set(classes)
    return next((part for part in path.split("/")[:-1] if part in known), None)
