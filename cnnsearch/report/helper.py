"""Programs of this package that a process starts to help it, and talks to by lines of text."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Mapping

from cnnsearch.systems import processes


def start(module: str, environment: Mapping[str, str], *, answers: bool = False) -> subprocess.Popen[str]:
    """Start a module as a program. Raises OSError.

    Args:
        module: its name. It is to end when its standard input does.
        environment: of the program.
        answers: whether its standard output is read.
    """
    return subprocess.Popen(
        [sys.executable, "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE if answers else subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        env=environment,
        **processes.apart(),  # Ctrl-C is meant for the process that starts it alone
    )


def end(process: subprocess.Popen[str]) -> None:
    """End a program, and close what leads to it."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
