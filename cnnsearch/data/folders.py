"""A folder of images as a source: one sub-folder for each class, or train/, val/ and test/ with such sub-folders."""

from __future__ import annotations

import contextlib
import difflib
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cnnsearch.data.examples import Example, FileContent, Listing
from cnnsearch.data.parts import inner_folders, is_litter, quoted, split_folders, text
from cnnsearch.errors import DataError
from cnnsearch.storage.paths import typed_path
from cnnsearch.words import LISTED, decoded, listed, plural, shortened

_REASONS = 4
"""Unusable files named where there is only one class."""


def list_folder(
    source: str,
    known: Sequence[str] = (),
    *,
    layout: Literal["auto", "classes"] = "auto",
    follow_links: bool = False,
) -> Listing:
    """List the images of a folder.

    Classes, and the files of a class, are in the order of their names by Unicode code point. If the sub-folders are
    train/, val/ and test/ or train/ and test/, or are called something like it (see `parts`), each of them holds one
    sub-folder for each class.

    Args:
        source: path of the folder.
        known: names of other sources, to suggest one if there is no such folder.
        layout: "classes": the sub-folders are classes, whatever their names.
        follow_links: whether links may lead out of the folder.

    Raises:
        DataError: there is no such folder, it has no images or only one class, its splits have different classes, or
            it cannot be told whether its sub-folders are splits or classes.
    """
    root = typed_path(source)
    _refuse_missing(source, root, known)
    real, found = ANYWHERE if follow_links else os.path.realpath(root), Found()
    folders = _sub_folders(str(root), "", real, found)
    parts = None if layout == "classes" else split_folders(source, root, folders)
    if parts is None:
        classes = folders
        examples = _examples(str(root), "", folders, None, real, found)
    else:
        of_part = {part: _sub_folders(str(root / name), f"{name}/", real, found) for part, name in parts.items()}
        _refuse_other_classes(of_part, parts)
        classes = of_part["train"]
        examples = [
            example
            for part, name in parts.items()
            for example in _examples(str(root / name), f"{name}/", classes, part, real, found)
        ]
    _refuse_too_little(source, root, classes, examples, found)
    return Listing(
        source,
        tuple(decoded(name) for name in classes),
        tuple(examples),
        tuple(parts or ()),
        tuple(found.problems),
        (*look_alike(classes), *_warnings(found)),
    )


def _examples(
    folder: str, prefix: str, classes: Sequence[str], part: str | None, real: str, found: Found
) -> list[Example]:
    """List the examples of a folder of class folders, class by class."""
    examples = []
    for label, name in enumerate(classes):
        start = len(found.images)
        walk(os.path.join(folder, name), f"{prefix}{name}", real, found)
        examples += [Example(name, label, part, FileContent(path)) for name, path in found.images[start:]]
    return examples


def _sub_folders(folder: str, prefix: str, real: str, found: Found) -> list[str]:
    """Return the names of the sub-folders, sorted; note the other entries in `found`."""
    try:
        entries = sorted(os.listdir(folder))
    except OSError as error:
        raise DataError(f"{text(folder)} cannot be opened ({error.strerror}).") from None
    folders = []
    for entry in entries:
        path = os.path.join(folder, entry)
        if is_litter(entry) or not (os.path.isdir(path) or is_image_name(entry)):
            found.ignored.append(decoded(prefix + entry))
        elif not os.path.isdir(path):
            found.loose.append(decoded(prefix + entry))
        elif problem := link_problem(path, real):  # never skipped, since that would drop a whole class
            raise DataError(f"{text(path)} {problem}.\n{FOLLOW}")
        else:
            folders.append(entry)
    return folders


def _refuse_other_classes(of_part: dict[str, list[str]], names: dict[str, str]) -> None:
    train = of_part["train"]
    shown = _told_apart({name for classes in of_part.values() for name in classes})
    lines = []
    for part, classes in of_part.items():
        lines += [
            f'{names[part]}/ has no folder for class "{shown[name]}", which {names["train"]}/ has.'
            for name in train
            if name not in classes
        ]
        lines += [
            f'{names[part]}/ has a folder for class "{shown[name]}", which {names["train"]}/ has not.'
            for name in classes
            if name not in train
        ]
    if lines:
        raise DataError("\n".join(shortened(lines, "difference")))


