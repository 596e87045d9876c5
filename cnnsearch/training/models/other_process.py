"""Asks a process of its own, so that this one need not import torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from cnnsearch.errors import RequestError, RunError


def ask(module: str, request: Any, failed: str, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run a module as a program that takes one request and gives one answer, both as JSON.

    Args:
        module: reads standard input; the last line that it writes is its answer, an object.
        request: what JSON can hold.
        failed: how the error begins where the process ends without an answer.
        environment: of the process; None: that of this one.

    Raises:
        RequestError: the answer has an `error`, which says what is wrong with the request.
        RunError: the process ended without an answer.
    """
    done = subprocess.run(
        [sys.executable, "-m", module], input=json.dumps(request), capture_output=True, text=True, env=environment
    )
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise RunError(f"{failed}: {last[0]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if "error" in found:
        raise RequestError(found["error"])
    return found
