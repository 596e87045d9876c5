"""Standard output and standard error that never end a run, whatever they are connected to.

A run lasts for hours, and what it prints is not its result. A character that the encoding of the output lacks is
written as an escape, such as \\xd7. What cannot be written at all is lost, and the command says so at its end.
"""

from __future__ import annotations

import errno
import io
import sys
from typing import Any, TextIO


class _File(io.FileIO):
    """A file that takes everything; `failure` is the first error of writing."""

    failure: OSError | None = None

    def write(self, content: Any) -> int | None:  # type: ignore[override]
        try:
            return super().write(content)
        except OSError as error:
            self.failure = self.failure or error
            return memoryview(content).nbytes


class Output:
    """The output streams of this process from now on, in place of Python's own. A closed one stays closed."""

    def __init__(self) -> None:
        self._out: _File | None = None
        if sys.stdout is not None:
            self._out = _File(1, "w", closefd=False)
            sys.stdout = _text(self._out, sys.stdout)
        if sys.stderr is not None:
            sys.stderr = _text(_File(2, "w", closefd=False), sys.stderr)

    def loss(self) -> str:
        """Why standard output is incomplete, for people; empty if it is whole, or if its reader did not want more."""
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        failure = self._out.failure if self._out else None
        return "" if failure is None or failure.errno == errno.EPIPE else failure.strerror or str(failure)


def _text(file: _File, before: TextIO) -> TextIO:
    before.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(file), before.encoding, errors="backslashreplace", line_buffering=bool(before.line_buffering)
    )
