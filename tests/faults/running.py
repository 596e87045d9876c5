"""Runs the commands as people do, in processes of their own, on sweeps that take seconds."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

from tests.asking import Answer

SHORT = [sys.executable, str(Path(__file__).parents[1] / "short.py")]
"""`python -m cnnsearch.sweep`, but for reports and timings."""
LIMIT_SECONDS = 110
"""After which a command is killed: less than a test may take."""

TWO_TRIALS = """\
name: tiny
data: {image_size: 8, split: {method: fill, train_per_class: 6, val_per_class: 4}}
train: {model: plain, width: 0.05, epochs: 2, precision: fp32, optimizer: sgd}
run: {dashboard: false}
stages:
  - name: grid
    space: {lr: {grid: [0.01, 0.1]}}
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it took."""

    returncode: int
    stdout: str
    stderr: str
    cpu_seconds: float
    """Of it and all it waited for: other work on the machine does not count, as it does on the wall's clock."""
    peak_bytes: int
    """Largest resident memory of the command itself."""

    @property
    def told(self) -> dict[str, Any]:
        """What `--json` printed: all of standard output."""
        told: dict[str, Any] = json.loads(self.stdout)
        return told


def call(
    *arguments: object,
    module: str | None = None,
    before: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> Ended:
    """Run a command to its end.

    Args:
        arguments: of the command.
        module: what is run; None: a sweep without its report and timings, which take longest.
        before: words before the Python that runs it.
        env: is added to ours.
    """
    python = SHORT if module is None else [sys.executable, "-m", module]
    command = [*before, *python, *map(str, arguments)]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, env={**os.environ, **(env or {})})
        watchdog = threading.Timer(LIMIT_SECONDS, process.kill)
        watchdog.start()
        try:
            peak_bytes = _watch_memory(process.pid)
            _, status, usage = os.wait4(process.pid, 0)
        finally:
            watchdog.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        return Ended(process.returncode, out.read(), err.read(), usage.ru_utime + usage.ru_stime, peak_bytes)


def _watch_memory(process: int) -> int:
    """Largest resident memory of a process, looked at until it ends. What `wait4` tells counts its parent's too."""
    peak = 0
    while True:
        status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
        found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
        if found is None:  # a zombie has no memory
            return peak
        peak = int(found[1]) * 1024
        time.sleep(0.02)


def sweep_file(folder: Path, text: str = TWO_TRIALS, name: str = "tiny.yaml") -> Path:
    """A sweep file in `folder`."""
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def images(folder: Path, classes: Sequence[str] = ("cat", "dog"), per_class: int = 12) -> Path:
    """A folder of small images, each of its own colour."""
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(per_class):
            save(folder / name / f"{index:03}.png", label, index)
    return folder


def save(path: Path, label: int, index: int) -> None:
    """One small image, of a colour of its own."""
    Image.new("RGB", (10, 12), (label * 40 % 256, index * 10, 40)).save(path, "PNG")


def assert_refused(ended: Ended | Answer, complaint: str) -> None:
    """Exit 2 and one clear message, before anything was started."""
    assert ended.returncode == 2, ended
    assert ended.stdout == ""
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("error:") == 1
    assert complaint in ended.stderr
    assert "Traceback" not in ended.stderr


def workers() -> Iterator[psutil.Process]:
    """The processes that run trials of a sweep run by this process."""
    for child in psutil.Process().children(recursive=True):
        # Ray gives a worker the name of what it is doing: a job's step, with the id of its first trial.
        with contextlib.suppress(psutil.Error):  # it has just ended
            if any(re.match(r"ray::(Worker\b|.+ \[[0-9a-f]{16})", part) for part in child.cmdline()):
                yield child
