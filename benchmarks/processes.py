"""Run a command as a process of its own; time it, and watch the memory of it and all its descendants from outside."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
SAMPLE_SECONDS = 0.25
SAMPLING_SHARE = 0.02
"""Of a core that sampling takes at most: on a CPU it is taken from what is measured."""
TIMEOUT_SECONDS = 6 * 3600.0


@dataclass(frozen=True)
class Finished:
    """A process that ended."""

    seconds: float
    """From its start to its end, so interpreter, imports and whatever it starts are in it."""
    peak_bytes: int
    """Highest sum seen over the process and its descendants; see `memory_measure`. Sampled: short peaks are missed."""
    failure: str | None
    """Why it failed, in a line; None where it did not."""


def run(command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> Finished:
    """Run to the end, in the repository's folder. What it prints goes to a file."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    variables = {**os.environ, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", **(environment or {})}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=ROOT, env=variables, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        with _Memory(process.pid) as memory:
            try:
                code: int | None = process.wait(TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                seconds = time.perf_counter() - start
                if process.poll() is None:
                    _kill(process)
    if code == 0:
        return Finished(seconds, memory.peak_bytes, None)
    said = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    reason = "took too long" if code is None else f"exit code {code}: {said[-1] if said else 'no message'}"
    return Finished(seconds, memory.peak_bytes, reason)


def memory_measure() -> str:
    """What is summed over processes here, for people."""
    if hasattr(psutil.Process().memory_full_info(), "pss"):
        return "PSS: a page that several processes share is counted once"
    return "RSS: a page that several processes share is counted for each"


class _Memory:
    """Samples a process tree in a thread for the time of a block."""

    def __init__(self, pid: int) -> None:
        self.peak_bytes = 0
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> _Memory:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        took = 0.0
        while not self._ended.wait(max(SAMPLE_SECONDS, took / SAMPLING_SHARE)):
            start = time.perf_counter()
            self.peak_bytes = max(self.peak_bytes, sum(_bytes(process) for process in _tree(self._pid)))
            took = time.perf_counter() - start


def _tree(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def _bytes(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.Error, OSError):
        info = process.memory_full_info()
        return int(getattr(info, "pss", info.rss))
    return 0


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End it and what it started: by their own ids, since some of them are in groups of their own."""
    for one in reversed(_tree(process.pid)):
        with contextlib.suppress(psutil.Error):
            one.send_signal(signal.SIGKILL)
    process.wait()
