"""Packs: decoded images of one size in one file that every process maps; and the decoding that fills them.

A pack is NAME.npy, uint8 [N, S, S, 3], and NAME.json with its SHA-256. NAME is a hash of the contents of its images in
their order, of their size and of how they were decoded. So a pack never goes stale, and two processes that make the
same pack at the same time write the same bytes.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cnnsearch.data.examples import Content, stored_order
from cnnsearch.data.images import QUIET, RECIPE, USUAL, BadImageError, Interpolation, Reading
from cnnsearch.data.index import Index, UnreadableError
from cnnsearch.errors import DataError, DiskError
from cnnsearch.storage.durable import put_in_place, remove_abandoned, temporary_file, write_whole


class Packs:
    """The packs of a cache folder whose images were resized with one interpolation."""

    def __init__(self, folder: Path, interpolation: Interpolation = "bilinear", reading: Reading = USUAL) -> None:
        """Open a folder of packs and remove what killed processes left in it.

        Args:
            folder: made if it is missing.
            interpolation: how the images are resized.
            reading: how files become pixels.

        Raises:
            DataError: the folder cannot be written.
        """
        self._reading = reading
        self._interpolation = interpolation
        self._folder = folder.absolute()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _no_room(self._folder, error) from None
        remove_abandoned(self._folder)

    def path(self, digests: Sequence[str], size: int) -> Path:
        """Return the path of the pack of these contents at this size, whether it exists or not."""
        recipe = RECIPE if self._interpolation == "bilinear" else f"{RECIPE}, {self._interpolation}"
        recipe += f", {self._reading.mark}" if self._reading.mark else ""
        facts = json.dumps([recipe, size, list(digests)], separators=(",", ":"))
        return self._folder / f"{hashlib.sha256(facts.encode()).hexdigest()[:32]}-{size}.npy"

    def holds(self, digests: Sequence[str], size: int) -> bool:
        """Whether that pack is there, complete and undamaged. Reads all of it."""
        path = self.path(digests, size)
        try:
            stored = json.loads(_sidecar(path).read_bytes())
            pack = np.load(path, mmap_mode="r", allow_pickle=False)
            shaped = pack.dtype == np.uint8 and pack.shape == (len(digests), size, size, 3) and pack.flags.c_contiguous
            return bool(shaped and stored == _facts(path))
        except (OSError, ValueError, EOFError):
            return False

    def may_hold(self, count: int, size: int) -> bool:
        """Whether there is a pack of so many images at this size, which may be of any contents."""
        return any(
            pack.stat().st_size == _HEADER_BYTES + count * size * size * 3
            for pack in self._folder.glob(f"*-{size}.npy")
        )

    def draft(self, digests: Sequence[str | None], sizes: Sequence[int]) -> Draft:
        """Reserve the space for a pack of these contents at each size; those not hashed yet are None.

        Raises:
            DataError: the disk is full.
        """
        return Draft(self._folder, digests, sizes, self._interpolation, self._reading)

    def keep(self, draft: Draft) -> None:
        """Put a complete draft's packs in their places.

        Raises:
            DataError: they cannot be written.
        """
        try:
            for size, temporary in draft.release().items():
                path = self.path(draft.known_digests(), size)
                facts = _facts(temporary)
                put_in_place(temporary, path)
                write_whole(_sidecar(path), json.dumps(facts).encode())
        except (OSError, DiskError) as error:
            raise _no_room(self._folder, error) from None


class Draft:
    """Unfinished packs of the same contents, one for each size, in temporary files: pixels need not fit in memory."""

    def __init__(
        self,
        folder: Path,
        digests: Sequence[str | None],
        sizes: Sequence[int],
        interpolation: Interpolation = "bilinear",
        reading: Reading = USUAL,
    ) -> None:
        self.interpolation: Interpolation = interpolation
        """How images are to be resized."""
        self.reading = reading
        """How the contents of files are to become pixels."""
        self.digests = list(digests)
        """[N] SHA-256 of the contents of each row; None until it is known."""
        self._arrays: dict[int, NDArray[np.uint8]] = {}
        self._paths: dict[int, Path] = {}
        self._row_of: dict[str, int] = {}
        try:
            for size in sizes:
                self._paths[size] = temporary_file(folder)
                self._arrays[size] = _allocate(self._paths[size], (len(self.digests), size, size, 3))
        except OSError as error:
            self.discard()
            raise _no_room(folder, error) from None

    @property
    def sizes(self) -> list[int]:
        """Sides of the images, pixels."""
        return list(self._arrays)

    def write(self, row: int, digest: str, squares: Sequence[NDArray[np.uint8]]) -> None:
        """Write a row: uint8 [S, S, 3] for each of `sizes`. Different threads may write different rows."""
        for array, square in zip(self._arrays.values(), squares, strict=True):
            array[row] = square
        self.digests[row] = digest
        self._row_of[digest] = row

    def known_digests(self) -> list[str]:
        """[N] SHA-256 of the contents of each row, of a complete draft."""
        return [digest for digest in self.digests if digest is not None]

    def read(self, digest: str, sizes: Sequence[int]) -> list[NDArray[np.uint8]] | None:
        """Return what was written for some contents, uint8 [S, S, 3] for each size; None if it lacks one of them."""
        row = self._row_of.get(digest)
        if row is None or not set(sizes) <= set(self._arrays):
            return None
        return [self._arrays[size][row] for size in sizes]

    def release(self) -> dict[int, Path]:
        """Hand over the finished temporary files: size -> file, which the caller now owns."""
        for array in self._arrays.values():
            array.flush()  # type: ignore[attr-defined]  # a memmap
        paths, self._paths, self._arrays = self._paths, {}, {}
        return paths

    def discard(self) -> None:
        """Remove the files that were not released."""
        self._arrays = {}
        for path in self._paths.values():
            path.unlink(missing_ok=True)
        self._paths = {}


def _allocate(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Map a new .npy with its blocks reserved: writing to a mapped sparse file on a full disk kills the process."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("rb+") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    raise
    return array


_HEADER_BYTES = 128
"""Length of the header of a .npy file, for any shape of at most 32 digits or so (numpy's format 1.0)."""


def _sidecar(path: Path) -> Path:
    return path.with_suffix(".json")


def _facts(path: Path) -> dict[str, object]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _no_room(folder: Path, error: OSError | DiskError) -> DataError:
    reason = error.strerror if isinstance(error, OSError) else error
    return DataError(
        f"decoded images cannot be kept in {folder} ({reason}).\n"
        "Free some space there, or set CNNSEARCH_CACHE to a folder that can be written."
    )


_MAX_THREADS = 16
"""Limit of threads that decode at a time: each holds one decoded image, which may be large."""
_HASHED_AT_ONCE, _DECODED_AT_ONCE = 64, 4
"""Images that a thread hashes, or decodes, before it looks for more: handing over a small one takes as long as that."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def hash_all(contents: Sequence[Content], index: Index, threads: int) -> list[str | BadImageError]:
    """Hash many contents in threads.

    Args:
        contents: [N] what to hash.
        index: knows hashes of unchanged files, and contents that are no images.
        threads: contents hashed at a time, at most 16.

    Returns:
        [N] SHA-256 of each, or why it cannot be used: it is unreadable now, or known to be no image.
    """

    def one(content: Content) -> str | BadImageError:
        try:
            digest = content.digest(index.digest)
        except BadImageError as error:
            return error
        reason = index.why_bad(digest)
        return digest if reason is None else BadImageError(reason)

    some = _some(contents, _HASHED_AT_ONCE)
    parts = in_threads(lambda rows: [(row, one(contents[row])) for row in rows], some, threads)
    digests = dict(found for part in parts for found in part)
    return [digests[row] for row in range(len(contents))]


def _some(contents: Sequence[Content], count: int) -> Iterator[list[int]]:
    """Yield so many rows at a time, in the order in which their contents are read fastest."""
    order = stored_order(contents)
    return (order[start : start + count] for start in range(0, len(order), count))


def decode_all(
    contents: Sequence[Content],
    draft: Draft,
    index: Index,
    threads: int,
    earlier: Draft | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[int, BadImageError]:
    """Fill a draft: decode each content once, for all of its sizes; those whose hash is not known are hashed as well.

    Args:
        contents: [N] what to decode, in the order of the draft's rows.
        draft: what to fill.
        index: knows hashes of unchanged files; remembers which contents turn out to be no images.
        threads: images decoded at a time, at most 16.
        earlier: a draft that already holds some of these contents, which are copied from it.
        on_progress: called in this thread with (done, total) after each image.

    Returns:
        Row -> error, for each row that could not be filled.
    """

    def one(row: int) -> BadImageError | None:
        digest, read = draft.digests[row], list[bytes]()
        try:
            if digest is None:
                digest = contents[row].digest(functools.partial(index.digest, keep=read.append))
                if reason := index.why_bad(digest):
                    return BadImageError(reason)
            done = earlier.read(digest, draft.sizes) if earlier is not None else None
            if done is None:
                done = contents[row].squares(draft.sizes, digest, draft.interpolation, draft.reading, *read)
            draft.write(row, digest, done)
        except UnreadableError as error:
            return error
        except BadImageError as error:
            if digest is not None:
                index.remember_bad(digest, str(error))
            return error
        return None

    failed = {}
    done = 0
    with QUIET:
        for found in in_threads(
            lambda rows: [(row, one(row)) for row in rows], _some(contents, _DECODED_AT_ONCE), threads
        ):
            for row, error in found:
                done += 1
                if error is not None:
                    failed[row] = error
                if on_progress is not None:
                    on_progress(done, len(contents))
    return failed


def in_threads(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int,
    begin: Callable[[], object] = lambda: None,
) -> Iterator[Result]:
    """Yield results in the order of the items. Pillow and hashlib release the interpreter lock while they work.

    Args:
        work: called in one of the threads with each item.
        items: listed at once, so they should be small.
        threads: items at a time, at most 16.
        begin: called in each thread before its first item.
    """
    executor = ThreadPoolExecutor(min(threads, _MAX_THREADS), initializer=begin)
    try:
        yield from executor.map(work, items)
    finally:  # if the caller was interrupted, too: what has not begun is dropped
        executor.shutdown(wait=True, cancel_futures=True)
