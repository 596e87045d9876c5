"""Runs a sweep over and over, killed each time at another boundary of a write; then to its end.

Run as `python -m tests.faults.cut FOLDER some|whole|all`, where FOLDER holds tiny.yaml: some boundaries of runs without
a report, some of whole runs, or all of whole runs. Everything slow is imported once, and each run is a fork. Prints a
line of JSON for each boundary.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cnnsearch import prepare, session
from cnnsearch.execution import serial
from cnnsearch.report import html
from cnnsearch.spec.load import load_sweep
from tests import short
from tests.recorded import numbers

SOME = 3
"""Boundaries tried with `some` and `whole`, spread over all."""


class Cut:
    """Counts boundaries: each write has one before its file is synced, before it is renamed, before the folder is."""

    def __init__(self, kill_at: int | None, log: Path) -> None:
        self.kill_at = kill_at
        self.log = log
        self.count = 0
        self._fsync = os.fsync
        self._replace = Path.replace
        self._last = ""

    def install(self) -> None:
        def fsync(fd: Any) -> None:
            path = Path(os.readlink(f"/proc/self/fd/{fd}"))
            self._boundary("folder" if path.is_dir() else "file", path)
            self._fsync(fd)

        def replace(source: Path, target: Path) -> Path:
            self._boundary("rename", source, Path(target).name)
            self._last = Path(target).name
            return self._replace(source, target)

        os.fsync = fsync
        Path.replace = replace  # type: ignore[method-assign, assignment]

    def _boundary(self, kind: str, path: Path, target: str = "") -> None:
        self.count += 1
        with self.log.open("a") as log:
            log.write(json.dumps({"kind": kind, "file": target or self._last}) + "\n")
        if self.count == self.kill_at:
            if kind == "file":  # not all of it had come to the disk
                os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)


def forked(work: Callable[[], None]) -> int:
    """Run in a fork, quietly; its wait status."""
    child = os.fork()
    if child == 0:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                work()
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(9)
    return os.waitpid(child, 0)[1]


def sweep(folder: Path, out: Path) -> None:
    with prepare.prepared(load_sweep(str(folder / "tiny.yaml")), out) as ready:
        session.execute(ready, serial=True)


def main(folder: Path, part: str) -> None:
    assert serial
    assert html
    torch.set_num_threads(1)
    if part == "some":
        short.shorten(setattr)
    assert forked(lambda: sweep(folder, folder / "reference")) == 0
    expected = numbers(folder / "reference" / "tiny")
    log = folder / "log"

    def cut(out: Path, at: int | None) -> None:
        Cut(at, log).install()
        sweep(folder, out)

    assert forked(lambda: cut(folder / "counted", None)) == 0
    known: list[dict[str, str]] = [json.loads(line) for line in log.read_text().splitlines()]
    shutil.rmtree(folder / "counted")
    for at in chosen(known, part):
        out = folder / "out"
        status = forked(lambda at=at, out=out: cut(out, at))  # type: ignore[misc]
        whole = all_whole(out / "tiny")
        assert forked(lambda out=out: sweep(folder, out)) == 0  # type: ignore[misc]
        told = {
            **known[at - 1],
            "file": next(one["file"] for one in known[at - 1 :] if one["kind"] == "rename")
            if known[at - 1]["kind"] == "file"
            else known[at - 1]["file"],
            "killed": os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL,
            "whole": whole,
            "same": numbers(out / "tiny") == expected,
            "swept": not list(out.rglob(".tmp-*")),
        }
        print(json.dumps(told), flush=True)
        shutil.rmtree(out)


def chosen(known: list[dict[str, Any]], part: str) -> list[int]:
    """Numbers of the boundaries to be killed at."""
    every = range(1, len(known) + 1)
    if part == "all":
        return list(every)
    wanted = ("checkpoint.pt", "record.json", "best.safetensors", "trials.parquet")
    renames = [next(n for n in every if known[n - 1] == {"kind": "rename", "file": name}) for name in wanted]
    # The rename of a file comes right after the boundary before it is synced.
    picked = {number - shift for number in renames for shift in (0, 1)}
    picked |= {1 + step * (len(known) - 1) // (SOME - 1) for step in range(SOME)}
    return sorted(picked)


def all_whole(results: Path) -> bool:
    """Whether what has a final name can be read."""
    for file in results.rglob("*.json"):
        if not file.name.startswith(".tmp-"):
            json.loads(file.read_text())
    return True


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
