"""How processes that train take memory from the kernel. Settings of glibc; with another C library nothing changes.

Every training step allocates and frees the same hundreds of megabytes. By default glibc returns them to the kernel,
which zeroes them and hands them out again page by page: a fifth of a step of this package's own models at 64×64.
"""

from __future__ import annotations

import contextlib
import ctypes
import os

_LARGE_PAGES = "glibc.malloc.hugetlb=1"
_LIBC: ctypes.CDLL | None = None
"""The C library of this process; None where it cannot be had without its name, as on Windows."""
with contextlib.suppress(OSError, TypeError):
    _LIBC = ctypes.CDLL(None)
_M_MMAP_MAX, _M_TRIM_THRESHOLD = -4, -1  # malloc.h


def environment() -> dict[str, str]:
    """Return environment variables for a new process: large pages, which a process can only ask for as it starts."""
    others = os.environ.get("GLIBC_TUNABLES")
    if others and "hugetlb" in others:
        return {}
    return {"GLIBC_TUNABLES": f"{others}:{_LARGE_PAGES}" if others else _LARGE_PAGES}


def keep_memory() -> None:
    """Make this process keep memory that it frees from now on; what it holds unused now goes back to the kernel."""
    if _LIBC is None or not hasattr(_LIBC, "mallopt"):
        return
    _LIBC.mallopt(_M_MMAP_MAX, 0)
    _LIBC.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    _LIBC.malloc_trim(0)
