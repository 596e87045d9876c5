"""Reads the rows of a mapped array from disk before they are used, where they are not in memory."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cnnsearch.systems.files import can_read_ahead, is_in_memory, read_no_more_than_asked, read_soon

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
        return cls(array) if can_read_ahead() and isinstance(array, np.memmap) and len(array) else None

    def lacks(self, rows: Rows) -> bool:
        """Whether any of some of these rows is not in memory."""
        some = rows[:: max(1, len(rows) // _SAMPLES)]
        return any(not is_in_memory(self._file, self._start(int(row))) for row in some)

    def through(self, batches: Sequence[Batch], rows_of: Callable[[Batch], Rows]) -> Iterator[Batch]:
        """Yield batches in their order, while the rows of those to come are read.

        Args:
            batches: of an epoch.
            rows_of: batch -> its rows.
        """
        if not len(batches) or not self.lacks(np.concatenate([rows_of(batch) for batch in batches])):
            yield from batches
            return
        read_no_more_than_asked(self._array._mmap)  # type: ignore[attr-defined]
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
            with contextlib.suppress(OSError):  # the process ends, or the disk says so to whoever uses the row
                for row in rows:
                    read_soon(self._file, self._start(int(row)), self._row_bytes)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        return thread

    def _start(self, row: int) -> int:
        """Where a row begins in the file, bytes."""
        start: int = self._array.offset + row * self._row_bytes
        return start
