"""Reading files that strangers may have made: regular files only, no larger and no deeper than they ought to be.

A FIFO or a device could keep a reader waiting for ever, and a link could lead anywhere. So a file is opened without
waiting, its kind is looked at before its first byte is read, and the last part of its path may be a link only where
a caller says so.
"""

from __future__ import annotations

import errno
import io
import json
import math
import os
import stat
from pathlib import Path
from typing import Any, NoReturn

from cnnsearch.systems import files
from cnnsearch.words import printable

MOST_BYTES = 512 * 2**20
"""Most bytes of a file that is read whole: the names of ten million examples."""
MOST_DEPTH = 32
"""Most levels of lists and objects in JSON; files of ours have five."""
_LARGEST = 2**63
"""Whole numbers from here on fit no column of a table."""

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def opened(path: Path, *, follow: bool = False) -> io.BufferedReader:
    """Open a regular file for reading.

    Args:
        path: of the file.
        follow: whether it may be a link to one.

    Raises:
        OSError: there is none; `strerror` says what there is instead.
    """
    try:
        handle = files.open_file(path, os.O_RDONLY, follow=follow)
    except OSError as error:
        if error.errno == errno.ELOOP:
            _refuse(path, "it is a link")
        if error.errno == errno.ENXIO:
            _refuse(path, "it is a socket, not a file")
        if error.errno == errno.EACCES and path.is_dir():  # Windows opens none
            _refuse(path, "it is a folder, not a file")
        raise
    if kind := _KINDS.get(stat.S_IFMT(os.fstat(handle).st_mode)):
        os.close(handle)
        _refuse(path, f"it is {kind}, not a file")
    return os.fdopen(handle, "rb")


def read_bytes(path: Path, most: int = MOST_BYTES, *, follow: bool = False) -> bytes:
    """Read what a regular file of at most `most` bytes holds at this moment. Raises OSError; see `opened`."""
    with opened(path, follow=follow) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            _refuse(path, f"it has more than {most:,} bytes")
        return file.read(size)


def read_json(path: Path, most: int = MOST_BYTES, *, names: bool = False) -> Any:
    """Read a JSON file. Raises OSError (see `read_bytes`) or ValueError (see `parsed`, also for `names`)."""
    return parsed(read_bytes(path, most), names=names)


def parsed(content: bytes, *, names: bool = False, gaps: bool = False) -> Any:
    """Parse JSON whose numbers are finite and fit 64 bits, and whose nesting is bounded.

    Args:
        content: UTF-8.
        names: whether it may hold names of files as the system gave them, whose undecodable bytes are half characters.
        gaps: whether it may hold NaN and Infinity, which Python writes though they are no JSON; they become None.

    Raises:
        ValueError: it is not; the message is fit for people.
    """
    try:
        odd = (lambda text: None) if gaps else _no_number
        value = json.loads(content, parse_constant=odd, parse_float=_finite, parse_int=_whole)
    except RecursionError:
        raise ValueError(f"it is nested more than {MOST_DEPTH} deep") from None
    except UnicodeDecodeError:
        raise ValueError("it is not text in UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error.msg}, line {error.lineno}") from None
    level = [value]
    for _ in range(MOST_DEPTH):
        level = [inner for outer in level for inner in _inside(outer) if isinstance(inner, list | dict)]
        if not level:
            break
    else:
        raise ValueError(f"it is nested more than {MOST_DEPTH} deep")
    if not names and b"\\u" in content:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("it holds half a character, which no text can") from None
    return value


def _inside(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"it holds {text}, which is no number")


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"it holds a number out of range: {_short(text)}")
    return value


def _whole(text: str) -> int:
    if len(text) > 20 or not -_LARGEST <= (value := int(text)) < _LARGEST:
        raise ValueError(f"it holds a number out of range: {_short(text)}")
    return value


def _short(text: str) -> str:
    return printable(text if len(text) <= 40 else f"{text[:37]}...")


def _refuse(path: Path, reason: str) -> NoReturn:
    raise OSError(errno.EINVAL, reason, str(path))
