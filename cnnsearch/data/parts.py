"""Which sub-folders of a source are splits and which are classes, by their names and by what is in them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from cnnsearch.data.dataset import SPLITS
from cnnsearch.errors import DataError
from cnnsearch.words import decoded, printable

_PLAIN = ("train", "val", "valid", "validation", "test")
"""Names, in lower case, that always mean a split where two of different splits are there."""

_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval", "evaluation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Word in the name of a folder -> the split it means there, if the folder holds only folders."""

_FILLERS = {"", "image", "images", "img", "imgs", "split"}
"""Words that add nothing to the name of a split; "data" and "set" are cut off before."""

_DEEP = 4
"""Most folders that each hold only the next one, and are looked through."""

_NAMED = 4
"""Folder names quoted in one message."""


def split_folders(source: str, root: Path, folders: Sequence[str]) -> dict[str, str] | None:
    """Return split -> its folder, relative to the source, in the order train, val, test; None if these are classes.

    Args:
        source: what the user asked for, for messages.
        root: where the folders are.
        folders: their names.

    Raises:
        DataError: only some of them are splits, or they look like splits but have names that say nothing.
    """
    named = _named(root, folders)
    parts = {part: name for part in SPLITS for meant, name in named if meant == part}
    others = [name for name in folders if name not in {name for _, name in named}]
    if len(parts) < 2 and (others or not named):  # a class may well be called "train"
        _refuse_hidden_splits(source, root, folders)
        return None
    if others:
        raise DataError(
            f"{text(source)} has {quoted(list(parts.values()))} and also {quoted(others)}.\n"
            "Beside train/, val/ and test/ there must be no other folder. If they are all classes, say so: "
            "--set data.layout=classes"
        )
    if len(named) != len(parts):
        raise DataError(f"{text(source)} has {quoted(folders)}: two of them mean the same part.")
    missing = [part for part in ("train", "test") if part not in parts]
    if missing:
        raise DataError(
            f"{text(source)} has {quoted(folders)} but no {missing[0]}/.\n"
            "Give train/, val/ and test/; or train/ and test/; or one sub-folder per class and let data.split divide."
        )
    return {part: _within(root, name) for part, name in parts.items()}


def part_of_word(word: str) -> str | None:
    """Return the split that a word means, such as `validation`; None if it means none."""
    return _WORDS.get(word.strip().lower())


def part_of_file(name: str) -> str | None:
    """Return the split that the name of a file means, such as `train-00000-of-00002.parquet`; None if it means none."""
    return _meaning(os.path.splitext(name)[0])[0]


def inner_folders(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted; none if it cannot be opened."""
    return inside(folder)[0]


def is_litter(name: str) -> bool:
    """Whether a name is hidden, or one that operating systems leave behind."""
    return name.startswith(".") or name.lower() in _JUNK


_JUNK = {"thumbs.db", "desktop.ini", "__macosx"}
"""Names, in lower case, of files and folders that operating systems leave behind."""


def text(name: str) -> str:
    """A name from the system as messages show it."""
    return printable(decoded(name))


def quoted(names: Sequence[str]) -> str:
    """`cat/, dog/ and 3 more`."""
    shown = [f"{text(name)}/" for name in names[:_NAMED]]
    return ", ".join(shown) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _named(root: Path, folders: Sequence[str]) -> list[tuple[str, str]]:
    """Return (split, folder) of those whose names mean a split and are alike but for that: a_train, a_test."""
    alike: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for name in folders:
        part, rest = _meaning(name)
        if part and (name.lower() in _PLAIN or _holds_only_folders(root / name)):
            alike.setdefault(rest, []).append((part, name))
    return max(alike.values(), key=lambda named: len({part for part, _ in named}), default=[])


def _meaning(name: str) -> tuple[str | None, tuple[str, ...]]:
    """Return the split that a name means, if any, and the other words in it."""
    words = [word.removesuffix("set").removesuffix("data") for word in re.findall(r"[^\W\d_]+|\d+", name.lower())]
    parts = [_WORDS[word] for word in words if word in _WORDS]
    return parts[0] if len(parts) == 1 else None, tuple(w for w in words if w not in _WORDS and w not in _FILLERS)


def _within(root: Path, name: str) -> str:
    """Follow seg_train/seg_train/: the folder of the same split that is all there is in a split's folder."""
    below = name
    for _ in range(_DEEP):
        inner = inner_folders(root / below)
        if len(inner) != 1 or _meaning(inner[0])[0] != _meaning(name)[0]:
            break
        below = f"{below}/{inner[0]}"
    return below


def _refuse_hidden_splits(source: str, root: Path, folders: Sequence[str]) -> None:
    """Raise DataError if all folders hold the same folders and nothing else: these are classes, and those splits."""
    shared: list[str] | None = None
    for name in folders:
        where = root / name
        for _ in range(_DEEP):
            inner, files = inside(where)
            if len(inner) != 1 or files:
                break
            where = where / inner[0]
        if len(inner) < 2 or files or (shared is not None and inner != shared):
            return
        shared = inner
    if shared is not None and len(folders) > 1:
        raise DataError(
            f"{text(source)} has {quoted(folders)}, and each of them holds the same folders, {quoted(shared)}.\n"
            "These look like splits, not like classes. If they are splits, call them train/, val/ and test/, or "
            "train/ and test/. If they are classes, say so: --set data.layout=classes"
        )


def _holds_only_folders(folder: Path) -> bool:
    inner, files = inside(folder)
    return bool(inner) and not files


def inside(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of the folders in a folder and of what else it holds, both sorted; without litter.

    Of a folder that cannot be opened nothing is known; it seems to hold one file without a name.
    """
    try:
        with os.scandir(folder) as entries:
            kinds = [(entry.name, entry.is_dir()) for entry in entries if not is_litter(entry.name)]
    except OSError:
        return [], [""]
    folders, others = ([name for name, is_folder in kinds if is_folder is wanted] for wanted in (True, False))
    return sorted(folders), sorted(others)
