"""A store that speaks S3: a server in a process of its own, which asks for signed requests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PYTHON = Path(sys.prefix) / "s3" / "bin" / "python"


@dataclass(frozen=True)
class Store:
    """Where it is, and who may write there."""

    endpoint: str
    key: str
    secret: str

    def uri(self, place: str) -> str:
        return f"s3://{place}?endpoint_override={self.endpoint}&scheme=http&region=us-east-1"


@pytest.fixture(scope="session")
def _server() -> Iterator[Store]:
    if not PYTHON.exists():
        pytest.skip("make test installs the S3-compatible server that this test needs")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTHON"))}
    process = subprocess.Popen(
        [PYTHON, Path(__file__).with_name("server.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=clean,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Store(**json.loads(process.stdout.readline()))
    finally:
        process.stdin.close()
        process.wait(20)
        process.stdout.close()


@pytest.fixture
def store(_server: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The store, with its credentials in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", _server.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", _server.secret)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return _server
