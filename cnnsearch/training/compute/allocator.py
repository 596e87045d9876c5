"""How processes that train take memory from the kernel. Of glibc; elsewhere nothing is changed.

A training step takes and gives back the same hundreds of megabytes again and again. Left alone, the C library returns
them to the kernel, which hands them out anew, page by page and zeroed: a fifth of a step of part 1's models at 64×64.
"""

from __future__ import annotations

import ctypes
import os

_LARGE_PAGES = "glibc.malloc.hugetlb=1"
_LIBC = ctypes.CDLL(None)
_M_MMAP_MAX, _M_TRIM_THRESHOLD = -4, -1  # malloc.h


def environment() -> dict[str, str]:
    """For processes to be started: large pages, which a process can only ask for as it starts."""
    others = os.environ.get("GLIBC_TUNABLES")
    if others and "hugetlb" in others:
        return {}
    return {"GLIBC_TUNABLES": f"{others}:{_LARGE_PAGES}" if others else _LARGE_PAGES}


def keep_memory() -> None:
    """Have this process keep what it gives back from now on; what it holds unused is returned to the kernel."""
    if not hasattr(_LIBC, "mallopt"):
        return
    _LIBC.mallopt(_M_MMAP_MAX, 0)
    _LIBC.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    _LIBC.malloc_trim(0)
