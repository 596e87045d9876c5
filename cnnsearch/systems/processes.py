"""Processes, where systems differ: whether one runs, how to start one apart, and what it may use."""

from __future__ import annotations

import _thread
import contextlib
import os
import platform
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psutil

from cnnsearch import systems


def is_running(process: int) -> bool:
    """Whether there is a process with this number, of whichever user."""
    return psutil.pid_exists(process)


def kill(process: int) -> None:
    """End a process at once, if it is there, even one that is stopped and does not respond."""
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(process).kill()


def apart() -> dict[str, Any]:
    """Return arguments for `subprocess.Popen` with which Ctrl-C in a terminal does not reach the new process."""
    own_group = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", None)
    return {"start_new_session": True} if own_group is None else {"creationflags": own_group}


def interrupt_main() -> None:
    """Interrupt the main thread as Ctrl-C would.

    Where threads cannot be sent signals, as on Windows, it notices once it runs Python's code again.
    """
    send: Any = getattr(signal, "pthread_kill", None)
    if send is None:
        _thread.interrupt_main()
    else:
        send(threading.main_thread().ident or 0, signal.SIGINT)


@contextlib.contextmanager
def alarm(seconds: float, ring: Callable[[], None]) -> Iterator[None]:
    """Call a function in the main thread if the block is not over after some seconds; it may raise.

    Without alarms, as on Windows, it is never called: what should end in time has to see to that itself.
    """
    number, set_timer = getattr(signal, "SIGALRM", None), getattr(signal, "setitimer", None)
    if number is None or set_timer is None:
        yield
        return
    real = signal.ITIMER_REAL  # type: ignore[attr-defined,unused-ignore]
    before = signal.signal(number, lambda *_: ring())
    set_timer(real, seconds)
    try:
        yield
    finally:
        set_timer(real, 0)
        signal.signal(number, before)


def be_nice(niceness: int) -> None:
    """Let other processes go first, if the system can be told so by a number."""
    if hasattr(os, "nice"):
        os.nice(niceness)


def is_apple_silicon() -> bool:
    """Whether the processor is one of Apple's own."""
    return platform.system() == "Darwin" and platform.machine() == "arm64"


def processor_name() -> str:
    """Return what the system calls its processor."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):  # macOS has a longer name than `platform` knows
        if platform.system() == "Darwin":
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]
            found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
            if found:
                return found
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Return the number of cores that this process may use, as far as the system says."""
    process: Any = psutil.Process()
    return len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else os.cpu_count() or 1  # macOS has none


def peak_memory_bytes() -> int:
    """Return the most memory that this process has used so far, pages that it shares with others included."""
    resource: Any = systems.module("resource")
    if resource is None:
        now = psutil.Process().memory_info()
        return int(getattr(now, "peak_wset", now.rss))  # the first is Windows's word for it
    peak = int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return peak if psutil.MACOS else peak * 1024  # Linux counts in KiB


def limit(name: str) -> int | None:
    """Return a limit of this process, such as `RLIMIT_NOFILE`; None where there is none, or where none is known."""
    resource: Any = systems.module("resource")
    if resource is None or not hasattr(resource, name):
        return None
    found = int(resource.getrlimit(getattr(resource, name))[0])
    return None if found == resource.RLIM_INFINITY else found
