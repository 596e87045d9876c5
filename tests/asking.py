"""Commands in this process: for answers that need no process of their own, such as refusals."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from unittest import mock

from cnnsearch.cli import app


@dataclass(frozen=True)
class Answer:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def told(self) -> dict[str, Any]:
        """What `--json` printed: all of standard output."""
        told: dict[str, Any] = json.loads(self.stdout)
        return told


def ask(*arguments: object, command: str = "sweep", env: Mapping[str, str] | None = None) -> Answer:
    """Run a command as `cnnsearch COMMAND ARGUMENTS` would; `env` is added to ours meanwhile."""
    words = ["cnnsearch", command, *map(str, arguments)]
    out, err, code = io.StringIO(), io.StringIO(), 0
    warnings = logging.StreamHandler(err)  # where Python has them go in a process that says nothing else of it
    warnings.setLevel(logging.WARNING)
    logging.getLogger().addHandler(warnings)
    with (
        mock.patch.object(sys, "argv", words),
        mock.patch.dict(os.environ, env or {}),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            app(prog_name="cnnsearch")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        finally:
            logging.getLogger().removeHandler(warnings)
    return Answer(code, out.getvalue(), err.getvalue())
