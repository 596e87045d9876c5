from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from cnnsearch.errors import RequestError
from cnnsearch.execution.on_ray import authentication

TOKEN = "a-token-of-this-test"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_USE_TLS", authentication.ALLOW):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


class _Cluster(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers like a cluster's control process; remembers the tokens it was shown."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.shown: list[str] = []
        self.address = ""

    def service(self, call: Any) -> Any:
        shown = dict(call.invocation_metadata).get("authorization", "")
        self.shown.append(shown)

        def answer(request: bytes, context: Any) -> bytes:
            if self.token and shown != f"Bearer {self.token}":
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.fixture
def cluster() -> Iterator[Callable[[str], _Cluster]]:
    """Starts a cluster that asks for this token; with "" for none."""
    servers = []

    def start(token: str) -> _Cluster:
        handler = _Cluster(token)
        server = grpc.server(futures.ThreadPoolExecutor(1), handlers=(handler,))
        handler.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        servers.append(server)
        return handler

    yield start
    for server in servers:
        server.stop(None).wait()


def keep_token(path: Path, token: str, mode: int = 0o600) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(token + "\n")
    path.chmod(mode)


def test_a_cluster_that_asks_for_no_token_is_refused_unless_allowed(
    cluster: Callable[[str], _Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = cluster("")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    for value in ("", "0", "no"):
        monkeypatch.setenv(authentication.ALLOW, value)
        with pytest.raises(RequestError, match=f"asks for no token.*RAY_AUTH_MODE=token.*{authentication.ALLOW}=1"):
            authentication.check_cluster(there.address)
    monkeypatch.setenv(authentication.ALLOW, "1")
    assert not authentication.check_cluster(there.address)
    assert set(there.shown) == {""}, "a token is not for whoever answers"


def test_a_cluster_that_asks_for_the_token_here_is_used(
    cluster: Callable[[str], _Cluster], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    there = cluster(TOKEN)
    keep_token(tmp_path / ".ray" / "auth_token", TOKEN)
    assert authentication.check_cluster(there.address)
    keep_token(tmp_path / "elsewhere", TOKEN)
    keep_token(tmp_path / ".ray" / "auth_token", "another")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "elsewhere"))
    assert authentication.check_cluster(there.address)
    keep_token(tmp_path / "elsewhere", "another")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    assert authentication.check_cluster(there.address)


def test_a_token_that_is_missing_or_wrong_is_told_apart(
    cluster: Callable[[str], _Cluster], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    there, file = cluster(TOKEN), tmp_path / ".ray" / "auth_token"
    with pytest.raises(RequestError, match=f"there is none in {file}: copy the cluster's there"):
        authentication.check_cluster(there.address)
    keep_token(file, "another")
    with pytest.raises(RequestError, match=f"does not take the token of {file}"):
        authentication.check_cluster(there.address)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a third")
    with pytest.raises(RequestError, match="does not take the token of RAY_AUTH_TOKEN"):
        authentication.check_cluster(there.address)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(RequestError, match="RAY_AUTH_MODE is disabled; allowed: token"):
        authentication.check_cluster(there.address)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_a_token_that_others_can_read_is_refused_and_not_sent(
    cluster: Callable[[str], _Cluster], tmp_path: Path, mode: int
) -> None:
    there, file = cluster(TOKEN), tmp_path / ".ray" / "auth_token"
    keep_token(file, TOKEN, mode)
    with pytest.raises(RequestError, match=f"{file} has mode {mode:o}.*chmod 600 {file}"):
        authentication.check_cluster(there.address)
    assert there.shown == [""]


def test_where_nothing_answers_that_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(RequestError, match=f"no Ray cluster answers at {address}"):
            authentication.check_cluster(address)


def test_no_ray_is_started_without_a_token_unless_allowed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    authentication.check_start()
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    keep_token(tmp_path / "token", TOKEN, 0o644)
    with pytest.raises(RequestError, match="chmod 600"):
        authentication.check_start()
    keep_token(tmp_path / "token", TOKEN)
    authentication.check_start()
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(RequestError, match=f"RAY_AUTH_MODE is disabled.*{authentication.ALLOW}=1"):
        authentication.check_start()
    monkeypatch.setenv(authentication.ALLOW, "1")
    authentication.check_start()


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff\xfe", "a folder"])
def test_a_file_named_for_the_token_has_to_hold_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | str | None
) -> None:
    file = tmp_path / "token"
    if isinstance(content, bytes):
        file.write_bytes(content)
        file.chmod(0o600)
    elif content:
        file.mkdir(mode=0o700)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
    with pytest.raises(RequestError, match=f"RAY_AUTH_TOKEN_PATH: {file} .*unset the variable"):
        authentication.check_start()
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    authentication.check_start()


@pytest.mark.parametrize("blank", ["", " ", "\t\n"])
@pytest.mark.parametrize("names", [("RAY_AUTH_TOKEN",), ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")])
def test_a_token_set_to_nothing_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, names: tuple[str, ...], blank: str
) -> None:
    """The token in the home folder is neither used nor written, and Ray gets one that is made for the run."""
    from cnnsearch.execution.machine.hardware import Layout
    from cnnsearch.execution.on_ray import cluster
    from cnnsearch.spec.sweep import RunSpec

    keep_token(tmp_path / ".ray" / "auth_token", TOKEN)
    for name in names:
        monkeypatch.setenv(name, blank)
    seen: list[dict[str, str]] = []

    def start(**options: Any) -> None:
        seen.append(dict(os.environ))
        raise RequestError("enough")

    monkeypatch.setattr(cluster, "_initialised", start)
    with pytest.raises(RequestError, match="enough"), cluster.started(Layout("cpu", 1, 1, 0.0), RunSpec(), None):
        pass
    assert len(seen[0]["RAY_AUTH_TOKEN"]) == 64
    assert "RAY_AUTH_TOKEN_PATH" not in seen[0]
    assert {os.environ[name] for name in names} == {blank}
    assert (tmp_path / ".ray" / "auth_token").read_text() == f"{TOKEN}\n"


def test_certificates_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USE_TLS", "1")
    monkeypatch.delenv("RAY_TLS_CA_CERT", raising=False)
    with pytest.raises(RequestError, match="RAY_USE_TLS needs files named by RAY_TLS_CA_CERT"):
        authentication.check_cluster("127.0.0.1:1")


def test_addresses_that_are_no_cluster_are_refused() -> None:
    from cnnsearch.execution.on_ray.cluster import check_address

    with pytest.raises(RequestError, match=r"Ray Client is not supported.*--address auto.*ray job submit"):
        check_address("ray://127.0.0.1:10001")
    with pytest.raises(RequestError, match="without --address, Ray is started on this machine"):
        check_address("local")
    with pytest.raises(RequestError, match="no Ray cluster answers at --address nowhere: Invalid address"):
        check_address("nowhere")


def test_a_cluster_is_refused_before_anything_is_prepared(
    cluster: Callable[[str], _Cluster], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from typer.testing import CliRunner

    from cnnsearch.cli import app

    monkeypatch.setattr("ray._private.services.get_node_ip_address", lambda: "127.0.0.1")  # where the cluster listens
    command = ["sweep", "part1", "--out", str(tmp_path / "results"), "--address", cluster("").address]
    ended = CliRunner().invoke(app, command)
    assert ended.exit_code == 2
    assert "asks for no token" in ended.stderr
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
@pytest.mark.parametrize("token", ["", TOKEN], ids=["open", "closed"])
def test_a_real_cluster_is_told_by_whether_it_asks_for_a_token(
    token: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {**os.environ, "RAY_AUTH_MODE": "token" if token else "disabled", "RAY_AUTH_TOKEN": token}
    ray = Path(sys.executable).parent / "ray"
    port = address.partition(":")[2]
    with tempfile.TemporaryDirectory(prefix="cnns-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        options = [f"--port={port}", "--num-cpus=1", "--include-dashboard=false", f"--temp-dir={folder}", "--block"]
        started = subprocess.Popen(
            [ray, "start", "--head", "--disable-usage-stats", *options],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            _wait_until_listening(int(port), started)
            if token:
                monkeypatch.setenv("RAY_AUTH_TOKEN", "another")
                with pytest.raises(RequestError, match="does not take the token of RAY_AUTH_TOKEN"):
                    authentication.check_cluster(address)
                monkeypatch.setenv("RAY_AUTH_TOKEN", token)
                assert authentication.check_cluster(address)
                attach = (
                    "import sys; from cnnsearch.execution.on_ray import cluster; import ray;"
                    "ray.init(address=cluster.check_address(sys.argv[1]), log_to_driver=False);"
                    "assert ray.cluster_resources()['CPU'] == 1"
                )
                subprocess.run([sys.executable, "-c", attach, address], check=True, timeout=90)
            else:
                with pytest.raises(RequestError, match="asks for no token"):
                    authentication.check_cluster(address)
        finally:
            ours = psutil.Process(started.pid).children(recursive=True)
            os.killpg(started.pid, signal.SIGKILL)
            for process in ours:
                if process.is_running():
                    process.kill()
            started.wait()


def _wait_until_listening(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        assert process.poll() is None
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise AssertionError("Ray did not start within a minute")
