"""Paths as people type them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from cnnsearch.errors import RequestError
from cnnsearch.words import listed, printable


def typed_path(text: Path | str) -> Path:
    """Return a path with `~` or `~user` at its start replaced by that home folder, wherever a shell has not done so.

    The home of a user who is not known stays as it is.
    """
    return Path(os.path.expanduser(text))


def file_to_write(out: str, endings: Sequence[str]) -> Path:
    """The file that `--out` names, which has one of these endings, in a folder that is made if it is missing.

    Raises RequestError where its ending is another, or it cannot be written.
    """
    file = typed_path(out)
    if file.suffix.lower() not in endings:
        allowed = "is a file that ends" if len(endings) == 1 else "are files that end"
        raise RequestError(f"--out {printable(out)}: allowed {allowed} in {listed(list(endings), 'or')}")
    if file.is_dir():
        raise RequestError(f"--out {printable(out)} is a folder: give a file in it")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"--out {printable(out)} cannot be written: {error.strerror}") from None
    return file


def write_new(file: Path, text: str) -> None:
    """Write a file of text that is not there yet. Raises RequestError where it is, or cannot be written."""
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError:
        raise RequestError(
            f"{file} is there already, and nothing is overwritten; give another name with --out"
        ) from None
    except OSError as error:
        raise RequestError(f"--out {file} cannot be written: {error.strerror or error}") from None