def _refuse_missing(source: str, root: Path, known: Sequence[str]) -> None:
    try:
        if source.strip() and root.is_dir():
            return
        exists = bool(source.strip()) and root.exists()
        siblings = [] if exists else [entry.name for entry in root.parent.iterdir() if entry.is_dir()]
    except (OSError, ValueError):  # no access, a NUL in the name, no such parent
        exists, siblings = False, []
    if exists:
        raise DataError(
            f"{text(source)} is a file, not a folder; unpack it if it is an archive.\n"
            "Files that are read as they are: tables (.csv, .tsv, .parquet), .parquet with images in it, and .tar."
        )
    near = difflib.get_close_matches(root.name, siblings, 1)
    candidates = [str(Path(source).parent / near[0])] if near else []
    folded = {name.rpartition(":")[2].lower(): name for name in known} | {name.lower(): name for name in known}
    candidates += [folded[close] for close in difflib.get_close_matches(source.lower(), folded, 1)]
    hint = f" Did you mean {text(candidates[0])}?" if candidates else ""
    raise DataError(
        f"no folder {text(source) or '(empty name)'}.{hint}\n"
        "Images come from a folder with one sub-folder per class, a table (.csv, .tsv, .parquet), files that hold them "
        "(.parquet, .tar), fashion-mini, or torchvision:NAME."
    )


def _refuse_too_little(
    source: str, root: Path, classes: Sequence[str], examples: Sequence[Example], found: Found
) -> None:
    if not examples and not found.problems:
        where = f"in its {plural(len(classes), 'sub-folder')}" if classes else "for one sub-folder per class"
        looked = f"looked {where} with files named {', '.join('*' + extension for extension in EXTENSIONS)}."
        raise DataError("\n".join([f"no images in {text(source)}: {looked}", *_warnings(found)]))
    if len(classes) < 2:
        name = f', "{text(classes[0])}"' if classes else ""
        lines = [f"{text(source)} has {plural(len(classes), 'class')}{name}; at least two are needed."]
        inner = inner_folders(root / classes[0]) if classes else []
        if len(inner) > 1:
            lines.append(f"It holds {quoted(inner)}: did you mean {text(str(Path(source) / classes[0]))}?")
        lines += [f"{text(name)} {reason}." for name, reason in found.problems[:_REASONS]]
        raise DataError("\n".join(lines))


def _warnings(found: Found) -> tuple[str, ...]:
    """Return one sentence for each kind of entry that is not taken, or not where one would look for it."""
    sentences = []
    if len(found.ignored) == 1:
        sentences.append(f"Ignored 1 entry that is not an image by its name: {text(found.ignored[0])}.")
    elif found.ignored:
        many = f"Ignored {len(found.ignored):,} entries that are not images by their names"
        sentences.append(f"{many}: {_by_extension(found.ignored)}.")
    if len(found.loose) == 1:
        sentences.append(f"Ignored 1 image that lies in no class folder: {text(found.loose[0])}.")
    elif found.loose:
        lie = f"Ignored {len(found.loose):,} images that lie in no class folder"
        sentences.append(f"{lie}, for example {text(found.loose[0])}.")
    if found.nested:
        lie = "lies in a sub-folder of its" if len(found.nested) == 1 else "lie in sub-folders of their"
        sentences.append(f"{plural(len(found.nested), 'image')} {lie} class, for example {text(found.nested[0])}.")
    return tuple(sentences)


def _by_extension(names: Sequence[str]) -> str:
    """Count names by extension, the most frequent first, each with an example: `3 .psd (cat/1.psd), 1 .txt (a.txt)`.

    Names may be of folders, and of what is hidden or left behind by systems.
    """
    kinds: dict[str, list[str]] = {}
    for name in names:
        base = name.rstrip("/").rpartition("/")[2]
        plain = "folder" if name.endswith("/") else os.path.splitext(base)[1].lower() or "without extension"
        kinds.setdefault("hidden or left by a system" if is_litter(base) else plain, []).append(name)
    ordered = sorted(kinds.items(), key=lambda kind: -len(kind[1]))
    shown = [f"{len(some):,} {text(kind)} ({text(some[0])})" for kind, some in ordered[:LISTED]]
    rest = sum(len(some) for _, some in ordered[LISTED:])
    return listed([*shown, f"{rest:,} more"] if rest else shown)


def look_alike(classes: Sequence[str]) -> tuple[str, ...]:
    """Note classes whose names look the same, but for upper and lower case or the way letters are encoded."""
    groups: dict[str, list[str]] = {}
    for name in classes:
        groups.setdefault(unicodedata.normalize("NFC", name).casefold(), []).append(name)
    shown = _told_apart(classes)
    lines = [" and ".join(f'"{shown[name]}"' for name in group) for group in groups.values() if len(group) > 1]
    more = f"; and {len(lines) - LISTED:,} more" if len(lines) > LISTED else ""
    return (f"Classes whose names look alike: {'; '.join(lines[:LISTED])}{more}.",) if lines else ()


