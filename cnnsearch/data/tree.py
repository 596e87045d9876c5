"""Walks one class folder: its image files, what is not an image, and links that may not be followed."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from cnnsearch.data.wording import decoded, printable

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Extensions of files taken as images, whatever their case."""

_JUNK = {"thumbs.db", "desktop.ini", "__macosx"}
"""Names that systems leave in folders, in lower case."""


@dataclass
class Found:
    """What walking folders found. Names are relative to the source's root, with "/" between parts."""

    images: list[tuple[str, str]] = field(default_factory=list)
    """(name, path) of each image file, in the order of names."""
    ignored: list[str] = field(default_factory=list)
    """Names of what is not an image by its name: other extensions, hidden files, litter of systems."""
    loose: list[str] = field(default_factory=list)
    """Names of images that lie in no class folder."""
    problems: list[tuple[str, str]] = field(default_factory=list)
    """(name, reason) of what cannot be used."""


def is_image_name(name: str) -> bool:
    """Whether a file name has the extension of an image."""
    return os.path.splitext(name)[1].lower() in EXTENSIONS


def is_litter(name: str) -> bool:
    """Whether a name is hidden or one that systems leave in folders."""
    return name.startswith(".") or name.lower() in _JUNK


def link_problem(path: str, root: str) -> str | None:
    """Why a symbolic link may not be followed, to be read after its name; None where it may or is no link.

    Args:
        path: what may be a link.
        root: the source's real path, which links must not leave.
    """
    if not os.path.islink(path):
        return None
    if not os.path.exists(path):
        return "is a link to nothing"
    real = os.path.realpath(path)
    return None if _inside(real, root) else f"is a link to {printable(decoded(real))}, outside the data"


def walk(folder: str, name: str, root: str, found: Found) -> None:
    """Add everything under one class folder to `found`.

    Image files are sorted by their path below the folder, by code point, so 10.png comes before 2.png. Sub-folders are
    walked too. A link to a folder is followed once, and not at all where it leads back to a folder it lies in.

    Args:
        folder: path of the class folder.
        name: its name relative to the source's root.
        root: the source's real path.
        found: what is added to.
    """
    images: list[tuple[str, str]] = []
    seen = {os.path.realpath(folder)}
    waiting = [(folder, "")]
    while waiting:
        where, prefix = waiting.pop()
        try:
            entries = sorted(os.listdir(where))
        except OSError as error:
            found.problems.append((decoded(f"{name}/{prefix}".rstrip("/")), f"cannot be opened ({error.strerror})"))
            continue
        for entry in entries:
            path, below = os.path.join(where, entry), f"{prefix}{entry}"
            kind = _kind(path, entry)
            if kind == "ignored":
                found.ignored.append(decoded(f"{name}/{below}"))
            elif problem := link_problem(path, root):
                found.problems.append((decoded(f"{name}/{below}"), problem))
            elif kind == "image":
                images.append((below, path))
            elif _leads_back(path, where) or (real := os.path.realpath(path)) in seen:
                found.ignored.append(decoded(f"{name}/{below}/"))
            else:
                seen.add(real)
                waiting.append((path, f"{below}/"))
    found.images.extend((decoded(f"{name}/{below}"), path) for below, path in sorted(images))


def _kind(path: str, entry: str) -> str:
    if is_litter(entry):
        return "ignored"
    if os.path.isdir(path):
        return "folder"
    return "image" if is_image_name(entry) else "ignored"


def _leads_back(path: str, where: str) -> bool:
    return os.path.islink(path) and _inside(os.path.realpath(where), os.path.realpath(path))


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
