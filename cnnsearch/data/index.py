"""An index of the hashes of files and of contents that are not images, so that unchanged files are not read again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from cnnsearch.data.images import DECODER, BadImageError
from cnnsearch.errors import DiskError
from cnnsearch.storage.checksums import sealed, unsealed
from cnnsearch.storage.durable import write_whole

MAX_FILE_BYTES = 1 << 30
"""Files larger than this are refused unread: no image to train on is that large."""

_VERSION = 2
_SETTLED_NS = 20_000_000
"""A file that changed less than this many nanoseconds before it was hashed is not remembered: it could change again
within the same tick of the file system's clock."""


class UnreadableError(BadImageError):
    """A file that cannot be read now, which says nothing about its contents."""


class Index:
    """The files of one source: (path, size, modification time, change time) -> SHA-256, and SHA-256 -> why it is bad.

    Nothing is lost without it: a missing, foreign or damaged index file counts as empty. `digest` may be called from
    several threads.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files, self._bad, self._greys = _read(path)
        self._changed = False

    @classmethod
    def of_source(cls, folder: Path, source: str) -> Index:
        """Open the index of a source.

        Args:
            folder: where indices are kept.
            source: what identifies the source; for a folder, its absolute path.
        """
        key = hashlib.sha256(os.fsencode(source)).hexdigest()[:32]
        return cls(folder / f"{key}.index")

    def knows(self, key: str) -> bool:
        """Whether contents were hashed before: of a file, or of a part of one by its `inner_key`."""
        return key in self._files

    def digest(
        self,
        path: str,
        number: int = 0,
        fetch: Callable[[], bytes] | None = None,
        *,
        keep: Callable[[bytes], None] | None = None,
    ) -> str:
        """Return the SHA-256 of a file's contents, 64 hex digits, without reading a file that has not changed.

        Args:
            path: of the file.
            number: which part of it, if `fetch` is given.
            fetch: reads the part that is hashed instead of the whole file.
            keep: is given the contents, if they had to be read.

        Raises:
            UnreadableError: the path is not a regular file, or the file is too large or cannot be read.
            BadImageError: `fetch` raised it.
        """
        key = path if fetch is None else inner_key(path, number)
        try:
            facts = os.stat(path)
            _refuse_odd(facts, is_image=fetch is None)
            signature = (facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
            known = self._files.get(key)
            if known is not None and known[:3] == signature:
                return known[3]
            started = time.time_ns()
            if fetch is not None or keep is not None:
                data = Path(path).read_bytes() if fetch is None else fetch()
                digest = hashlib.sha256(data).hexdigest()
                if keep is not None:
                    keep(data)
            else:
                with open(path, "rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise UnreadableError(f"cannot be read ({error.strerror})") from None
        if started - max(signature[1:]) > _SETTLED_NS:
            self._files[key] = (*signature, digest)
            self._changed = True
        return digest

    def why_bad(self, digest: str) -> str | None:
        """Return why contents could not be decoded; None if they could, or were never tried."""
        return self._bad.get(digest)

    def remember_bad(self, digest: str, reason: str) -> None:
        """Remember that this version's decoder refuses these contents."""
        self._bad[digest] = reason
        self._changed = True

    def greys(self, digest: str, look: Callable[[], tuple[int, int] | None]) -> tuple[int, int] | None:
        """Return the lowest and highest value of 16-bit grey contents, None for others; `look` once, and remember."""
        if digest not in self._greys:
            self._greys[digest] = look()
            self._changed = True
        return self._greys[digest]

    def save(self, keys: Iterable[str]) -> None:
        """Write the index if anything was added, with these only: paths, and keys of `inner_key`.

        A failure to write is ignored.
        """
        if not self._changed:
            return
        listed = set(keys)
        rows = [(path, *entry) for path, entry in self._files.items() if path in listed]
        files = [*zip(*rows, strict=True)] if rows else [()] * 5  # columns, which are read in half the time
        learnt = {"version": _VERSION, "recipe": DECODER, "files": files, "bad": self._bad, "greys": self._greys}
        with contextlib.suppress(OSError, DiskError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._path, sealed(json.dumps(learnt).encode()))
            self._changed = False


def read_unchanged(path: str, digest: str) -> bytes:
    """Read the contents of a file that must still hash to `digest`.

    Raises:
        UnreadableError: the contents hash to something else, or cannot be read.
    """
    data = read_regular(path)
    refuse_changed(data, digest)
    return data


def refuse_changed(data: bytes, digest: str) -> None:
    """Raise UnreadableError where bytes do not hash to `digest`."""
    if hashlib.sha256(data).hexdigest() != digest:
        raise UnreadableError("changed while it was being read")


def inner_key(path: str, number: int) -> str:
    """What an index knows a part of a file by; no path has a NUL."""
    return f"{path}\0{number}"


def read_regular(path: str) -> bytes:
    """Read the contents of a regular file that is not too large to be an image.

    Raises:
        UnreadableError: the path is not a regular file, or the file is too large or cannot be read.
    """
    try:
        _refuse_odd(os.stat(path))
        return Path(path).read_bytes()
    except OSError as error:
        raise UnreadableError(f"cannot be read ({error.strerror})") from None


def _refuse_odd(facts: os.stat_result, *, is_image: bool = True) -> None:
    if not stat.S_ISREG(facts.st_mode):
        raise UnreadableError("is not a regular file")
    if is_image and facts.st_size > MAX_FILE_BYTES:
        raise UnreadableError(f"has {facts.st_size:,} bytes; the limit is {MAX_FILE_BYTES:,}")


_Files = dict[str, tuple[int, int, int, str]]
_Greys = dict[str, tuple[int, int] | None]


def _read(path: Path) -> tuple[_Files, dict[str, str], _Greys]:
    """Read an index file: its files, its bad contents and the greys of contents; nothing where it is not whole."""
    try:
        content = unsealed(path.read_bytes())
        stored = json.loads(bytes(content)) if content is not None else {}
    except OSError:
        stored = {}
    if stored.get("version") != _VERSION:
        return {}, {}, {}
    paths, *facts = stored["files"]
    return (
        dict(zip(paths, zip(*facts, strict=True), strict=True)),
        # Another version of the decoder may read what that one refused.
        stored["bad"] if stored["recipe"] == DECODER else {},
        {digest: (ends[0], ends[1]) if ends else None for digest, ends in stored["greys"].items()},
    )
