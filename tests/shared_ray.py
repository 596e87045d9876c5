"""One Ray for all tests of a process that need no more of it than that it runs trials: starting one takes longer."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from cnnsearch.execution.warden import MARK

SLOTS = 4
"""Trials at a time, of one thread each. Ray counts two GPUs, for tests of their shares; nothing looks for them."""
CODE = f"""
import sys
from dataclasses import replace
import ray
from cnnsearch.execution.machine.hardware import Layout, detect
from cnnsearch.execution.on_ray import cluster
from cnnsearch.spec.sweep import RunSpec
cluster.detect = lambda: replace(detect(), gpus=("made up", "made up"))
with cluster.started(Layout("cuda", {SLOTS}, 1, 0.5), RunSpec(dashboard=False), None):
    print(ray.get_runtime_context().gcs_address, flush=True)
    sys.stdin.read()
"""


class SharedRay:
    """Started in a process of its own by the first test that wants it, as a run starts it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._address = ""

    @property
    def address(self) -> str:
        """Of its control process."""
        if self._process is None:
            # Else the warden of the run that wants it first would end it with that run.
            environment = {name: value for name, value in os.environ.items() if name != MARK}
            self._process = subprocess.Popen(
                [sys.executable, "-c", CODE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
            )
            assert self._process.stdout is not None
            self._address = self._process.stdout.readline().strip()
            assert self._address, "Ray did not start"
        return self._address

    def stand_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have `cluster.started` attach to this one where it would start one."""
        import ray

        from cnnsearch.execution.on_ray import cluster

        initialise = cluster._initialised
        os.environ.setdefault("RAY_AUTH_TOKEN", cluster._TOKEN)  # both processes have to know the same
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        ray._raylet.Config.initialize("")  # Ray has read its settings when it was imported
        monkeypatch.setattr(cluster, "_initialised", lambda **options: initialise(address=self.address))

    def end(self) -> None:
        """End it, if any test wanted it."""
        if self._process is not None:
            self._process.communicate(timeout=60)
