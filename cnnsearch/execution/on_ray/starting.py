"""Starts Ray on this machine: once more where it was too slow, with a deadline, and with the cause where it fails."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cnnsearch.errors import CnnsearchError, RunError
from cnnsearch.execution.warden import Warden
from cnnsearch.systems import files, processes

START_SECONDS = 100.0
"""Seconds in which Ray has to start; it takes 3 to 15."""
STOP_SECONDS = 60.0
"""Seconds in which it has to end."""
AFTER_SIGNAL_SECONDS = 5.0
"""Seconds that are left for its start once the run was told to stop."""
LEAST_BYTES, LEAST_FILES = 50 * 1024**2, 500
"""What Ray needs in the temporary folder."""
ADVICE = "The same command tries again; with --serial it runs without Ray, one trial at a time."


def start(ray_init: Callable[[], Any], clean_up: Callable[[], None], folder: Path, warden: Warden | None) -> Any:
    """Start Ray, and return what `ray_init` returns.

    Args:
        ray_init: starts it.
        clean_up: ends what a failed start left.
        folder: temporary folder that Ray writes to.
        warden: ends the run if it does not start and does not fail either.

    Raises RunError where it cannot be started.
    """
    with _deadline(warden), _stderr_closed():
        for is_last in (False, True):
            try:
                return ray_init()
            except CnnsearchError:
                raise
            except Exception as error:
                clean_up()
                if is_last or not _was_too_slow(error):
                    raise RunError(f"Ray did not start: {_cause(error, folder)}\n{ADVICE}") from None
    raise AssertionError  # the loop returns or raises


def stopping(warden: Warden | None) -> contextlib.AbstractContextManager[None]:
    """Have the run ended if Ray does not end during the block."""
    words = f"error: Ray did not end within {STOP_SECONDS:.0f} s; what is finished is kept."
    return warden.expecting(STOP_SECONDS, words) if warden else contextlib.nullcontext()


def _deadline(warden: Warden | None) -> contextlib.AbstractContextManager[None]:
    """Have the run ended if the block takes too long: while Ray waits for one of its processes, nothing else runs."""
    words = f"error: Ray did not start: nothing has come of it within {START_SECONDS:.0f} s, or it was told to stop.\n"
    if warden is None:
        return contextlib.nullcontext()
    return warden.expecting(START_SECONDS, words + ADVICE, AFTER_SIGNAL_SECONDS)


@contextlib.contextmanager
def _stderr_closed() -> Iterator[None]:
    """Let nothing through to standard error: Ray's own lines say less than the error that follows them."""
    try:
        kept = os.dup(2)
    except OSError:  # there is none
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _was_too_slow(error: Exception) -> bool:
    return isinstance(error, TimeoutError) or bool(re.search(r"timed? ?out|took too long", str(error), re.IGNORECASE))


def _cause(error: Exception, folder: Path) -> str:
    """Say in one sentence why Ray did not start, as far as one can tell."""
    told = str(error)
    if isinstance(error, MemoryError) or "Cannot allocate memory" in told:
        return "there is not enough memory. Close other programs, or raise its limit (ulimit -v)."
    if re.search(r"Resource temporarily unavailable|can't start new thread|Errno 11\b", told):
        limit = processes.limit("RLIMIT_NPROC")
        most = "" if limit is None else f", now {limit:,}"
        return f"it may start no more processes or threads. Raise their limit (ulimit -u{most}), or end some."
    if re.search(r"Too many open files|Errno 24\b", told):
        limit = processes.limit("RLIMIT_NOFILE")
        most = "" if limit is None else f", now {limit:,}"
        return f"it may open no more files. Raise their limit (ulimit -n{most})."
    with contextlib.suppress(OSError):
        if files.free_bytes(folder) < LEAST_BYTES:
            return f"{folder.parent} is full. Free {LEAST_BYTES // 1024**2} MB there."
        if (left := files.free_files(folder)) is not None and left < LEAST_FILES:
            return f"{folder.parent} has no room for more files (inodes). Remove some there."
    if _was_too_slow(error):
        return "it timed out twice. This machine may be too busy: try again when less runs on it."
    last = next((line.strip() for line in reversed(told.splitlines()) if line.strip()), type(error).__name__)
    return f"{type(error).__name__}: {last[:300]}"