def _told_apart(names: Iterable[str]) -> dict[str, str]:
    """Name -> how to show it: with escapes where another one looks the same."""
    looks = Counter(unicodedata.normalize("NFC", name) for name in names)
    plain = {name: text(name) for name in names}
    return {
        name: ascii(shown)[1:-1] if looks[unicodedata.normalize("NFC", name)] > 1 else shown
        for name, shown in plain.items()
    }


FOLLOW = "If it belongs to the data, let links lead out of the folder: --set data.follow_links=true"
"""What to do about a link out of the data."""

EXTENSIONS = (
    *(".avif", ".bmp", ".dib", ".gif", ".heic", ".heif"),
    *(".j2c", ".j2k", ".jfif", ".jif", ".jp2", ".jpc", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx"),
    *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
"""Extensions, in any case, of the files that are taken for images."""
_EXTENSIONS = frozenset(EXTENSIONS)


@dataclass
class Found:
    """What a walk through folders found. Names are relative to the source's root, with "/" between parts."""

    images: list[tuple[str, str]] = field(default_factory=list)
    """(name, path) of each image file, in the order of names."""
    ignored: list[str] = field(default_factory=list)
    """Names of entries that are not taken for images: other extensions, hidden files, what systems leave behind."""
    loose: list[str] = field(default_factory=list)
    """Names of images that lie in no class folder."""
    nested: list[str] = field(default_factory=list)
    """Names of images in a sub-folder of their class, which count to the class."""
    problems: list[tuple[str, str]] = field(default_factory=list)
    """(name, reason) of each entry that cannot be used."""


def is_image_name(name: str) -> bool:
    """Whether a file name has the extension of an image."""
    return name[name.rfind(".") :].lower() in _EXTENSIONS


ANYWHERE = ""
"""In place of a source's real path where links may lead out of it."""
OUTSIDE = "outside the data"
"""Ends the reason why a link out of the source's folder is not used."""


def link_problem(path: str, root: str) -> str | None:
    """Say why a symbolic link may not be followed, worded to follow its name; None if it may, or is no link.

    Args:
        path: an entry that may be a link.
        root: the source's real path, which links must not leave; or `ANYWHERE`.
    """
    if not os.path.islink(path):
        return None
    if not os.path.exists(path):
        return "is a link to nothing"
    real = os.path.realpath(path)
    return None if lies_in(real, root) else f"is linked to {text(real)}, {OUTSIDE}"


def walk(folder: str, name: str, root: str, found: Found) -> None:
    """Add everything under one class folder to `found`.

    Image files are sorted by their path below the folder, by code point, so 10.png comes before 2.png. Sub-folders are
    walked too. A link to a folder is followed once, but never if it leads back to a folder that it lies in, or that the
    class folder lies in.

    Args:
        folder: path of the class folder.
        name: its name relative to the source's root.
        root: the source's real path.
        found: collects the entries.
    """
    images: list[tuple[str, str]] = []
    seen, parent = {os.path.realpath(folder)}, os.path.realpath(os.path.dirname(folder))
    waiting = [(folder, "")]
    while waiting:
        where, prefix = waiting.pop()
        try:
            with os.scandir(where) as listed_entries:
                entries = sorted(listed_entries, key=lambda entry: entry.name)
        except OSError as error:
            found.problems.append((decoded(f"{name}/{prefix}".rstrip("/")), f"cannot be opened ({error.strerror})"))
            continue
        for entry in entries:
            path, below = entry.path, f"{prefix}{entry.name}"
            kind = _kind(entry)
            if kind == "ignored":
                found.ignored.append(decoded(f"{name}/{below}"))
            elif entry.is_symlink() and (problem := link_problem(path, root)):
                found.problems.append((decoded(f"{name}/{below}"), problem))
            elif kind == "image":
                images.append((below, path))
            elif _leads_back(path, where, parent) or (real := os.path.realpath(path)) in seen:
                found.ignored.append(decoded(f"{name}/{below}/"))
            else:
                seen.add(real)
                waiting.append((path, f"{below}/"))
    found.images.extend((decoded(f"{name}/{below}"), path) for below, path in sorted(images))
    found.nested.extend(decoded(f"{name}/{below}") for below, _ in sorted(images) if "/" in below)


def _kind(entry: os.DirEntry[str]) -> str:
    if is_litter(entry.name):
        return "ignored"
    with contextlib.suppress(OSError):  # of a link that leads in a circle
        if entry.is_dir():
            return "folder"
    return "image" if is_image_name(entry.name) else "ignored"


def _leads_back(path: str, *homes: str) -> bool:
    """Whether a link leads to a folder that one of these folders lies in."""
    return os.path.islink(path) and any(lies_in(os.path.realpath(home), os.path.realpath(path)) for home in homes)


def lies_in(path: str, folder: str) -> bool:
    """Whether a real path is a folder, or below it; with `ANYWHERE` it always is."""
    return folder == ANYWHERE or path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
