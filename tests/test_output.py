from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

COMMAND = """
import sys
from cnnsearch import cli
def command():
    print("2 × 3 – é", flush=True)
    print("and on", file=sys.stderr, flush=True)
    raise cli.typer.Exit({code})
"""
ENTRIES = {
    "the console script": f"{COMMAND}cli.app = cli._plain_app(); cli.app.command()(command); cli.main()",
    "a module": f"{COMMAND}cli.run_alone(command)",
}


def ended(entry: str, code: int = 0, encoding: str = "utf-8", **options: Any) -> subprocess.CompletedProcess[bytes]:
    """How a command ends that prints what not every output takes; `options` say what that is."""
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    command = [sys.executable, "-c", ENTRIES[entry].replace("{code}", str(code))]
    done: subprocess.CompletedProcess[bytes] = subprocess.run(
        command, env={**os.environ, "PYTHONIOENCODING": encoding}, timeout=60, **streams
    )
    return done


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize(
    ("encoding", "line"),
    [("utf-8", "2 × 3 – é".encode()), ("latin-1", b"2 \xd7 3 \\u2013 \xe9"), ("ascii", b"2 \\xd7 3 \\u2013 \\xe9")],
)
def test_characters_that_the_output_lacks_end_no_command(entry: str, encoding: str, line: bytes) -> None:
    done = ended(entry, 0, encoding)
    assert (done.returncode, done.stdout, done.stderr) == (0, line + b"\n", b"and on\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize(("code", "expected"), [(0, 1), (2, 2), (130, 130)])
def test_a_full_device_ends_no_command_and_is_told_at_its_end(entry: str, code: int, expected: int) -> None:
    with open("/dev/full", "wb") as full:
        done = ended(entry, code, stdout=full)
        assert done.returncode == expected
        assert done.stderr == b"and on\nerror: standard output cannot be written: No space left on device\n"
        assert ended(entry, code, stdout=full, stderr=full).returncode == expected


def test_a_reader_that_has_enough_ends_no_command() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    with os.fdopen(theirs, "wb") as out:
        done = ended("a module", stdout=out)
    assert (done.returncode, done.stderr) == (0, b"and on\n")


@pytest.mark.parametrize("closed", [1, 2])
def test_an_output_may_be_closed(closed: int) -> None:
    done = ended("a module", preexec_fn=lambda: os.close(closed))
    assert done.returncode == 0
    assert (b"and on" in done.stderr) == (closed == 1)
