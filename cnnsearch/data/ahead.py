"""Reads the rows of a mapped array from disk before they are used, where they are not in memory."""

from __future__ import annotations

import mmap
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

WINDOW_BYTES = 64 * 1024**2
"""Bytes that are asked for at a time: many enough for a disk to find an order, few enough to stay in memory."""
_SAMPLES = 32
"""Rows by which it is judged whether the others are in memory."""

Batch = TypeVar("Batch")
Rows = NDArray[np.int64]


class ReadAhead:
    """Reads rows of a mapped array that is larger than memory, in the order in which they lie on the disk.

    Without it, each row that is not in memory stops whoever uses it, and the system reads much around it that is
    dropped before it is used. Nothing is read, and nothing costs time, where all rows are in memory.
    """

    def __init__(self, array: np.memmap[tuple[int, ...], np.dtype[np.uint8]]) -> None:
        """`array`: mapped from a file of this machine, [N, ...]."""
        self._array = array
        self._row_bytes = array[0].nbytes
        self._file = os.open(Path(str(array.filename)), os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    @classmethod
    def of(cls, array: NDArray[np.uint8]) -> ReadAhead | None:
        """Read ahead in an array; None where it is not mapped, or this system cannot be asked to."""
        can = hasattr(os, "posix_fadvise") and hasattr(os, "RWF_NOWAIT")
        return cls(array) if can and isinstance(array, np.memmap) and len(array) else None

    def lacks(self, rows: Rows) -> bool:
        """Whether any of some of these rows is not in memory."""
        return any(not self._is_in_memory(int(row)) for row in rows[:: max(1, len(rows) // _SAMPLES)])

    def through(self, batches: Sequence[Batch], rows_of: Callable[[Batch], Rows]) -> Iterator[Batch]:
        """Yield batches in their order, while the rows of those to come are read.

        Args:
            batches: of an epoch.
            rows_of: batch -> its rows.
        """
        if not len(batches) or not self.lacks(np.concatenate([rows_of(batch) for batch in batches])):
            yield from batches
            return
        if hasattr(mmap, "MADV_RANDOM"):  # what lies around a row is not wanted
            self._array._mmap.madvise(mmap.MADV_RANDOM)  # type: ignore[attr-defined]
        size = max(1, WINDOW_BYTES // (self._row_bytes * max(1, len(rows_of(batches[0])))))
        windows = [batches[start : start + size] for start in range(0, len(batches), size)]
        reading = self._reading(windows[0], rows_of)
        for window, following in zip(windows, [*windows[1:], ()], strict=True):
            reading.join()
            reading = self._reading(following, rows_of)
            yield from window

    def _reading(self, batches: Sequence[Batch], rows_of: Callable[[Batch], Rows]) -> threading.Thread:
        """Ask for the rows of some batches in another thread, which may have to wait for the disk."""
        rows = np.sort(np.concatenate([rows_of(batch) for batch in batches])) if len(batches) else ()

        def ask() -> None:
            for row in rows:
                os.posix_fadvise(self._file, self._start(int(row)), self._row_bytes, os.POSIX_FADV_WILLNEED)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        return thread

    def _is_in_memory(self, row: int) -> bool:
        try:
            return os.preadv(self._file, [bytearray(1)], self._start(row), os.RWF_NOWAIT) == 1
        except BlockingIOError:
            return False
        except OSError:  # a file system that cannot tell
            return True

    def _start(self, row: int) -> int:
        """Where a row begins in the file, bytes."""
        start: int = self._array.offset + row * self._row_bytes
        return start
