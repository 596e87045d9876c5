from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent import futures

import grpc
import pytest

from cnnsearch.execution.on_ray import pulse
from tests.execution.on_ray.test_authentication import TOKEN, _Cluster

CODE = """
import sys, time
from cnnsearch.execution import warden
from cnnsearch.execution.on_ray import pulse
with warden.watching("killed") as there, pulse.watched(sys.argv[1], there):
    print("begun", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def ended(address: str, seconds: float, patience: float = 0.8) -> subprocess.CompletedProcess[str]:
    """A process that watches a cluster for so long."""
    return subprocess.run(
        [sys.executable, "-c", CODE, address, str(seconds)],
        env={**os.environ, pulse.PATIENCE: str(patience)},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def silent() -> Iterator[str]:
    """An address where somebody takes calls and says nothing, as a stopped process does."""
    with socket.socket() as there:
        there.bind(("127.0.0.1", 0))
        there.listen()
        yield f"127.0.0.1:{there.getsockname()[1]}"


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where nobody listens."""
    with socket.socket() as there:
        there.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{there.getsockname()[1]}"


@pytest.mark.parametrize("kind", ["silent", "nobody"])
def test_a_run_without_its_cluster_ends_with_one_message(kind: str, request: pytest.FixtureRequest) -> None:
    address = request.getfixturevalue(kind)
    run = ended(address, 60)
    assert run.returncode == 1
    assert run.stdout == "begun\n"
    assert run.stderr == (
        f"error: the Ray cluster at {address} has not answered for 1 s.\n"
        "What is finished is kept; the same command goes on, on a new cluster too.\n"
    )


def test_a_run_that_ends_sooner_is_left_alone(nobody: str) -> None:
    run = ended(nobody, 0.2, patience=60)
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize("token", ["", TOKEN], ids=["open", "closed"])
def test_a_cluster_that_answers_is_no_reason_to_end(token: str) -> None:
    """Also where it asks for a token, which it is not sent."""
    handler = _Cluster(token)
    server = grpc.server(futures.ThreadPoolExecutor(1), handlers=(handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        run = ended(f"127.0.0.1:{port}", 3)
    finally:
        server.stop(None).wait()
    assert (run.returncode, run.stderr) == (0, "")
    assert len(handler.shown) > 3
    assert set(handler.shown) == {""}


def test_ray_does_not_come_first() -> None:
    assert pulse.SHARE * pulse.DEFAULT_PATIENCE + 2 * pulse.SHARE * pulse.DEFAULT_PATIENCE / 10 < pulse.DEFAULT_PATIENCE
