"""Ray workers that are forked from a process which has imported what Ray imports, so that hundreds fit one machine.

A worker that starts by itself takes 110 MB of its own and a second of a core for its imports; forked ones share most.
All the rest of it is Ray's own worker. For benchmarks of scheduling only.

Ray is given this file in place of its own `setup_worker.py`: run so, it asks the process that `serving` started to
fork, and ends; the fork does what `setup_worker.py` would have done. Ray itself is imported in the fork: what it draws
at random and reads from its environment at that time has to be a worker's own.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SOCKET = "CNNSEARCH_FORK_SOCKET"
"""Environment variable: where the process that forks listens."""
SETUP = Path(__file__).resolve()
"""What Ray is to start workers with."""
OWN = ("ray", "cnnsearch", "benchmarks")
"""Packages that every worker imports by itself."""
DIE_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of prctl(2)."""


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[None]:
    """The process that forks, for the time of the block; with it end all its forks. Its socket stands in `folder`."""
    os.environ[SOCKET] = str(folder / "forks")
    command = [sys.executable, "-m", "benchmarks.forked_workers", "serve"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=SETUP.parents[1], start_new_session=True, **pipes) as server:  # type: ignore[call-overload]
        try:
            if server.stdout.readline() != b"ready\n":
                raise RuntimeError("the process that forks workers did not start")
            yield
        finally:
            server.kill()
            del os.environ[SOCKET]


def _serve() -> None:
    import gc
    import importlib
    import signal
    import threading

    modules = "benchmarks.simulated, cnnsearch.execution.on_ray.schedule"
    code = f"import json, sys, {modules}; print(json.dumps(list(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE).stdout
    for name in json.loads(found):
        if name.partition(".")[0] not in OWN:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    gc.collect()
    gc.freeze()  # else the first collection in each fork would copy every page
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.environ[SOCKET])
        server.listen(1024)
        print("ready", flush=True)
        threading.Thread(target=_end_with_parent, daemon=True).start()
        while True:
            connection, _ = server.accept()
            with connection:
                request = json.loads(connection.makefile("rb").read())
                if os.fork() == 0:
                    server.close()
                    connection.close()
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    _become_worker(request)


def _end_with_parent() -> None:
    os.read(0, 1)
    os._exit(0)


def _become_worker(request: dict[str, Any]) -> None:
    import ctypes
    import runpy
    import signal

    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
    os.setpgid(0, 0)  # what Ray kills is a worker's whole group
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)
    try:
        from ray._private.runtime_env.context import RuntimeEnvContext
        from ray._private.workers.setup_worker import parser

        options, sys.argv = parser.parse_known_args(request["arguments"])
        os.environ.update(RuntimeEnvContext.deserialize(options.serialized_runtime_env_context or "{}").env_vars)
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        os._exit(0)


def _ask() -> None:
    request = {"arguments": sys.argv[1:], "environment": dict(os.environ), "folder": os.getcwd()}
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(os.environ[SOCKET])
        client.sendall(json.dumps(request).encode())


if __name__ == "__main__":
    _serve() if sys.argv[1:] == ["serve"] else _ask()
